package dns

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestStore(t *testing.T) {
	s := store{t.TempDir()}
	if f, a, err := s.last(); f != nil || a != nil || err != nil {
		t.Errorf("a new one has %v, %v, %v", f, a, err)
	}
	first := gather(map[string]string{corefileName: "one import /etc/coredns/x"}, map[string]string{"a.override": "x"})
	second := gather(map[string]string{corefileName: "two"}, nil)
	broken := gather(map[string]string{corefileName: "broken"}, nil)
	if first.version() == second.version() {
		t.Error("two contents have one version")
	}
	for _, step := range []struct {
		f         files
		good      bool
		addresses []string
		want      files
	}{
		{first, true, []string{"10.42.0.1", "fd42::1"}, first},
		{broken, false, nil, first},
		{second, true, []string{"10.42.7.1"}, second},
		{second, true, nil, second},
	} {
		if _, err := s.write(step.f); err != nil {
			t.Fatal(err)
		}
		if step.good {
			if err := s.keep(step.f, addrs(step.addresses...)); err != nil {
				t.Fatal(err)
			}
		}
		f, a, err := s.last()
		if err != nil || !maps.Equal(f, step.want) {
			t.Errorf("got %v, %v", f, err)
		}
		if step.good && !slices.Equal(a, addrs(step.addresses...)) {
			t.Errorf("got addresses %v, want %v", a, step.addresses)
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil || len(entries) != 3 { // second, good, addresses
		t.Errorf("left are %v, %v", entries, err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, second.version())); err != nil {
		t.Fatal(err)
	}
	if f, _, err := s.last(); f != nil || err != nil {
		t.Errorf("of a version that is gone: %v, %v", f, err)
	}
}
