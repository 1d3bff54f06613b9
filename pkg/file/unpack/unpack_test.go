package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func packed(t *testing.T, w io.WriteCloser, size int64) {
	t.Helper()
	if _, err := io.CopyN(w, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestBombOfGzip(t *testing.T) {
	var b bytes.Buffer
	packed(t, gzip.NewWriter(&b), 64<<20)
	plain, suffix, err := Decompress(&b)
	if err != nil || suffix != ".tar.gz" {
		t.Fatalf("%s, %v", suffix, err)
	}
	n, err := io.Copy(io.Discard, Limit(plain, 1<<20))
	if n != 1<<20 || !errors.As(err, new(TooMuch)) || !strings.Contains(err.Error(), "more than 1.0 MB") {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestLimitIsExact(t *testing.T) {
	for size, most := range map[int64]int64{10: 10, 0: 0, 9: 10} {
		if n, err := io.Copy(io.Discard, Limit(io.LimitReader(zeros{}, size), most)); n != size || err != nil {
			t.Errorf("%d of %d: %d, %v", size, most, n, err)
		}
	}
	if n, err := io.Copy(io.Discard, Limit(io.LimitReader(zeros{}, 11), 10)); n != 10 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
}

// A frame of some bytes says how far back it refers, and its reader has to remember
// that much.
func TestWindowOfZstd(t *testing.T) {
	for window, ok := range map[int]bool{8 << 20: true, 128 << 20: true, 256 << 20: false, 512 << 20: false} {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithSingleSegment(false))
		if err != nil {
			t.Fatal(err)
		}
		packed(t, w, 1<<20)
		// The header of a frame: magic, descriptor, window.
		head := b.Bytes()
		if head[4]&0x20 != 0 {
			t.Fatal("the frame has no window")
		}
		plain, _, err := Decompress(&b)
		if err == nil {
			_, err = io.Copy(io.Discard, plain)
		}
		if (err == nil) != ok {
			t.Errorf("a window of %s: %v", Bytes(int64(window)), err)
		}
	}
}

// many is a tar of empty files.
func many(t *testing.T, number int, name func(int) string) io.Reader {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		for n := range number {
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name(n)}); err != nil {
				w.CloseWithError(err)
				return
			}
		}
		w.CloseWithError(tw.Close())
	}()
	t.Cleanup(func() { r.Close() })
	return r
}

