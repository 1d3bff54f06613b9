package etcd

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Of three members two are lost for good. The one that is left goes on alone with the data, as often as that is
// begun again, and the others are told that they were removed.
func TestSingle(t *testing.T) {
	quietly(t)
	s := &servers{root: t.TempDir()}
	s.first = s.member(t, 1)
	stopFirst := running(t, s.first)
	if err := s.first.Share(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, third := s.member(t, 2), s.member(t, 3)
	stopSecond, stopThird := running(t, second), running(t, third)
	write(t, s.first, "three")
	has(t, third, "three")
	if _, err := CheckSingle(second.config.Dir); err == nil {
		t.Error("a member that runs may be made the only one")
	}
	stopSecond()
	if _, err := CheckSingle(second.config.Dir); err == nil || !strings.Contains(err.Error(), "is up") {
		t.Errorf("others are up: %v", err)
	}
	stopThird()
	stopFirst()
	others, err := CheckSingle(second.config.Dir)
	if err != nil || len(others) != 2 || Up(others) != "" {
		t.Fatalf("the others are at %q, %v", others, err)
	}

	now := time.Now()
	aside, err := CopyAside(second.config.Dir, now)
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Name: "host2", Dir: second.config.Dir, PKI: s.pki(2)}
	for range 2 { // the second time as after a kill before it was noted
		if err := ForceSingle(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	if again, err := CopyAside(second.config.Dir, now); err != nil || again != aside {
		t.Errorf("a copy that is whole is made again: %s, %v", again, err)
	}

	alone := s.member(t, 2)
	defer running(t, alone)()
	has(t, alone, "three")
	write(t, alone, "one")
	if all, err := alone.Members(); err != nil || len(all) != 1 || all[0].Name != "host2" || !all[0].Leader {
		t.Errorf("members %+v, %v", all, err)
	}
	// Two of three would be a quorum of the cluster of before, if nobody told them.
	s.several = true
	first, again := s.member(t, 1), s.member(t, 3)
	var both sync.WaitGroup
	for _, old := range []*Etcd{first, again} {
		both.Go(func() {
			err := old.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), "this server was removed from the cluster") || !strings.Contains(err.Error(), "lite member rejoin") {
				t.Errorf("%s comes back: %v", old.config.Name, err)
			}
		})
	}
	both.Wait()
	if _, err := MoveAside(again.config.Dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.first = alone
	rejoined := s.member(t, 3)
	defer running(t, rejoined)()
	has(t, rejoined, "one")
	if all, _ := alone.Members(); len(all) != 2 {
		t.Errorf("members %+v", all)
	}
}

// Of the copies that were put aside there is one, the newest, and none that is half.
func TestAside(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "member", "snap", "db")
	fill := func(text string) {
		if err := os.MkdirAll(filepath.Dir(data), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(data, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fill("1")
	first := time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	if err := os.MkdirAll(asideName(dir, first)+partial, 0o700); err != nil { // of one that was killed
		t.Fatal(err)
	}
	for i, make := range []func(string, time.Time) (string, error){CopyAside, CopyAside, MoveAside, CopyAside, MoveAside} {
		text := string(rune('1' + i))
		fill(text)
		aside, err := make(dir, first.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(aside, "snap", "db")); err != nil || string(got) != text {
			t.Errorf("the copy has %q, %v; want %s", got, err, text)
		}
		if all, err := filepath.Glob(filepath.Join(dir, asidePrefix+"*")); err != nil || len(all) != 1 {
			t.Errorf("beside the data are %q, %v", all, err)
		}
	}
	if _, err := MoveAside(dir, first); err == nil {
		t.Error("nothing was moved aside")
	}
}
