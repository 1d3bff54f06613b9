package backup

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"go.etcd.io/bbolt"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/version"
)

// database makes what is read of a member's database when it is stopped.
func database(t *testing.T, dir layout.Server, members int) {
	t.Helper()
	path := filepath.Join(dir.Etcd(), "member", "snap", "db")
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.RemoveAll(path))
	db, err := bbolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error {
		all, err := tx.CreateBucket([]byte("members"))
		for i := range members {
			must(t, all.Put([]byte(strconv.Itoa(i)), []byte("{}")))
		}
		return err
	}))
	must(t, db.Close())
}

// What one of several servers has of their store is never made what it was before, and neither are the keys and the
// token that they share.
func TestServerWithPeers(t *testing.T) {
	quietly(t)
	// What is on the disk when the backup is made, and when it is gone back to; 0 members: no data.
	type disk struct {
		members    int
		membership bool
	}
	alone, several := disk{1, false}, disk{3, true}
	for name, test := range map[string]struct {
		before, after disk
		etcd          string // of the newer version
		want          Store
	}{
		"alone":                            {alone, alone, "v3.7.9", Restored},
		"alone, and a newer etcd":          {alone, alone, "v3.8.0", Restored},
		"alone since long":                 {disk{1, true}, disk{1, true}, "v3.7.9", Restored},
		"several":                          {several, several, "v3.7.9", Stays},
		"several, and a newer etcd":        {several, several, "v3.8.0", Rejoins},
		"several, and the versions differ": {several, several, "v4.7.3", Rejoins},
		"others have joined since":         {alone, disk{2, true}, "v3.7.3", Stays},
		"joined since, and a newer etcd":   {alone, disk{2, true}, "v3.8.0", Rejoins},
		"others have left since":           {several, disk{1, true}, "v3.7.9", Stays},
		"reset to one since":               {several, alone, "v3.8.0", Stays},
		"has no data yet":                  {disk{0, true}, disk{0, true}, "v3.8.0", Rejoins},
	} {
		// Restore is cut off after it has decided, and after each entry, and comes again.
		for _, again := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", interrupted"}[again], func(t *testing.T) {
				data := layout.Data(filepath.Join(t.TempDir(), "data"))
				at, binary := data.Server(), filepath.Join(filepath.Dir(string(data)), "lite")
				write := func(d disk, word string) {
					put(t, at.Token(), word)
					put(t, data.Version(), word)
					must(t, os.RemoveAll(binary)) // the kept one may be the same file
					put(t, binary, word)
					if d.members > 0 {
						database(t, at, d.members)
						put(t, filepath.Join(at.Etcd(), "member", "wal", "0.wal"), word)
					}
					must(t, os.RemoveAll(at.Membership()))
					if d.membership {
						put(t, at.Membership(), word)
					}
				}
				write(test.before, "before")
				m := &Maker{DataDir: string(data), Backup: Backup{
					Role: config.Server, Binary: binary, Versions: version.Info{Etcd: "v3.7.3"}, Next: version.Info{Etcd: test.etcd},
				}}
				must(t, m.Begin())
				must(t, m.Complete())
				write(test.after, "after")
				if again {
					b, err := Read(string(data))
					must(t, err)
					must(t, b.decide(string(data)))
					must(t, b.restoreEntry(string(data), "server"))
				}
				must(t, Restore(string(data)))
				must(t, Restore(string(data)))

				b, err := Read(string(data))
				if err != nil || b.Store != test.want {
					t.Fatalf("decided %+v, %v; want %s", b, err, test.want)
				}
				shared, log := map[Store]string{Restored: "before", Stays: "after", Rejoins: "after"}[test.want], map[Store]string{Restored: "before", Stays: "after"}[test.want]
				if test.after.members == 0 {
					log = ""
				}
				for path, want := range map[string]string{
					binary: "before", data.Version(): "before", at.Token(): shared, filepath.Join(at.Etcd(), "member", "wal", "0.wal"): log,
				} {
					if got := content(t, path); got != want {
						t.Errorf("%s holds %q, want %q", path, got, want)
					}
				}
				if got := content(t, filepath.Join(Dropped(string(data)), "etcd", "wal", "0.wal")); test.want == Rejoins && test.after.members > 0 && got != "after" {
					t.Errorf("what was set aside holds %q", got)
				}
			})
		}
	}
}

// A server whose directory is gone gets its identity back, and not its older data.
func TestServerWithPeersThatIsGone(t *testing.T) {
	quietly(t)
	data := layout.Data(filepath.Join(t.TempDir(), "data"))
	at, binary := data.Server(), filepath.Join(filepath.Dir(string(data)), "lite")
	put(t, at.Token(), "before")
	put(t, at.Membership(), "{}")
	put(t, binary, "before")
	database(t, at, 3)
	m := &Maker{DataDir: string(data), Backup: Backup{Role: config.Server, Binary: binary}}
	must(t, m.Begin())
	must(t, m.Complete())
	must(t, os.RemoveAll(string(at)))
	must(t, Restore(string(data)))
	if got := content(t, at.Token()); got != "before" {
		t.Errorf("the token is %q", got)
	}
	if _, err := os.Lstat(filepath.Join(at.Etcd(), "member")); err == nil {
		t.Error("the older data of one of several are in place")
	}
}
