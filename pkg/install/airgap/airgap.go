// Package airgap makes and checks bundles: one file with all that a machine
// without a network needs to run lite. It is a plain tar, so that any machine can
// unpack it:
//
//	install.sh
//	lite-linux-<arch>.gz
//	images/*.tar, *.tar.gz, *.tar.zst
//	SHA256SUMS                           of all files above, as of sha256sum
package airgap

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/platforms"
	"github.com/klauspost/compress/gzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lite.io/lite/pkg/agent/images"
	"lite.io/lite/pkg/file/unpack"
	"lite.io/lite/pkg/install/release"
	"lite.io/lite/pkg/version"
	"lite.io/lite/scripts"
)

const imageDir = release.ImageDir

// Architectures is what Arch of a Request may be.
func Architectures() []string { return release.Architectures() }

// Request is what a bundle has to contain.
type Request struct {
	Arch      string
	Installer []byte   // nil = that of this lite
	Binary    string   // the program, or the program compressed with gzip
	Files     []string // image archives
	// Export writes an archive of further images, compressed with zstd. It is nil
	// if there are none.
	Export func(io.Writer) error
	// Disk is what the bundle is written to. Progress gets how many bytes of a file are
	// done.
	Disk     unpack.Disk
	Progress func(file string, done int64)
}

// Name is how a bundle is called.
func Name(version, arch string) string { return fmt.Sprintf("lite-%s-linux-%s.tar", version, arch) }

// Create writes a bundle into an empty file, until ctx is done. The same request
// makes the same bytes.
func Create(ctx context.Context, to *os.File, r Request) (err error) {
	if r.Installer == nil {
		if r.Installer, err = scripts.Install(version.BaseURL()); err != nil {
			return err
		}
	}
	b := &builder{ctx: ctx, to: to, bounded: r.Disk.Writer(to, "the bundle"), progress: r.Progress, sums: release.Sums{}}
	if err := b.add(release.Installer, 0o755, copyOf(bytes.NewReader(r.Installer))); err != nil {
		return err
	}
	if err := b.addBinary(r.Binary, r.Arch); err != nil {
		return fmt.Errorf("%s: %w", r.Binary, err)
	}
	if r.Export != nil {
		if err := b.addImages("", r.Arch, r.Export); err != nil {
			return fmt.Errorf("export images: %w", err)
		}
	}
	for _, file := range r.Files {
		if err := b.addFile(file, r.Arch); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return b.finish()
}

// builder writes a tar. The header of a file is written after the file, whose size
// and name are not known before.
type builder struct {
	ctx      context.Context
	to       *os.File
	bounded  io.Writer // to it, while there is room
	progress func(string, int64)
	end      int64
	sums     release.Sums
}

// fixedTime is the time of all files, so that a bundle does not depend on when it was made.
// It is not 0, about which tar warns.
var fixedTime = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

func (b *builder) add(name string, mode int64, write func(io.Writer) error) error {
	_, err := b.addNamed(name, mode, write, func(string) (string, error) { return name, nil })
	return err
}

// addNamed adds a file whose name depends on its SHA-256.
func (b *builder) addNamed(title string, mode int64, write func(io.Writer) error,
	name func(digest string) (string, error)) (string, error) {
	const block = 512
	start := b.end
	if _, err := b.to.Seek(start+block, io.SeekStart); err != nil {
		return "", err
	}
	sum, n := sha256.New(), int64(0)
	err := write(writerFunc(func(p []byte) (int, error) {
		if err := b.ctx.Err(); err != nil {
			return 0, err
		}
		sum.Write(p)
		n += int64(len(p))
		b.progress(title, n)
		return b.bounded.Write(p)
	}))
	if err != nil {
		return "", err
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	path, err := name(digest)
	if err != nil {
		return "", err
	}
	if b.sums[path] != "" {
		return path, nil // the same file was named twice; it is overwritten by the next
	}
	var header bytes.Buffer
	err = tar.NewWriter(&header).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: path, Mode: mode, Size: n, ModTime: fixedTime, Uname: "root", Gname: "root", Format: tar.FormatUSTAR,
	})
	if err != nil {
		return "", fmt.Errorf("add %s of %s: %w; a file in a bundle may have 8 GB, so spread the images over several archives", path, images.Bytes(n), err)
	}
	if _, err := b.to.WriteAt(header.Bytes(), start); err != nil {
		return "", err
	}
	b.end = start + block + (n+block-1)/block*block
	b.sums[path] = digest
	return path, b.to.Truncate(b.end)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func copyOf(r io.Reader) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	}
}

// addBinary adds the program, compressed if it is not.
func (b *builder) addBinary(path, arch string) error {
	f, err := os.Open(path)
	if err != nil {
		return errors.Unwrap(err)
	}
	defer f.Close()
	compressed, err := isGzip(f)
	if err != nil {
		return err
	}
	if err := checkProgram(f, arch); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	write := copyOf(f)
	if !compressed {
		write = func(w io.Writer) error {
			z := gzip.NewWriter(w)
			_, err := io.Copy(z, f)
			return errors.Join(err, z.Close())
		}
	}
	return b.add(release.Packed(arch), 0o644, write)
}

// addFile adds an archive of images.
func (b *builder) addFile(path, arch string) error {
	f, err := os.Open(path)
	if err != nil {
		return errors.Unwrap(err)
	}
	defer f.Close()
	return b.addImages(filepath.Base(path), arch, copyOf(f))
}

// addImages adds an archive of images, and checks on the way that it is whole and
// fits the architecture. It is named by the original and its content: a machine
// may get archives of several bundles.
func (b *builder) addImages(original, arch string, write func(io.Writer) error) error {
	read, feed := io.Pipe()
	type result struct {
		images.Content
		err error
	}
	inspected := make(chan result, 1)
	go func() {
		c, err := images.Inspect(read, platform(arch))
		inspected <- result{c, err}
		read.CloseWithError(err)
	}()
	title := original
	if title == "" {
		title = "images"
	}
	var found *result
	_, err := b.addNamed(title, 0o644, func(w io.Writer) error {
		err := write(io.MultiWriter(w, feed))
		feed.CloseWithError(err)
		r := <-inspected
		found = &r
		return errors.Join(r.err, onlyOwn(err, r.err))
	}, func(digest string) (string, error) {
		return imageDir + images.ArchiveName(original, found.Content, digest), nil
	})
	return err
}

// onlyOwn leaves out an error of a writer that is only that of its reader.
func onlyOwn(err, reader error) error {
	if reader != nil {
		return nil
	}
	return err
}

func platform(arch string) platforms.MatchComparer {
	return platforms.Only(platforms.Normalize(ocispec.Platform{OS: "linux", Architecture: arch}))
}

// finish adds the checksums and the end of the tar.
func (b *builder) finish() error {
	if err := b.add(release.SumsFile, 0o644, copyOf(bytes.NewReader(b.sums.Text()))); err != nil {
		return err
	}
	return b.to.Truncate(b.end + 1024)
}

func isGzip(f *os.File) (bool, error) {
	start := make([]byte, 2)
	if _, err := f.ReadAt(start, 0); err != nil {
		return false, fmt.Errorf("it is not a program: %w", err)
	}
	return release.IsGzip(start), nil
}

// checkProgram is an error if what is read, compressed or not, is no program for
// an architecture.
func checkProgram(f *os.File, arch string) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	compressed, err := isGzip(f)
	if err != nil {
		return err
	}
	var r io.Reader = f
	if compressed {
		if r, err = release.Unpack(f); err != nil {
			return err
		}
	}
	return release.CheckHead(r, arch)
}
