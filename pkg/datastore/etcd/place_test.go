package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"golang.org/x/sys/unix"
)

// A store of which a part is gone, or is something else, is refused with what to
// do, and stays as it is: etcd would wait for ever, or panic where nobody recovers.
func TestAStoreThatIsNotWhole(t *testing.T) {
	smallSegments(t)
	whole := filepath.Join(t.TempDir(), "etcd")
	e := member(t, whole)
	stop := running(t, e)
	put(t, e, "key", "value")
	stop()
	remove := func(t *testing.T, path string) {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	put := func(t *testing.T, path, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const restore = "nothing was changed: restore a snapshot or a copy of "
	for name, test := range map[string]struct {
		change func(t *testing.T, member string)
		want   []string // none: it starts
		unused bool
	}{
		"whole":      {func(*testing.T, string) {}, nil, false},
		"no log":     {func(t *testing.T, m string) { remove(t, m+"/wal") }, []string{"the write-ahead log in ", "/wal is damaged: it is missing, and the database contains entry ", restore}, false},
		"log empty":  {func(t *testing.T, m string) { remove(t, m+"/wal"); mkdir(t, m+"/wal") }, []string{"/wal is damaged: it is missing", restore}, false},
		"log moved":  {func(t *testing.T, m string) { rename(t, m+"/wal", m+"/wal.old") }, []string{"/wal is damaged: it is missing", restore}, false},
		"no segment": {func(t *testing.T, m string) { remove(t, m+"/wal"); mkdir(t, m+"/wal"); put(t, m+"/wal/0.tmp", "") }, []string{"/wal is damaged: it is missing", restore}, false},
		"a segment that is none": {func(t *testing.T, m string) { remove(t, m+"/wal"); mkdir(t, m+"/wal"); put(t, m+"/wal/log.wal", "x") },
			[]string{"the write-ahead log in ", "is damaged", restore}, false},
		"segments emptied": {func(t *testing.T, m string) { put(t, segmentOf(t, m), "") }, []string{"the write-ahead log in ", "is damaged", restore}, false},
		"log is a file":    {func(t *testing.T, m string) { remove(t, m+"/wal"); put(t, m+"/wal", "") }, []string{"/wal is a file, and must be a directory", restore}, false},
		"log not mounted": {func(t *testing.T, m string) { remove(t, m+"/wal"); link(t, "/nowhere/wal", m+"/wal") },
			[]string{"/wal does not exist", "mount what it leads to", "restore a snapshot"}, false},
		"database emptied":       {func(t *testing.T, m string) { put(t, m+"/snap/db", "") }, []string{"the database ", "is damaged", restore}, false},
		"database a directory":   {func(t *testing.T, m string) { remove(t, m+"/snap/db"); mkdir(t, m+"/snap/db") }, []string{"the database ", "is damaged", restore}, false},
		"no log, database empty": {func(t *testing.T, m string) { remove(t, m+"/wal"); mkdir(t, m+"/wal"); put(t, m+"/snap/db", "") }, []string{"the database ", "is damaged", restore}, true},
		"no log, database torn": {func(t *testing.T, m string) {
			remove(t, m+"/wal")
			if err := os.Truncate(m+"/snap/db", 5000); err != nil {
				t.Fatal(err)
			}
		}, []string{"the database ", "is damaged", restore}, false},
		"snap is a file":        {func(t *testing.T, m string) { remove(t, m+"/snap"); put(t, m+"/snap", "") }, []string{"/snap is a file, and must be a directory", restore}, false},
		"no database":           {func(t *testing.T, m string) { remove(t, m+"/snap/db") }, nil, false}, // the log has all
		"no snap":               {func(t *testing.T, m string) { remove(t, m+"/snap") }, nil, false},
		"no member":             {func(t *testing.T, m string) { remove(t, m) }, nil, true},
		"nothing":               {func(t *testing.T, m string) { remove(t, filepath.Dir(m)) }, nil, true},
		"member a file":         {func(t *testing.T, m string) { remove(t, m); put(t, m, "") }, []string{"/member is a file, and must be a directory", restore}, true},
		"the store a file":      {func(t *testing.T, m string) { remove(t, filepath.Dir(m)); put(t, filepath.Dir(m), "") }, []string{"is a file, and must be a directory", restore}, true},
		"first start cut short": {func(t *testing.T, m string) { remove(t, m+"/wal"); put(t, m+"/snap/db", "") }, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "etcd")
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			test.change(t, filepath.Join(dir, "member"))
			if Used(dir) == test.unused {
				t.Errorf("used: %v", Used(dir))
			}
			before := listing(t, dir)
			if len(test.want) == 0 {
				if err := verify(dir); err != nil {
					t.Error(err)
				}
				running(t, member(t, dir))()
				return
			}
			err := member(t, dir).Run(t.Context())
			for _, want := range append(test.want, dir) {
				if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %v, want %q", err, want)
				}
			}
			if listing(t, dir) != before {
				t.Error("something was changed")
			}
		})
	}
}