func TestEntriesOfTar(t *testing.T) {
	short := func(n int) string { return fmt.Sprint(n) }
	for name, c := range map[string]struct {
		archive io.Reader
		want    string
	}{
		"as many as may be":    {many(t, MaxEntries, short), ""},
		"one more":             {many(t, MaxEntries+1, short), "more than 65536 files"},
		"a long name":          {many(t, 1, func(int) string { return strings.Repeat("x/", 1<<16) + "x" }), "longer than 4096 bytes"},
		"many names":           {many(t, 10_000, func(n int) string { return fmt.Sprint(n, strings.Repeat("/xxxxxxx", 500)) }), "names of its files alone"},
		"a long link":          {link(t, strings.Repeat("x/", 1<<16)), "longer than 4096 bytes"},
		"nothing, a whole tar": {many(t, 0, short), ""},
	} {
		var err error
		for r := NewTar(c.archive); err == nil; {
			_, err = r.Next()
		}
		if c.want == "" && !errors.Is(err, io.EOF) || c.want != "" && (!errors.As(err, new(TooMuch)) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func link(t *testing.T, to string) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: to}), w.Close()); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestHugeDocument(t *testing.T) {
	for name, c := range map[string]struct {
		data string
		ok   bool
	}{
		"a manifest":         {`{"layers":[{},{}]}`, true},
		"many descriptors":   {`{"layers":[` + strings.Repeat("{},", 300_000) + "{}]}", false},
		"even shorter ones":  {`[` + strings.Repeat("0,", 300_000) + "0]", false},
		"one long string":    {`{"a":"` + strings.Repeat("x", MaxDocument) + `"}`, false},
		"spaces":             {strings.Repeat(" ", MaxDocument+1), false},
		"a long, honest one": {`{"a":"` + strings.Repeat("x", MaxDocument/2) + `"}`, true},
	} {
		if err := Document([]byte(c.data)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// small is a disk of 600 MiB that gets full as it is written to.
type small struct{ used, files int64 }

func (s *small) disk() Disk {
	d := ForImages("/images")
	d.Stat = func(_ string, to *unix.Statfs_t) error {
		to.Bsize, to.Blocks, to.Files = 4096, 600<<20/4096, 10_000
		to.Bavail = uint64(600<<20-s.used) / 4096
		to.Ffree = uint64(10_000 - s.files)
		return nil
	}
	return d
}

func (s *small) Write(p []byte) (int, error) { s.used += int64(len(p)); return len(p), nil }

func TestDiskKeepsItsReserve(t *testing.T) {
	s := &small{used: 100 << 20}
	if err := s.disk().Enough("app.tar", 300<<20); err != nil {
		t.Error(err)
	}
	err := s.disk().Enough("app.tar", 400<<20)
	if want := "app.tar needs at least 419.4 MB; /images has 524.3 MB free, and 134.2 MB of it are kept for the datastore; free some, or remove images (`lite images list`, `lite images remove`)"; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Error("it is not taken for a full disk")
	}
	// What was said of the size does not count.
	n, err := io.Copy(s.disk().Writer(s, "app.tar"), zeros{})
	if full := (*Full)(nil); !errors.As(err, &full) || !strings.Contains(err.Error(), "app.tar needs more than 39") {
		t.Errorf("after %d bytes: %v", n, err)
	}
	if left := 600<<20 - s.used; left < leastKept-2<<20 || left > leastKept+2<<20 {
		t.Errorf("%s are left", Bytes(left))
	}
	if err := s.disk().Enough("a byte", 1); err == nil || !strings.Contains(err.Error(), "134.2 MB") {
		t.Errorf("got %v", err)
	}
}

func TestDiskKeepsInodes(t *testing.T) {
	s := &small{files: 9_000}
	if err := s.disk().Enough("app.tar", 1); err == nil || !strings.Contains(err.Error(), "has 1000 files free, and 1000 are kept") {
		t.Errorf("got %v", err)
	}
}

func TestWatchEndsAtTheReserve(t *testing.T) {
	s := &small{}
	ctx, end, err := s.disk().Watch(context.Background(), "a layer")
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	for ctx.Err() == nil && s.used < 600<<20 {
		select {
		case <-ctx.Done():
		default:
			s.used += 32 << 10 // containerd's buffer
		}
	}
	if full := (*Full)(nil); !errors.As(context.Cause(ctx), &full) || !strings.Contains(full.Error(), "a layer needs more than 494.9 MB") {
		t.Errorf("got %v with %s used", context.Cause(ctx), Bytes(s.used))
	}
	if left := 600<<20 - s.used; left < leastKept-1<<20 {
		t.Errorf("%s are left", Bytes(left))
	}
	if _, _, err := s.disk().Watch(context.Background(), "a layer"); err == nil {
		t.Error("the next one begins")
	}
}

func TestReserve(t *testing.T) {
	for size, want := range map[int64]int64{64 << 20: 16 << 20, 600 << 20: 128 << 20, 8 << 30: 8 << 30 / 20, 100 << 30: 1 << 30} {
		d := Disk{Stat: func(_ string, to *unix.Statfs_t) error { to.Bsize, to.Blocks = 1, uint64(size); return nil }}
		if r, err := d.measure(); err != nil || r.kept != want {
			t.Errorf("of %s: %s, %v", Bytes(size), Bytes(r.kept), err)
		}
	}
}
