package upgrade

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/version"
)

// sumsFile names every file beside it with its SHA-256, as sha256sum writes it.
const sumsFile = "SHA256SUMS"

// sums is what a SHA256SUMS says: file name to hexadecimal hash.
type sums map[string]string

func parseSums(r io.Reader) (sums, error) {
	s := sums{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		hash, name, ok := strings.Cut(line, " ")
		if raw, err := hex.DecodeString(hash); !ok || err != nil || len(raw) != sha256.Size {
			return nil, fmt.Errorf("%s: %q is no line of sha256sum", sumsFile, line)
		}
		s[strings.TrimLeft(name, " *")] = strings.ToLower(hash)
	}
	return s, lines.Err()
}

// check compares a hash with the one that is written for a name. checked is
// false if none is.
func (s sums) check(name, hash string) (checked bool, err error) {
	want, ok := s[name]
	if ok && want != hash {
		return true, fmt.Errorf("%s has the SHA-256 %s, and %s says %s: it is damaged or another file; get it again", name, hash, sumsFile, want)
	}
	return ok, nil
}

// programName is what the program is called in a release.
func programName() string { return "lite-linux-" + runtime.GOARCH }

// stage writes the program that an artifact holds to a file. An artifact is the
// program, that compressed with gzip, a bundle (a tar with one of these in it),
// or a directory with one of these in it. checked tells whether a SHA256SUMS
// stood for it.
func stage(artifact, to string) (checked bool, err error) {
	info, err := os.Stat(artifact)
	if err != nil {
		return false, fmt.Errorf("artifact: %w", err)
	}
	if info.IsDir() {
		for _, name := range []string{programName() + ".gz", programName()} {
			if _, err := os.Stat(filepath.Join(artifact, name)); err == nil {
				return stage(filepath.Join(artifact, name), to)
			}
		}
		return false, fmt.Errorf("artifact %s: the directory has neither %s.gz nor %[2]s; it may be for another kind of machine", artifact, programName())
	}
	f, err := os.Open(artifact)
	if err != nil {
		return false, fmt.Errorf("artifact: %w", err)
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, fmt.Errorf("artifact %s: %w", artifact, err)
	}
	head = head[:n]
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, fmt.Errorf("artifact %s: %w", artifact, err)
	}
	switch {
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)), bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		beside, err := sumsBeside(artifact)
		if err != nil {
			return false, err
		}
		return stageFile(f, filepath.Base(artifact), to, beside)
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return stageBundle(f, to)
	}
	return false, fmt.Errorf("artifact %s is neither a lite program, nor one compressed with gzip, nor a bundle (a tar)", artifact)
}

func sumsBeside(artifact string) (sums, error) {
	f, err := os.Open(filepath.Join(filepath.Dir(artifact), sumsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("artifact: %w", err)
	}
	defer f.Close()
	return parseSums(f)
}

// stageFile writes a program, compressed or not, and compares both forms with
// the sums.
func stageFile(r io.Reader, name, to string, s sums) (checked bool, err error) {
	read := sha256.New()
	from := bufio.NewReader(io.TeeReader(r, read))
	var program io.Reader = from
	plain := strings.TrimSuffix(name, ".gz")
	magic, _ := from.Peek(2)
	packed := bytes.Equal(magic, []byte{0x1f, 0x8b})
	if packed {
		unzip, err := gzip.NewReader(from)
		if err != nil {
			return false, fmt.Errorf("unpack %s: %w; get it again", name, err)
		}
		program = unzip
	}
	hash, err := writeProgram(program, to)
	if err != nil {
		return false, fmt.Errorf("unpack %s: %w", name, err)
	}
	// What follows the stream belongs to the file too.
	if _, err := io.Copy(io.Discard, from); err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	checked, err = s.check(name, hex.EncodeToString(read.Sum(nil)))
	if err != nil || !packed {
		return checked, err
	}
	also, err := s.check(plain, hash)
	return checked || also, err
}

// writeProgram writes a program and puts it on the disk.
func writeProgram(r io.Reader, to string) (hash string, err error) {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, sum), r); err != nil {
		switch {
		case errors.Is(err, unix.ENOSPC):
			err = fmt.Errorf("%w; free some room on the file system of %s", err, filepath.Dir(to))
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, gzip.ErrChecksum):
			err = fmt.Errorf("%w; it is cut off or damaged: get it again", err)
		}
		return "", err
	}
	if err := f.Chmod(0o755); err != nil { // whatever the umask
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), f.Sync()
}

