package cluster

import (
	"bytes"
	"debug/elf"
	endian "encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// skew makes a program read another time. No namespace has a clock of its own, and
// what is linked statically asks no library; but it asks the code that the kernel
// maps into each process (vdso(7)). There, in this process only, clock_gettime is
// overwritten. The program must just have been executed and be stopped, as
// SysProcAttr.Ptrace leaves it; this runs on the thread that has started it, and lets
// it go. proc is the /proc in which the program has that process ID. What it starts,
// or executes in its own place, reads the machine's time.
func skew(proc *os.Root, pid int, by time.Duration) (err error) {
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return fmt.Errorf("wait for the program to stop: %w", err)
	}
	if !status.Stopped() {
		return fmt.Errorf("the program has not stopped but %v", status)
	}
	defer func() { err = errors.Join(err, unix.PtraceDetach(pid)) }()
	base, err := vdso(proc, pid)
	if err != nil {
		return err
	}
	mem, err := proc.OpenFile(fmt.Sprintf("%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	image := make([]byte, 2*os.Getpagesize())
	if n, err := mem.ReadAt(image, base); n < os.Getpagesize() {
		return fmt.Errorf("read the vdso: %w", err)
	}
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return fmt.Errorf("read the vdso: %w", err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return fmt.Errorf("read the vdso: %w", err)
	}
	at := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "__vdso_clock_gettime" })
	if at < 0 {
		return errors.New("the vdso has no clock_gettime")
	}
	code := clockGettime(int64(by / time.Second))
	if symbols[at].Size < uint64(len(code)) {
		return fmt.Errorf("clock_gettime has %d bytes in the vdso, and %d are needed", symbols[at].Size, len(code))
	}
	if _, err := mem.WriteAt(code, base+int64(symbols[at].Value)); err != nil {
		return fmt.Errorf("write to the vdso: %w", err)
	}
	return nil
}

// clockGettime is the system call, and then by more seconds if it was for
// CLOCK_REALTIME, which is 0.
func clockGettime(by int64) []byte {
	code := []byte{
		0xb8, 228, 0, 0, 0, // mov $SYS_clock_gettime, %eax
		0x0f, 0x05, // syscall
		0x85, 0xff, // test %edi, %edi
		0x75, 13, // jne to ret
		0x48, 0xb9, // movabs $by, %rcx
	}
	code = endian.LittleEndian.AppendUint64(code, uint64(by))
	return append(code,
		0x48, 0x01, 0x0e, // add %rcx, (%rsi)
		0xc3) // ret
}

// vdso is where it is mapped in a process.
func vdso(proc *os.Root, pid int) (int64, error) {
	auxv, err := proc.Open(fmt.Sprintf("%d/auxv", pid))
	if err != nil {
		return 0, err
	}
	defer auxv.Close()
	const sysinfoEHDR = 33 // linux/auxvec.h
	for {
		var entry struct{ Type, Value uint64 }
		if err := endian.Read(auxv, endian.NativeEndian, &entry); err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the process has no vdso")
			}
			return 0, err
		}
		if entry.Type == sysinfoEHDR {
			return int64(entry.Value), nil
		}
	}
}
