package layout

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestStamp(t *testing.T) {
	for name, test := range map[string]struct {
		files []string
		want  Stamp
	}{
		"nothing":                     {nil, Stamp{}},
		"claimed":                     {[]string{"lite.lock", "version"}, Stamp{Version: "v1.2.3"}},
		"a server":                    {[]string{"version", "server/etcd/member/wal/0.wal"}, Stamp{"server", "v1.2.3"}},
		"an agent":                    {[]string{"version", "agent/cluster.json"}, Stamp{"agent", "v1.2.3"}},
		"an agent that became server": {[]string{"agent/cluster.json", "server/etcd/x"}, Stamp{Role: "server"}},
	} {
		dir := t.TempDir()
		for _, file := range test.files {
			file = filepath.Join(dir, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("v1.2.3\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := Data(dir).Stamp(); got != test.want || err != nil {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if got, err := Data(filepath.Join(t.TempDir(), "none")).Stamp(); got != (Stamp{}) || err != nil {
		t.Errorf("no directory: got %+v, %v", got, err)
	}
}

func TestTryLock(t *testing.T) {
	d := Data(t.TempDir())
	if _, _, err := d.TryLock(os.O_RDONLY); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a lock: %v", err)
	}
	held, taken, err := d.TryLock(os.O_RDWR | os.O_CREATE)
	if held == nil || taken != nil || err != nil {
		t.Fatal(held, taken, err)
	}
	second, taken, err := d.TryLock(os.O_RDONLY)
	if second != nil || taken == nil || err != nil {
		t.Fatal(second, taken, err)
	}
	taken.Close()
	held.Close()
	if again, _, err := d.TryLock(os.O_RDONLY); again == nil || err != nil {
		t.Error(err)
	} else {
		again.Close()
	}
}
