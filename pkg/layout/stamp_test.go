package layout

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStamp(t *testing.T) {
	for name, test := range map[string]struct {
		files []string
		want  Stamp
	}{
		"a stamped server":              {[]string{"role=server", "server/token"}, Stamp{Role: "server"}},
		"a stamped agent":               {[]string{"role=agent", "version", "agent/cluster.json"}, Stamp{"agent", "v1.2.3"}},
		"a server, store moved away":    {[]string{"role=server", "server/pki/ca.crt", "agent/kubelet.conf"}, Stamp{Role: "server"}},
		"a server that was an agent":    {[]string{"role=server", "server/token", "agent/cluster.json"}, Stamp{Role: "server"}},
		"an agent, remains of a server": {[]string{"role=agent", "server/etcd/x", "agent/cluster.json"}, Stamp{Role: "agent"}},
		"an agent that has left":        {[]string{"role=agent", "agent/overlay.key"}, Stamp{}},
		"a server that was removed":     {[]string{"role=server", "version"}, Stamp{Version: "v1.2.3"}},
		"half a server, no stamp":       {[]string{"server/pki/ca.crt"}, Stamp{}},
		"an empty stamp":                {[]string{"role=", "server/etcd/x"}, Stamp{Role: "server"}},
		"nothing":                       {nil, Stamp{}},
		"claimed":                       {[]string{"lite.lock", "version"}, Stamp{Version: "v1.2.3"}},
		"a server":                      {[]string{"version", "server/etcd/member/wal/0.wal"}, Stamp{"server", "v1.2.3"}},
		"an agent":                      {[]string{"version", "agent/cluster.json"}, Stamp{"agent", "v1.2.3"}},
		"an agent that became server":   {[]string{"agent/cluster.json", "server/etcd/x"}, Stamp{Role: "server"}},
	} {
		dir := t.TempDir()
		for _, file := range test.files {
			file, content, given := strings.Cut(file, "=")
			if !given {
				content = "v1.2.3"
			}
			file = filepath.Join(dir, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content+"\n"), 0o600)); err != nil {
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

// What is no role is nobody's to guess.
func TestDamagedStamp(t *testing.T) {
	for _, content := range []string{"master\n", "server\nagent\n", "\x00\x00\x00"} {
		d := Data(t.TempDir())
		if err := os.WriteFile(d.Role(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := d.Stamp(); s.Role != "" || err == nil || !strings.HasPrefix(err.Error(), d.Role()+" contains ") || !strings.HasSuffix(err.Error(), "; remove the file") {
			t.Errorf("%q: got %+v, %v", content, s, err)
		}
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
