package airgap

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"

	"lite.io/lite/pkg/agent/images"
	"lite.io/lite/pkg/install/release"
)

// File is a file of a bundle.
type File struct {
	Name   string   `json:"name"`
	Size   int64    `json:"size"`
	SHA256 string   `json:"sha256"`
	Images []string `json:"images,omitempty"` // of an archive of images
}

// Verify reads a bundle to its end. It fails if a part is missing, does not match its
// checksum, or could not be used.
func Verify(r io.Reader, progress func(file string, done int64)) ([]File, error) {
	var (
		files []File
		arch  string
		list  []byte
	)
	err := release.ReadBundle(r, func(h *tar.Header, r io.Reader) (err error) {
		switch h.Name {
		case release.SumsFile:
			list, err = release.ReadSums(r)
			return err
		case release.SignatureFile: // by whoever signs, added later
			return nil
		}
		if a, ok := release.ArchOf(h.Name); ok {
			arch = a
		}
		f, err := verifyFile(h, r, arch, progress)
		files = append(files, f)
		return err
	})
	if err != nil {
		return nil, err
	}
	return files, check(files, arch, list)
}

func verifyFile(h *tar.Header, r io.Reader, arch string, progress func(string, int64)) (File, error) {
	f := File{Name: h.Name, Size: h.Size}
	image := strings.HasPrefix(h.Name, imageDir)
	_, program := release.ArchOf(h.Name)
	if h.Typeflag != tar.TypeReg || !image && !program && h.Name != release.Installer {
		return f, errors.New("it does not belong in a bundle")
	}
	if name := strings.TrimPrefix(h.Name, imageDir); image && (strings.Contains(name, "/") || !images.IsArchive(name)) {
		return f, errors.New("no node would import it; name image archives images/NAME.tar, .tar.gz or .tar.zst")
	}
	sum, n := sha256.New(), int64(0)
	r = io.TeeReader(r, writerFunc(func(p []byte) (int, error) {
		n += int64(len(p))
		progress(h.Name, n)
		return sum.Write(p)
	}))
	switch {
	case image:
		fits := platforms.All // if it comes before the program
		if arch != "" {
			fits = platform(arch)
		}
		content, err := images.Inspect(r, fits)
		if err != nil {
			return f, err
		}
		f.Images = content.Images
	case program:
		z, err := release.Unpack(r)
		if err != nil {
			return f, err
		}
		if err := release.CheckHead(z, arch); err != nil {
			return f, err
		}
		if _, err := io.Copy(io.Discard, z); err != nil {
			return f, err
		}
	}
	_, err := io.Copy(io.Discard, r)
	f.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return f, err
}

// check compares the files of a bundle with its checksums.
func check(files []File, arch string, list []byte) error {
	want, err := release.ParseSums(list)
	if err != nil {
		return err
	}
	if len(want) == 0 {
		return fmt.Errorf("it has no %s: it is incomplete, or not a bundle", release.SumsFile)
	}
	for _, f := range files {
		switch want[f.Name] {
		case f.SHA256:
		case "":
			return fmt.Errorf("%s in it is not in %s; create the bundle again", f.Name, release.SumsFile)
		default:
			return fmt.Errorf("%s in it is damaged: its SHA-256 is %s, and should be %s; copy the bundle again", f.Name, f.SHA256, want[f.Name])
		}
		delete(want, f.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		return fmt.Errorf("%s is missing from it; create the bundle again", name)
	}
	for _, name := range []string{release.Installer, release.Packed(arch)} {
		if !slices.ContainsFunc(files, func(f File) bool { return f.Name == name }) {
			return fmt.Errorf("%s is missing from it; create the bundle again", name)
		}
	}
	return nil
}
