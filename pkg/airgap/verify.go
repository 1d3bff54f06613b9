package airgap

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"

	"lite.io/lite/pkg/agent/images"
)

// File is a file of a bundle.
type File struct {
	Name   string   `json:"name"`
	Size   int64    `json:"size"`
	SHA256 string   `json:"sha256"`
	Images []string `json:"images,omitempty"` // of an archive of images
}

// maxSums is more than the checksums of any bundle take.
const maxSums = 1 << 20

// Verify reads a bundle to its end. It is an error if something is missing in it,
// is not as the checksums say, or could not be used.
func Verify(r io.Reader, tell func(file string, done int64)) ([]File, error) {
	var (
		files []File
		arch  string
		list  []byte
	)
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, unreadable(err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		h.Name = path.Clean(h.Name) // by hand one writes ./install.sh
		if h.Name == sums {
			if list, err = io.ReadAll(io.LimitReader(t, maxSums)); err != nil {
				return nil, unreadable(err)
			}
			continue
		}
		if h.Name == signature { // by whoever signs, added later
			continue
		}
		if a, ok := archOf(h.Name); ok {
			arch = a
		}
		f, err := verifyFile(h, t, arch, tell)
		if err != nil {
			return nil, fmt.Errorf("%s in it: %w", h.Name, unreadable(err))
		}
		files = append(files, f)
	}
	return files, check(files, arch, list)
}

func unreadable(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is cut short; copy it again")
	case errors.Is(err, tar.ErrHeader):
		return errors.New("it is no bundle, or a damaged one; `lite bundle create` makes one")
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.As(err, new(flate.CorruptInputError)):
		return fmt.Errorf("it is damaged (%w); copy the bundle again", err)
	}
	return err
}

func archOf(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, "lite-linux-")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, ".gz")
}

func verifyFile(h *tar.Header, r io.Reader, arch string, tell func(string, int64)) (File, error) {
	f := File{Name: h.Name, Size: h.Size}
	image := strings.HasPrefix(h.Name, imageDir)
	_, program := archOf(h.Name)
	if h.Typeflag != tar.TypeReg || !image && !program && h.Name != installer {
		return f, errors.New("it does not belong into a bundle")
	}
	if name := strings.TrimPrefix(h.Name, imageDir); image && (strings.Contains(name, "/") || !images.IsArchive(name)) {
		return f, errors.New("no node would import it; archives of images are called images/NAME.tar, .tar.gz or .tar.zst")
	}
	sum, n := sha256.New(), int64(0)
	r = io.TeeReader(r, writerFunc(func(p []byte) (int, error) {
		n += int64(len(p))
		tell(h.Name, n)
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
		z, err := gzip.NewReader(r)
		if err != nil {
			return f, err
		}
		if err := checkELF(z, arch); err != nil {
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
	want := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(list)); lines.Scan(); {
		digest, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			return fmt.Errorf("%s in it has the line %q, which is none of sha256sum", sums, lines.Text())
		}
		want[name] = digest
	}
	if len(want) == 0 {
		return fmt.Errorf("it has no %s: it is cut short, or no bundle", sums)
	}
	for _, f := range files {
		switch want[f.Name] {
		case f.SHA256:
		case "":
			return fmt.Errorf("%s in it is not in %s; make the bundle again", f.Name, sums)
		default:
			return fmt.Errorf("%s in it is damaged: its SHA-256 is %s, and should be %s; copy the bundle again", f.Name, f.SHA256, want[f.Name])
		}
		delete(want, f.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		return fmt.Errorf("%s is missing in it; make the bundle again", name)
	}
	for _, name := range []string{installer, binaryName(arch)} {
		if !slices.ContainsFunc(files, func(f File) bool { return f.Name == name }) {
			return fmt.Errorf("%s is missing in it; make the bundle again", name)
		}
	}
	return nil
}
