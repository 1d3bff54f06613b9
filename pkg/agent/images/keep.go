package images

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/platforms"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file/unpack"
)

// copied is a copy of an archive in the directory, without a name yet: it disappears when
// it is closed, or when the process ends.
type copied struct {
	Content
	dir    string
	file   *os.File
	digest string // SHA-256, in hexadecimal
	length int64
}

// copyIn copies an archive into a directory and checks it on the way. It returns
// when the copy is on the disk.
func copyIn(dir string, from io.Reader, progress func(int64)) (*copied, error) {
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return nil, fmt.Errorf("the file system of %s does not support unnamed files (O_TMPFILE); copy the archive there yourself, and lite imports it", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("create a file in %s: %w", dir, err)
	}
	c := &copied{dir: dir, file: f}
	if err := c.fill(from, progress); err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

func (c *copied) fill(from io.Reader, progress func(int64)) (err error) {
	sum := sha256.New()
	file := unpack.ForImages(c.dir).Writer(c.file, "the copy of the archive")
	source := &counter{r: io.TeeReader(from, io.MultiWriter(file, sum)), progress: progress}
	if c.Content, err = Inspect(source, platforms.Default()); err != nil {
		return err
	}
	c.digest, c.length = hex.EncodeToString(sum.Sum(nil)), source.n
	return c.file.Sync()
}

// Close removes the copy if it has no name.
func (c *copied) Close() error { return c.file.Close() }

// reader reads the copy from its beginning.
func (c *copied) reader(progress func(int64)) (io.Reader, error) {
	if _, err := c.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return &counter{r: c.file, progress: progress}, nil
}

// ownName is how archives are called that keep has named.
var ownName = regexp.MustCompile(`-[0-9a-f]{12}\.tar(\.gz|\.zst)?$`)

// keep gives the copy its name in the directory, which it makes from the name of
// the original. If the directory has such an archive already, that one becomes
// the newest there, and the copy is not needed.
func (c *copied) keep(dir, original string, now time.Time) (name, mark string, kept bool, err error) {
	if name, err = c.find(dir); err != nil {
		return "", "", false, err
	}
	if kept = name != ""; kept {
		err = os.Chtimes(filepath.Join(dir, name), now, now)
	} else {
		name = c.name(original)
		err = c.link(filepath.Join(dir, name), now)
	}
	if err != nil {
		return "", "", false, fmt.Errorf("store the archive in %s: %w", dir, err)
	}
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		return "", "", false, err
	}
	return name, markOf(name, info), kept, nil
}

func (c *copied) link(to string, now time.Time) error {
	self := fmt.Sprintf("/proc/self/fd/%d", c.file.Fd())
	if err := os.Chtimes(self, now, now); err != nil {
		return err
	}
	err := unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, syscall.EEXIST) { // damaged since, or another import was faster
		err = c.linkOver(self, to)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// linkOver replaces a file. A hidden one is not imported.
func (c *copied) linkOver(self, to string) error {
	hidden := filepath.Join(filepath.Dir(to), fmt.Sprintf(".%s-%d", filepath.Base(to), os.Getpid()))
	if err := unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, hidden, unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	return os.Rename(hidden, to)
}

// find returns the name of an archive with the same content.
func (c *copied) find(dir string) (string, error) {
	archives, err := listArchives(dir)
	if err != nil {
		return "", err
	}
	for _, a := range archives {
		if a.size != c.length {
			continue
		}
		digest, err := digestOf(filepath.Join(dir, a.name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if digest == c.digest {
			return a.name, nil
		}
	}
	return "", nil
}

func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return hex.EncodeToString(sum.Sum(nil)), err
}

// name is what the archive is called in the directory: as the original, or after
// its first image if that has no name, with a part of the digest.
func (c *copied) name(original string) string {
	return ArchiveName(original, c.Content, c.digest)
}

// ArchiveName is a name for an archive that no other archive has: that of its
// original, or of its first image if original is empty, with a part of its digest.
func ArchiveName(original string, c Content, digest string) string {
	base := filepath.Base(original)
	if original == "" {
		base = strings.ReplaceAll(path.Base(c.Images[0]), ":", "-")
	}
	for _, suffix := range suffixes {
		base = strings.TrimSuffix(base, suffix)
	}
	base = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._-", r):
			return r
		}
		return '-'
	}, base)
	base = strings.TrimLeft(base, ".-") // hidden files are not imported
	base = base[:min(len(base), 40)]
	if tail := "-" + digest[:12]; !strings.HasSuffix(base, tail) {
		base += tail
	}
	return strings.TrimLeft(base, "-") + c.Suffix
}

// roomy adds to an error of a full disk what has become of what was there already.
// Those of containerd are texts.
func roomy(dir string, err error) error {
	const kept = "; nothing of it was stored"
	switch {
	case errors.As(err, new(*unpack.Full)), strings.Contains(err.Error(), unpack.KeptForDatastore):
		return fmt.Errorf("%w%s", err, kept)
	case errors.Is(err, syscall.ENOSPC), strings.Contains(err.Error(), syscall.ENOSPC.Error()):
		return fmt.Errorf("%w%s; %s has no space: %s", err, kept, dir, unpack.ForImages(dir).Remedy)
	}
	return err
}

// Bytes is a size for people.
func Bytes(n int64) string { return unpack.Bytes(n) }

// Compress writes what write writes, compressed as the name of the file requires. The
// same input makes the same output.
func Compress(to io.Writer, name string, write func(io.Writer) error) error {
	var w io.WriteCloser
	switch {
	case strings.HasSuffix(name, ".gz"), strings.HasSuffix(name, ".tgz"):
		w = gzip.NewWriter(to)
	case strings.HasSuffix(name, "zst"):
		z, err := zstd.NewWriter(to, zstd.WithEncoderConcurrency(1)) // more threads cut the input elsewhere
		if err != nil {
			return err
		}
		w = z
	default:
		return write(to)
	}
	return errors.Join(write(w), w.Close())
}

// RoomBeside is the disk of a file that is written: one that has the datastore of a data directory as well is not
// filled.
func RoomBeside(file, dataDir string) unpack.Disk {
	return unpack.Disk{Dir: filepath.Dir(file)}.Beside(dataDir)
}
