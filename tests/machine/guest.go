// Package machine shows that lite runs on what a user has: a machine of its
// own, with systemd as PID 1, cgroup v2 and WireGuard in the kernel. The machine is
// virtual and its processor emulated, so that no KVM is needed; that makes it 5 to
// 25 times slow, and the tests such that have to be asked for:
//
//	LITE_MACHINE_TEST=1 go test -v -count=1 -timeout 60m ./tests/machine
//
// The disk is made once, in dist/machine or LITE_TEST_DIR; the logs of each test's
// last run are there too. Package cluster is not used: this machine is not touched.
package machine

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// commandTimeout is for the slowest command, a stop of lite.
const commandTimeout = 3 * time.Minute

// guest is a booted machine with a shell.
type guest struct {
	dir     string
	logs    string
	shell   io.Writer
	answers chan answer
}

type answer struct {
	output, code string
}

// file is put into the machine before it boots; from is a path here.
type file struct {
	from, to string
	mode     int64
}

// need skips a test that was not asked for, or for which a program is missing.
func need(t *testing.T) {
	t.Helper()
	if os.Getenv("LITE_MACHINE_TEST") != "1" {
		t.Skip("takes long on an emulated processor: LITE_MACHINE_TEST=1 runs it")
	}
	for _, program := range []string{"qemu-system-x86_64", "mmdebstrap", "mke2fs"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%v: apt-get install qemu-system-x86 mmdebstrap e2fsprogs", err)
		}
	}
}

// boot starts a machine with these files in it. It ends with the test, and what
// it has written to its disk ends with it. Its journal is kept in g.dir.
func boot(t *testing.T, files ...file) *guest {
	t.Helper()
	g := &guest{dir: "../../dist/machine", answers: make(chan answer)}
	if dir := os.Getenv("LITE_TEST_DIR"); dir != "" {
		g.dir = filepath.Join(dir, "machine")
	}
	g.logs = filepath.Join(g.dir, t.Name())
	if err := os.MkdirAll(g.logs, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("./image", g.dir).CombinedOutput(); err != nil {
		t.Fatalf("build the disk: %v\n%s", err, out)
	}
	in := func(name string) string { return filepath.Join(g.dir, name) }
	if err := archive(in("files.tar"), files); err != nil {
		t.Fatal(err)
	}
	qemu := exec.Command("nice", "-n", "10", "qemu-system-x86_64",
		"-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max", "-smp", "2", "-m", "4G", "-nodefaults", "-display", "none",
		"-kernel", in("vmlinuz"), "-initrd", in("initrd"), "-append", "root=/dev/vda rw console=ttyS0 panic=1 systemd.journald.forward_to_console=1",
		"-drive", "if=virtio,format=raw,snapshot=on,cache=unsafe,file="+in("disk.ext4"),
		"-drive", "if=virtio,format=raw,readonly=on,file="+in("files.tar"),
		"-nic", "user,model=virtio-net-pci,restrict=on",
		"-serial", "file:"+g.log("console.log"),
		"-device", "virtio-serial", "-chardev", "stdio,id=shell,signal=off", "-device", "virtserialport,chardev=shell,name=shell")
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	qemu.Env = append(os.Environ(), "TMPDIR="+g.dir)
	var complaints strings.Builder
	qemu.Stderr = &complaints
	shell, err1 := qemu.StdinPipe()
	output, err2 := qemu.StdoutPipe()
	if err := errors.Join(err1, err2, qemu.Start()); err != nil {
		t.Fatal(err)
	}
	g.shell = shell
	go g.read(output)
	t.Cleanup(func() {
		g.keep(t, "journalctl --no-pager -o short-precise", "journal.log")
		_ = qemu.Process.Kill()
		_ = qemu.Wait()
		if complaints.Len() > 0 {
			t.Log("qemu: ", complaints.String())
		}
	})
	if _, err := g.answer(readyTimeout); err != nil {
		t.Fatal(err)
	}
	return g
}

// archive writes files as the machine unpacks them.
func archive(path string, files []file) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	for _, f := range files {
		content, err := os.ReadFile(f.from)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: f.to, Mode: f.mode, Size: int64(len(content))}); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), out.Close())
}

// mark begins the line after a command's output, with its exit code. A shell
// that has just started says so with a line like this.
const mark = "\x01"

func (g *guest) read(r io.Reader) {
	defer close(g.answers)
	var output strings.Builder
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if before, code, found := strings.Cut(line, mark); found {
			g.answers <- answer{output.String() + before, strings.TrimSpace(code)}
			output.Reset()
			continue
		}
		output.WriteString(line)
	}
}

// Run runs a command of bash in the machine and returns what it prints.
func (g *guest) Run(command string) (string, error) { return g.RunFor(commandTimeout, command) }

// RunFor is Run for a command that may take another time.
func (g *guest) RunFor(limit time.Duration, command string) (string, error) {
	quoted := "'" + strings.ReplaceAll(command, "'", `'\''`) + "'"
	line := fmt.Sprintf("timeout %.0f bash -c %s </dev/null 2>&1; echo $'\\x01'$?\n", limit.Seconds(), quoted)
	if _, err := io.WriteString(g.shell, line); err != nil {
		return "", err
	}
	output, err := g.answer(limit + time.Minute)
	if err != nil {
		err = fmt.Errorf("%s: %w", command, err)
	}
	return output, err
}

// Reboot reboots the machine and waits for the new shell.
func (g *guest) Reboot() error {
	if _, err := io.WriteString(g.shell, "systemctl reboot; sleep infinity\n"); err != nil {
		return err
	}
	_, err := g.answer(readyTimeout)
	return err
}

func (g *guest) answer(timeout time.Duration) (string, error) {
	select {
	case a, ok := <-g.answers:
		if !ok {
			return "", fmt.Errorf("the machine has ended: see %s", g.log("console.log"))
		}
		if a.code != "0" {
			return a.output, fmt.Errorf("exit code %s: %s", a.code, a.output)
		}
		return a.output, nil
	case <-time.After(timeout):
		return "", fmt.Errorf("the machine does not answer: see %s", g.log("console.log"))
	}
}

// Output is Run for a command that must succeed. White space around is cut off.
func (g *guest) Output(t *testing.T, format string, args ...any) string {
	t.Helper()
	output, err := g.Run(fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(output)
}

// Eventually repeats a command until it succeeds.
func (g *guest) Eventually(t *testing.T, timeout time.Duration, format string, args ...any) string {
	t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Second) {
		output, err := g.Run(fmt.Sprintf(format, args...))
		if err == nil {
			return strings.TrimSpace(output)
		}
		if time.Since(start) > timeout {
			t.Fatalf("still after %s: %v", timeout, err)
		}
	}
}

func (g *guest) log(name string) string { return filepath.Join(g.logs, name) }

// keep writes the output of a command to a file of g.logs.
func (g *guest) keep(t *testing.T, command, name string) {
	output, err := g.Run(command)
	if err == nil {
		err = os.WriteFile(g.log(name), []byte(output), 0o644)
	}
	if err != nil {
		t.Log(err)
	}
}
