// Package release knows what a release of lite consists of, wherever it is: on a file
// server, in a directory, or in a bundle. It has the names of the files, their checksums,
// the signature of these, and the inspection of a program.
package release

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// Names of files of a release.
const (
	Installer     = "install.sh"
	SumsFile      = "SHA256SUMS"
	SignatureFile = SumsFile + ".sig"
	// ImageDir is where the archives of images are in a bundle.
	ImageDir = "images/"
)

// machines is the architectures that lite runs on, by the machine in the header of a
// program.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// Architectures is those that there are releases for.
func Architectures() []string { return slices.Sorted(maps.Keys(machines)) }

// Program is how the program for an architecture is called.
func Program(arch string) string { return "lite-linux-" + arch }

// Packed is how the program is called, compressed with gzip.
func Packed(arch string) string { return Program(arch) + ".gz" }

// ArchOf is the architecture that a packed program is for, by its name.
func ArchOf(packed string) (arch string, ok bool) {
	rest, ok := strings.CutPrefix(packed, Program(""))
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, ".gz")
}

// headSize is how much of a program CheckHead has to see.
const headSize = 20

// CheckHead checks the header of a program, and fails if it is not a program, or for
// another architecture: running it would fail with a message that helps nobody.
func CheckHead(program io.Reader, arch string) error {
	head := make([]byte, headSize)
	if _, err := io.ReadFull(program, head); err != nil || string(head[:len(elf.ELFMAG)]) != elf.ELFMAG {
		return errors.New("it is not a program for Linux")
	}
	// All architectures that lite runs on are little-endian.
	if is := elf.Machine(binary.LittleEndian.Uint16(head[18:])); is != machines[arch] {
		return fmt.Errorf("it is a program for an architecture other than %s (%s)", arch, is)
	}
	return nil
}

// CheckProgram is CheckHead for a file, which must be whole too.
func CheckProgram(path, arch string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := CheckHead(f, arch); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	head, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("it is incomplete or damaged (%w); download it again", err)
	}
	for _, s := range head.Sections {
		if end := s.Offset + s.FileSize; s.Type != elf.SHT_NOBITS && (end > uint64(info.Size()) || end < s.Offset) {
			return fmt.Errorf("it is incomplete: it has %d bytes, and its header implies %d; download it again", info.Size(), end)
		}
	}
	return nil
}