// stageBundle takes the program out of a bundle. The sums may come after it.
func stageBundle(r io.Reader, to string) (checked bool, err error) {
	var s sums
	hashes := map[string]string{} // of what was unpacked
	found := false
	for archive := tar.NewReader(r); ; {
		entry, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, fmt.Errorf("read the bundle: %w; it is cut off or damaged: get it again", err)
		}
		switch name := path.Clean(entry.Name); name {
		case sumsFile:
			if s, err = parseSums(archive); err != nil {
				return false, err
			}
		case programName(), programName() + ".gz":
			whole := sha256.New()
			if _, err := stageFile(io.TeeReader(archive, whole), name, to, nil); err != nil {
				return false, err
			}
			hashes[name] = hex.EncodeToString(whole.Sum(nil))
			found = true
		}
	}
	if !found {
		return false, fmt.Errorf("the bundle has no %s; it may be for another kind of machine", programName())
	}
	for name, hash := range hashes {
		if checked, err = s.check(name, hash); err != nil {
			return checked, err
		}
	}
	return checked, nil
}

// machines is how the kinds of machines that lite runs on are called in the head
// of a program.
func machines(goarch string) elf.Machine {
	return map[string]elf.Machine{
		"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "arm": elf.EM_ARM, "riscv64": elf.EM_RISCV, "386": elf.EM_386,
	}[goarch]
}

// inspect makes sure that a file is a whole lite for this machine, and asks it
// for its versions.
func inspect(ctx context.Context, program string) (version.Info, error) {
	var v version.Info
	if err := checkELF(program); err != nil {
		return v, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "version", "-o", "json")
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &v)
	}
	if err != nil || v.Version == "" || v.Kubernetes == "" {
		return v, fmt.Errorf("the artifact is no lite: `version -o json` answers %q (%w)", firstLine(string(out)+stderr.String()), errors.Join(err))
	}
	if platform := runtime.GOOS + "/" + runtime.GOARCH; v.Platform != platform {
		return v, fmt.Errorf("the artifact is for %s and this machine is %s; take the one for %[2]s", v.Platform, platform)
	}
	return v, nil
}

// checkELF looks at the head of a program before it is run: one for another kind
// of machine would fail with words that help nobody, and one that is cut off at
// any moment later.
func checkELF(program string) error {
	f, err := os.Open(program)
	if err != nil {
		return fmt.Errorf("look at the artifact: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at the artifact: %w", err)
	}
	// All machines that lite runs on have the low byte first.
	start := make([]byte, 20)
	if _, err := io.ReadFull(f, start); err != nil {
		return fmt.Errorf("the artifact is no program (%w); get it again", err)
	}
	if machine, want := elf.Machine(binary.LittleEndian.Uint16(start[18:])), machines(runtime.GOARCH); machine != want {
		return fmt.Errorf("the artifact is for %s and this machine is %s; take the one for linux/%s", machine, want, runtime.GOARCH)
	}
	head, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("the artifact is cut off or damaged (%w); get it again", err)
	}
	for _, s := range head.Sections {
		if s.Type != elf.SHT_NOBITS && s.Offset+s.FileSize > uint64(info.Size()) {
			return fmt.Errorf("the artifact is cut off: it has %d bytes and speaks of %d; get it again", info.Size(), s.Offset+s.FileSize)
		}
	}
	return nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
