package helpers

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/file/unpack"
)

const (
	// markerFile is written last. It lists every file with its mode and size, so that a directory from which something
	// was lost later is noticed too.
	markerFile = ".complete"
)

// extract unpacks the archive, which must have the given digest, into the existing directory dir. When it returns nil,
// everything is on the disk.
func extract(files fs.FS, digest, dir string) error {
	archive, err := files.Open(archiveFile)
	if err != nil {
		return err
	}
	defer archive.Close()
	hash := sha256.New()
	packed := io.TeeReader(archive, hash)
	unpacked, err := unpack.Zstd(packed)
	if err != nil {
		return err
	}
	defer unpacked.Close()

	var marker strings.Builder
	dirs := map[string]bool{dir: true}
	for r := unpack.NewTar(unpacked); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", archiveFile, err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		path := filepath.Join(dir, h.Name)
		if !inside(h) {
			return fmt.Errorf("%s contains %q, which is neither a plain file nor a link to one beside it", archiveFile, h.Name)
		}
		dirs[filepath.Dir(path)] = true
		if h.Typeflag == tar.TypeSymlink {
			if err := writeLink(path, h.Linkname); err != nil {
				return err
			}
			fmt.Fprintln(&marker, linkLine(h.Linkname, h.Name))
			continue
		}
		mode := h.FileInfo().Mode().Perm() & 0o755
		if err := writeFile(path, mode, r); err != nil {
			return err
		}
		fmt.Fprintln(&marker, markerLine(mode, h.Size, h.Name))
	}
	if _, err := io.Copy(io.Discard, packed); err != nil {
		return fmt.Errorf("read %s: %w", archiveFile, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != digest {
		return fmt.Errorf("%s has the checksum %s, not %s: run `make clean build`", archiveFile, got, digest)
	}
	for d := range dirs {
		if err := file.SyncDir(d); err != nil {
			return err
		}
	}
	if err := writeFile(filepath.Join(dir, markerFile), 0o644, strings.NewReader(marker.String())); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // a temporary directory is made with 0700
		return err
	}
	return file.SyncDir(dir)
}

// whole reports whether dir was unpacked completely and still has every file with its mode and size. It reads no content,
// so that a start costs a handful of stats.
func whole(dir string) bool {
	f, err := os.Open(filepath.Join(dir, markerFile))
	if err != nil {
		return false
	}
	defer f.Close()
	files := 0
	for lines := bufio.NewScanner(f); lines.Scan(); files++ {
		_, name, _ := strings.Cut(lines.Text(), "\t")
		if line, err := lineOf(dir, name); err != nil || line != lines.Text() {
			return false
		}
	}
	return files > 0
}

// lineOf is the line of the marker that a file would have as it is now.
func lineOf(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		return linkLine(target, name), err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a plain file", path)
	}
	return markerLine(info.Mode().Perm(), info.Size(), name), nil
}

// inside reports whether an entry of the archive is a file below the directory it is unpacked into, or a link to one: there
// are programs that do what the name says by which they are called.
func inside(h *tar.Header) bool {
	switch h.Typeflag {
	case tar.TypeReg:
		return filepath.IsLocal(h.Name)
	case tar.TypeSymlink:
		return filepath.IsLocal(h.Name) && !filepath.IsAbs(h.Linkname) && filepath.IsLocal(filepath.Join(filepath.Dir(h.Name), h.Linkname))
	}
	return false
}

func linkLine(target, name string) string { return fmt.Sprintf("-> %s\t%s", target, name) }

func markerLine(mode fs.FileMode, size int64, name string) string {
	return fmt.Sprintf("%o %d\t%s", mode, size, name)
}

// writeFile writes a new file, with exactly this mode whatever the umask, and returns when it is on the disk.
func writeFile(path string, mode fs.FileMode, content io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
}

func writeLink(path, target string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Symlink(target, path)
}
