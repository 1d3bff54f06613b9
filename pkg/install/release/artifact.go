package release

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file/unpack"
)

// ReadBundle calls each for the files of a bundle in their order, by their clean
// names.
func ReadBundle(r io.Reader, each func(*tar.Header, io.Reader) error) error {
	seen := map[string]bool{}
	for t := unpack.NewTar(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unreadable(err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		h.Name = path.Clean(h.Name) // by hand one writes ./install.sh
		if seen[h.Name] {
			return fmt.Errorf("%s is in it twice; create the bundle again", h.Name)
		}
		seen[h.Name] = true
		if err := each(h, t); err != nil {
			return fmt.Errorf("%s in it: %w", h.Name, unreadable(err))
		}
	}
}

// maxProgram is several times as large as lite.
const maxProgram = 1 << 30

// Unpack reads a program that gzip has compressed.
func Unpack(r io.Reader) (io.Reader, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	return unpack.Limit(z, maxProgram), nil
}

func unreadable(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is incomplete; copy it again")
	case errors.As(err, new(unpack.TooMuch)):
		return fmt.Errorf("%w, and no bundle of lite has; use another one", err)
	case errors.Is(err, tar.ErrHeader):
		return errors.New("it is not a bundle, or a damaged one; `lite bundle create` makes one")
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.As(err, new(flate.CorruptInputError)):
		return fmt.Errorf("it is damaged (%w); copy it again", err)
	}
	return err
}

// Kind is what a file is in a release.
type Kind int

// The kinds of files that an Artifact has.
const (
	Checksums Kind = iota
	Signature
	Binary // for the architecture that was asked for, compressed with gzip or not
	Images
)

// Part is a file of an Artifact.
type Part struct {
	Kind Kind
	Name string // as SHA256SUMS has it
	Size int64
	io.Reader
}

// Artifact is a release, or what of it one machine needs, in files of that machine.
type Artifact struct {
	path, arch string
	form       form
}

type form int

const (
	single form = iota // the program, compressed with gzip or not
	bundle
	directory
)

// Open finds out what an artifact is: the program, that compressed with gzip, a bundle, or
// a directory with the files of a release or of a bundle.
func Open(path, arch string) (*Artifact, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return &Artifact{path, arch, directory}, nil
	}
	if !info.Mode().IsRegular() { // a pipe would be read more than once
		return nil, fmt.Errorf("%s is neither a file nor a directory; copy the artifact to a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)), IsGzip(head):
		return &Artifact{path, arch, single}, nil
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return &Artifact{path, arch, bundle}, nil
	}
	return nil, fmt.Errorf("%s is neither a lite program, nor one compressed with gzip, nor a bundle (a tar); copy it again, or name another", path)
}

// IsGzip reports whether a file begins as one that gzip has compressed.
func IsGzip(head []byte) bool { return bytes.HasPrefix(head, []byte{0x1f, 0x8b}) }

// Single reports whether the artifact is a program alone.
func (a *Artifact) Single() bool { return a.form == single }

// Each calls each for the parts of the artifact, in whatever order.
func (a *Artifact) Each(each func(Part) error) error {
	if a.form == bundle {
		return a.eachOfBundle(each)
	}
	dir, names := a.path, []string{Packed(a.arch)}
	if a.form == single {
		dir, names = filepath.Dir(a.path), []string{filepath.Base(a.path)}
	} else {
		if _, err := os.Stat(filepath.Join(dir, names[0])); errors.Is(err, fs.ErrNotExist) {
			names[0] = Program(a.arch)
		}
		found, err := os.ReadDir(filepath.Join(dir, ImageDir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range found {
			names = append(names, ImageDir+entry.Name())
		}
	}
	for i, name := range append(names, SumsFile, SignatureFile) {
		kind := Binary
		if i > 0 {
			kind, _ = kindOf(name, a.arch)
		}
		if err := eachFile(filepath.Join(dir, name), Part{Kind: kind, Name: name}, each); err != nil {
			return err
		}
	}
	return nil
}

// eachFile skips missing entries, and those that are not files.
func eachFile(path string, p Part, each func(Part) error) error {
	// Whoever the directory belongs to may put a pipe there, which would be waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	p.Size, p.Reader = info.Size(), f
	if err := each(p); err != nil {
		return fmt.Errorf("%s: %w", path, unreadable(err))
	}
	return nil
}

func (a *Artifact) eachOfBundle(each func(Part) error) error {
	f, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = ReadBundle(f, func(h *tar.Header, r io.Reader) error {
		kind, ok := kindOf(h.Name, a.arch)
		if !ok || h.Typeflag != tar.TypeReg {
			return nil
		}
		return each(Part{kind, h.Name, h.Size, r})
	})
	if err != nil {
		return fmt.Errorf("bundle %s: %w", a.path, err)
	}
	return nil
}

// kindOf returns what a file is, by its name.
func kindOf(name, arch string) (kind Kind, ok bool) {
	switch {
	case name == SumsFile:
		return Checksums, true
	case name == SignatureFile:
		return Signature, true
	case name == Packed(arch), name == Program(arch):
		return Binary, true
	}
	archive, ok := strings.CutPrefix(name, ImageDir)
	return Images, ok && !strings.Contains(archive, "/")
}