// A database that was lost when the log had been shortened cannot be made again.
func TestVerifyFindsADatabaseThatIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	e := member(t, dir, "snapshot-count=10")
	stop := running(t, e)
	for range 50 {
		put(t, e, "key", "value")
	}
	stop()
	if err := verify(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "member", "snap")); err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	err := member(t, dir).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "the database "+databaseFile(dir)+" is damaged: it is missing, and the log contains only what came after entry ") {
		t.Errorf("got %v", err)
	}
	if listing(t, dir) != before {
		t.Error("something was changed")
	}
}

// What etcd falls over in goroutines of its own, or tells in words of its own, is found
// first, and nothing is changed.
func TestVerifyFindsADatabaseThatIsNotWhole(t *testing.T) {
	smallSegments(t)
	dir := filepath.Join(t.TempDir(), "etcd")
	e := member(t, dir, "snapshot-count=10")
	stop := running(t, e)
	fill := func(keys int) {
		for i := range keys {
			put(t, e, fmt.Sprint("key", i), strings.Repeat("v", 2000))
		}
	}
	fill(30)
	stop()
	early, err := os.ReadFile(databaseFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	e = member(t, dir, "snapshot-count=10")
	stop = running(t, e)
	fill(1000)
	stop()
	whole, err := os.ReadFile(databaseFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   string // "" if it is whole
	}{
		"as it is":            {bytes.Clone, ""},
		"cut short":           {func(db []byte) []byte { return db[:100<<12] }, "it is not readable to its end"},
		"cut within a page":   {func(db []byte) []byte { return db[:100<<12+100] }, "it is not readable to its end"},
		"a hole":              {func(db []byte) []byte { clear(db[20<<12 : 60<<12]); return db }, "it is not readable to its end"},
		"another file's part": {func(db []byte) []byte { copy(db[40<<12:], bytes.Repeat([]byte("abcd"), 20<<10)); return db }, "it is not readable to its end"},
		"an older copy":       {func([]byte) []byte { return early }, "it contains entries up to"},
	} {
		if err := os.WriteFile(databaseFile(dir), c.change(bytes.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		before := listing(t, dir)
		err := verify(dir)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), "the database "+databaseFile(dir)+" is damaged: "+c.want) || !strings.Contains(err.Error(), "nothing was changed: restore")) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		if listing(t, dir) != before {
			t.Errorf("%s: something was changed", name)
		}
	}
}

// etcd opens its database for writing in a goroutine of its own, where it panics.
func TestAStoreThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	running(t, member(t, dir))()
	for _, path := range []string{dir, walDir(dir), filepath.Dir(databaseFile(dir)), databaseFile(dir), segmentOf(t, filepath.Join(dir, "member"))} {
		if err := unix.Mount(path, path, "", unix.MS_BIND, ""); errors.Is(err, unix.EPERM) {
			t.Skip("only root can mount")
		} else if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Error(err)
		}
		err := member(t, dir).Run(t.Context())
		if err := unix.Unmount(path, 0); err != nil {
			t.Fatal(err)
		}
		if err == nil || !strings.HasPrefix(err.Error(), path+" is not writable: read-only file system; nothing was changed: ") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	running(t, member(t, dir))()
}

// A first start is killed when etcd has made its database and not yet its log.
func TestAStartAfterOneThatWasCutShort(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	mkdir(t, filepath.Dir(databaseFile(dir)))
	mkdir(t, walDir(dir)+".tmp")
	db, err := bbolt.Open(databaseFile(dir), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	e := member(t, dir)
	stop := running(t, e)
	put(t, e, "key", "value")
	stop()
	if !wal.Exist(walDir(dir)) || !Used(dir) {
		t.Error("it is not used")
	}
}

// smallSegments keeps the logs that are copied small.
func smallSegments(t *testing.T) {
	t.Helper()
	was := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = 256 << 10
	t.Cleanup(func() { wal.SegmentSizeBytes = was })
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func segmentOf(t *testing.T, member string) string {
	t.Helper()
	found, err := filepath.Glob(member + "/wal/*.wal")
	if err != nil || len(found) == 0 {
		t.Fatalf("no log below %s: %v", member, err)
	}
	return found[0]
}

// listing is all that is at and under dir, directories and links too.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		b.WriteString(path + " " + d.Type().String() + "\n")
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		b.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
