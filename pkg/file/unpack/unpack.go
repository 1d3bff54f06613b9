// Package unpack bounds what is unpacked: archives are made by others, and claim of
// themselves what they like. What counts is what comes out of them while they are
// read: how many bytes, how many files, how much of them is kept in memory, and how
// much of the disk is left. Whatever in lite reads what others have packed reads it
// through this package.
package unpack

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// MaxWindow is how far back a stream of zstd may refer, which is memory that it takes:
// what its own command allows unless it is told otherwise.
const MaxWindow = 128 << 20

// Decompress finds out how a stream is compressed, and which suffix the name of
// such an archive has. containerd's own function starts other programs, whose
// errors say little, and lets a stream take as much memory as it likes.
func Decompress(r io.Reader) (plain io.ReadCloser, suffix string, err error) {
	buffered := bufio.NewReaderSize(r, 1<<16)
	start, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, "", err
	}
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buffered)
		return z, ".tar.gz", err // nobody uses z after an error
	case IsZstd(start):
		z, err := Zstd(buffered)
		return z, ".tar.zst", err
	}
	return io.NopCloser(buffered), ".tar", nil
}

// IsZstd reports whether a stream that starts so is compressed with zstd.
func IsZstd(start []byte) bool { return bytes.HasPrefix(start, []byte{0x28, 0xb5, 0x2f, 0xfd}) }

// Zstd reads what zstd has compressed, without goroutines: between others that are busy,
// these wait for each other.
func Zstd(r io.Reader) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

// TooMuch is that something unpacked is more than it may be.
type TooMuch struct{ reason string }

func (e TooMuch) Error() string { return e.reason }

func tooMuchf(format string, args ...any) error { return TooMuch{fmt.Sprintf(format, args...)} }

// Limit reads at most so many bytes, and fails where there are more.
func Limit(r io.Reader, most int64) io.Reader { return &limited{r: r, left: most, most: most} }

type limited struct {
	r          io.Reader
	left, most int64
}

func (l *limited) Read(p []byte) (int, error) {
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1] // one more, to know that there is more
	}
	n, err := l.r.Read(p)
	if int64(n) > l.left {
		n, l.left = int(l.left), 0
		return n, tooMuchf("it unpacks to more than %s", Bytes(l.most))
	}
	l.left -= int64(n)
	return n, err
}

const (
	// MaxEntries is how many files an archive may have: images have some ten each.
	MaxEntries = 1 << 16
	// maxName is the longest name that a file can have on Linux. A tar can have longer
	// ones, and who reads it remembers them.
	maxName = 4096
	// maxNames is for all of them.
	maxNames = 16 << 20
)

// Tar reads an archive of files. Names are claims as all of it: where they lead is up
// to who unpacks it.
type Tar struct {
	*tar.Reader
	entries, names int
}

// NewTar makes a reader of an archive.
func NewTar(r io.Reader) *Tar { return &Tar{Reader: tar.NewReader(r)} }

// Next goes to the next file.
func (t *Tar) Next() (*tar.Header, error) {
	h, err := t.Reader.Next()
	if err != nil {
		return nil, err
	}
	t.entries++
	t.names += len(h.Name) + len(h.Linkname)
	switch {
	case t.entries > MaxEntries:
		return nil, tooMuchf("it contains more than %d files", MaxEntries)
	case len(h.Name) > maxName || len(h.Linkname) > maxName:
		return nil, tooMuchf("it contains a file with a name longer than %d bytes", maxName)
	case t.names > maxNames:
		return nil, tooMuchf("the names of its files alone are more than %s", Bytes(maxNames))
	}
	return h, nil
}

const (
	// MaxDocument is the largest description of an image that is read: what
	// registries take at least. Most have some kilobytes.
	MaxDocument = 4 << 20
	// maxElements bounds what becomes of it in memory: two bytes in a list are a
	// descriptor of two hundred.
	maxElements = 200_000
)

// Document is an error if a description of an image would take much memory.
func Document(data []byte) error {
	if err := DocumentSize(int64(len(data))); err != nil {
		return err
	}
	if n := bytes.Count(data, []byte{','}); n > maxElements {
		return tooMuchf("an image descriptor has %d elements, and may have %d", n, maxElements)
	}
	return nil
}

// DocumentSize is an error if a description of an image is larger than what is read.
func DocumentSize(size int64) error {
	if size > MaxDocument {
		return tooMuchf("an image descriptor has %s, and may have %s", Bytes(size), Bytes(MaxDocument))
	}
	return nil
}

// Bytes is a size for people.
func Bytes(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1000*1000:
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	case n < 1000*1000*1000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}
