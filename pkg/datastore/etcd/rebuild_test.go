package etcd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

// marker is a value that is found in a database file.
const marker = "this-is-what-was-written-and-acknowledged"

// wrong is the marker with one bit that is another.
const wrong = "this-is-what-was-written-and-acknowledgee"

// three is a cluster of as many members.
func three(t *testing.T, net byte) (s *servers, all []*Etcd, stops []func()) {
	t.Helper()
	quietly(t)
	s = &servers{root: t.TempDir(), net: net}
	s.first = s.member(t, 1)
	for n := 1; n <= 3; n++ {
		e := s.first
		if n > 1 {
			e = s.member(t, n)
		}
		all, stops = append(all, e), append(stops, running(t, e))
	}
	return s, all, stops
}

// spoil replaces a text in a file by one of the same length, wherever it is.
func spoil(t *testing.T, path, text, by string) {
	t.Helper()
	edit(t, path, func(data []byte) []byte {
		if !bytes.Contains(data, []byte(text)) {
			t.Fatalf("%s does not contain %q", path, text)
		}
		return bytes.ReplaceAll(data, []byte(text), []byte(by))
	})
}

// A member whose data have changed while it was stopped finds that out before it serves, and gets those of the
// others; its own are set aside.
func TestDamagedMemberIsRebuilt(t *testing.T) {
	s, _, stops := three(t, 78)
	defer stops[0]()
	defer stops[1]()
	stops[2]()
	for name, damage := range map[string]func(t *testing.T, dir string){
		"a bit in a value":  func(t *testing.T, dir string) { spoil(t, databaseFile(dir), marker, wrong) },
		"a bit in a key":    func(t *testing.T, dir string) { spoil(t, databaseFile(dir), "/key/of/a", "/key/of/c") },
		"a byte of the log": func(t *testing.T, dir string) { spoil(t, logFile(t, dir), marker, wrong) },
		"pages of the database": func(t *testing.T, dir string) {
			edit(t, databaseFile(dir), func(d []byte) []byte {
				return append(bytes.Clone(d[:8<<10]), bytes.Repeat([]byte{0xff}, len(d)-8<<10)...)
			})
		},
		"the database cut short": func(t *testing.T, dir string) {
			edit(t, databaseFile(dir), func(d []byte) []byte { return d[:8<<10] })
		},
	} {
		t.Run(name, func(t *testing.T) {
			third := s.member(t, 3)
			stop := running(t, third)
			key := "/key/of/" + strings.ReplaceAll(name, " ", "/")
			_, err := s.first.server.Load().Server.Put(t.Context(), &etcdserverpb.PutRequest{Key: []byte(key), Value: []byte(marker)})
			if err != nil {
				t.Fatal(err)
			}
			has(t, third, key)
			stop()
			before, _ := s.first.Members()
			damage(t, third.config.Dir)
			third = s.member(t, 3)
			defer running(t, third)()
			after, err := s.first.Members()
			if err != nil || len(after) != 3 || after[2].ID == before[2].ID {
				t.Errorf("before %v, after %v, %v", before, after, err)
			}
			if _, err := os.Stat(filepath.Join(Damaged(third.config.Dir), "snap", "db")); err != nil {
				t.Errorf("its own data are not set aside: %v", err)
			}
			has(t, third, key)
			write(t, third, "written there")
		})
	}
}

func logFile(t *testing.T, dir string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(walDir(dir), "*.wal"))
	if err != nil || len(all) == 0 {
		t.Fatalf("%q, %v", all, err)
	}
	return all[len(all)-1]
}

// A member whose data are wrong, and that nobody would admit, says so and changes nothing. One that cannot know whether
// it is right, and one that is right while another is wrong, start, and say what is the matter.
func TestDataDiffer(t *testing.T) {
	s, all, stops := three(t, 78)
	defer stops[1]()
	_, err := s.first.server.Load().Server.Put(t.Context(), &etcdserverpb.PutRequest{Key: []byte("key"), Value: []byte(marker)})
	if err != nil {
		t.Fatal(err)
	}
	has(t, all[2], "key") // its database has it before it stops
	stops[2]()
	third := s.member(t, 3)
	spoil(t, databaseFile(third.config.Dir), marker, wrong)
	third.admit = nil
	if err := third.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "are not those of the other servers host1 and host2") || !strings.Contains(err.Error(), "lite member rejoin") {
		t.Errorf("one that nobody would admit: %v", err)
	}
	if _, err := os.Stat(Damaged(third.config.Dir)); err == nil {
		t.Error("its data were moved")
	}
	spoil(t, databaseFile(third.config.Dir), wrong, marker)

	stops[0]()
	spoil(t, databaseFile(s.first.config.Dir), marker, wrong)
	s.first = s.member(t, 1)
	stop := running(t, s.first)
	defer stop()
	if note := s.first.Note(); !strings.Contains(note, "of this server and of host2 are not the same") {
		t.Errorf("one against one: %q", note)
	}
	third = s.member(t, 3)
	defer running(t, third)()
	if note := third.Note(); !strings.Contains(note, "the data of server host1 are damaged: restart it") {
		t.Errorf("two against one: %q", note)
	}
	has(t, third, "key")
}

// Of several members one defragments at a time, while all others are up, and does not lead meanwhile.
func TestMembersDefragmentInTurn(t *testing.T) {
	_, all, stops := three(t, 78)
	defer stops[0]()
	defer stops[1]()
	leader := all[0]
	if s := leader.server.Load().Server; s.Leader() != s.MemberID() {
		t.Fatal("the first does not lead")
	}
	u, other := care(leader), care(all[1])
	ran := ""
	if err := u.exclusively(t.Context(), func(ctx context.Context) error {
		ran += "first"
		return other.exclusively(ctx, func(context.Context) error { ran += ", and second"; return nil })
	}); err != nil || ran != "first" {
		t.Errorf("ran %q, %v", ran, err)
	}
	if err := other.exclusively(t.Context(), func(context.Context) error { ran += ", then second"; return nil }); err != nil || ran != "first, then second" {
		t.Errorf("ran %q, %v", ran, err)
	}
	if err := u.defragment(t.Context()); err != nil {
		t.Error(err)
	}
	if u.Leader() == u.MemberID() {
		t.Error("it leads while it answers nobody")
	}
	stops[2]()
	if err := u.defragment(t.Context()); err == nil || !strings.Contains(err.Error(), "server host3 at https://127.0.78.3:2380 does not answer") {
		t.Errorf("with one down: %v", err)
	}
}
