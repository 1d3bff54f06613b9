package unpack

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// What is left of a file system for those who have to go on writing, above all the
// datastore: it ends where it cannot write, and with it the control plane. Its log takes
// 64 MiB at a time, its database 16. The kubelet makes room as well, but looks every ten
// seconds, in which a gigabyte and more is unpacked.
const (
	leastKept = 128 << 20
	mostKept  = 1 << 30
	keptPart  = 20 // of the whole
	// keptInodes is how many files can still be made.
	keptInodes = 1000
)

// Disk is the file system that has a directory, less what is kept of it.
type Disk struct {
	Dir    string // is there
	Remedy string // what to do if it is full; it follows the problem
	free   bool   // nothing is kept of it
	// Stat is another function than the system's, in tests.
	Stat func(path string, to *unix.Statfs_t) error
}

// ForImages is the file system on which images are.
func ForImages(dir string) Disk {
	return Disk{Dir: dir, Remedy: "free some, or remove images (`lite images list`, `lite images remove`)"}
}

// Beside is a disk of which nothing is kept where the datastore, in a data directory, is
// on another one.
func (d Disk) Beside(dataDir string) Disk {
	var here, there unix.Stat_t
	if unix.Stat(d.Dir, &here) != nil || unix.Stat(dataDir, &there) != nil || here.Dev != there.Dev {
		d.free = true
	}
	return d
}

// Full is that a file system has too little room for something. It is taken for an
// error of a full disk.
type Full struct {
	what   string
	need   string
	disk   Disk
	free   int64
	kept   int64
	inodes bool
}

// KeptForDatastore is by what the text of a Full is known: what containerd tells another
// process of an error is its text.
const KeptForDatastore = "are kept for the datastore"

func (e *Full) Error() string {
	have := fmt.Sprintf("%s has %s free, and %s of it", e.disk.Dir, Bytes(e.free), Bytes(e.kept))
	if e.free < e.kept {
		have = fmt.Sprintf("%s has %s free, and %s", e.disk.Dir, Bytes(e.free), Bytes(e.kept))
	}
	if e.inodes {
		have = fmt.Sprintf("%s has %d files free, and %d", e.disk.Dir, e.free, e.kept)
	}
	text := fmt.Sprintf("%s needs %s; %s %s", e.what, e.need, have, KeptForDatastore)
	if e.disk.Remedy == "" {
		return text
	}
	return text + "; " + e.disk.Remedy
}

func (e *Full) Unwrap() error { return syscall.ENOSPC }

// room is what is on a file system.
type room struct {
	free, kept           int64
	freeFiles, keptFiles int64
}

func (d Disk) measure() (room, error) {
	stat := d.Stat
	if stat == nil {
		stat = unix.Statfs
	}
	var s unix.Statfs_t
	if err := stat(d.Dir, &s); err != nil {
		return room{}, fmt.Errorf("get the free space in %s: %w", d.Dir, err)
	}
	size := int64(s.Blocks) * s.Bsize
	r := room{free: int64(s.Bavail) * s.Bsize, kept: min(max(size/keptPart, leastKept), size/4, mostKept)}
	if s.Files > 0 { // not where a file system makes as many as it needs
		r.freeFiles, r.keptFiles = int64(s.Ffree), min(keptInodes, int64(s.Files)/4)
	}
	return r, nil
}

// Enough is an error if there is no room for so many bytes, and one file, of something.
// A disk that cannot be measured is none: whoever writes to it finds out.
func (d Disk) Enough(what string, need int64) error {
	r, err := d.measure()
	if err != nil {
		return err
	}
	return d.enough(r, what, need, "at least "+Bytes(need))
}

func (d Disk) enough(r room, what string, need int64, text string) error {
	switch {
	case r.free-r.kept < need:
		return &Full{what: what, need: text, disk: d, free: r.free, kept: r.kept}
	case r.keptFiles > 0 && r.freeFiles <= r.keptFiles:
		return &Full{what: what, need: "more files", disk: d, free: r.freeFiles, kept: r.keptFiles, inodes: true}
	}
	return nil
}

// between is how much is written, or how often is asked, between two looks.
const (
	betweenBytes = 1 << 20
	betweenAsked = 16
)

// Writer writes something until the disk has only left what is kept of it.
func (d Disk) Writer(w io.Writer, what string) io.Writer {
	if d.free || d.Dir == "" {
		return w
	}
	return &diskWriter{w: w, disk: d, what: what, unseen: betweenBytes}
}

type diskWriter struct {
	w               io.Writer
	disk            Disk
	what            string
	written, unseen int64
}

func (w *diskWriter) Write(p []byte) (int, error) {
	if w.unseen += int64(len(p)); w.unseen >= betweenBytes {
		w.unseen = 0
		r, err := w.disk.measure()
		if err == nil {
			err = w.disk.enough(r, w.what, int64(len(p)), "more than "+Bytes(w.written+max(0, r.free-r.kept)))
		}
		if err != nil {
			return 0, err
		}
	}
	n, err := w.w.Write(p)
	w.written += int64(n)
	return n, err
}

// Watch makes a context that ends when the disk has only left what is kept of it; its
// cause is a *Full. Nobody watches: it looks when it is asked whether it has ended, as
// containerd does between two buffers of a file that it unpacks. So nothing is written
// that was not seen, however busy the machine is, and whatever it is that grows: what a
// stream is decompressed to, a hole of a file that the tar does not have, or many files.
func (d Disk) Watch(ctx context.Context, what string) (context.Context, context.CancelFunc, error) {
	r, err := d.measure()
	if err != nil {
		return nil, nil, err
	}
	if err := d.enough(r, what, 1, "room"); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watched{Context: ctx, cancel: cancel, disk: d, what: what, had: r.free - r.kept}
	return w, func() { cancel(nil) }, nil
}

type watched struct {
	context.Context
	cancel context.CancelCauseFunc
	disk   Disk
	what   string
	had    int64
	asked  atomic.Int64
}

// Done implements context.Context.
func (w *watched) Done() <-chan struct{} {
	if w.asked.Add(1)%betweenAsked == 0 {
		r, err := w.disk.measure()
		if err == nil {
			err = w.disk.enough(r, w.what, 1, "more than "+Bytes(w.had))
		}
		if err != nil {
			w.cancel(err)
		}
	}
	return w.Context.Done()
}
