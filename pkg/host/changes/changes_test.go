package changes

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lite.io/lite/pkg/layout"
)

func TestRecord(t *testing.T) {
	dir := layout.Run(filepath.Join(t.TempDir(), "run"))
	first := Inspect(dir)
	first.now.Settings = map[string]string{"vm/panic_on_oom": "seven"}
	if err := first.Keep("/a"); err != nil {
		t.Fatal(err)
	}
	if err := Inspect(dir).Keep("/b"); err != nil {
		t.Fatal(err)
	}
	r, err := Read(dir)
	if err != nil || r.Settings["vm/panic_on_oom"] != "seven" || !slices.Equal(r.DataDirs, []string{"/a", "/b"}) {
		t.Errorf("%v, %v: the first start since boot counts, and all data directories", r, err)
	}
	if info, err := os.Stat(dir.Before()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	r.Boot = "another"
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	if r, err := Read(dir); err != nil || r.Boot != "" {
		t.Errorf("of another boot: %v, %v", r, err)
	}
}

// What an administrator has set between two starts was taken for lite's, and undone.
func TestSettingsOfOthersAreNotLites(t *testing.T) {
	dir := layout.Run(filepath.Join(t.TempDir(), "run"))
	now := ReadSettings()
	const changed, others, untouched = "vm/overcommit_memory", "kernel/panic", "vm/panic_on_oom"
	first := Inspect(dir)
	if err := first.Keep(""); err != nil {
		t.Fatal(err)
	}
	// lite has changed this one between then and now.
	set := func(update func(*Record)) {
		t.Helper()
		r, err := Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		update(&r)
		if err := r.write(dir); err != nil {
			t.Fatal(err)
		}
	}
	set(func(r *Record) { r.Settings[changed] = "another" })
	if err := first.Ready(); err != nil {
		t.Fatal(err)
	}
	set(func(r *Record) {
		if len(r.Set) != 1 || r.Set[changed] != now[changed] {
			t.Errorf("the first start has set %v, want only %s", r.Set, changed)
		}
		r.Settings[others] = "another" // somebody has changed it before the next start
		delete(r.Settings, untouched)  // which came with a module meanwhile
	})
	second := Inspect(dir)
	if err := second.Keep(""); err != nil {
		t.Fatal(err)
	}
	if err := second.Ready(); err != nil {
		t.Fatal(err)
	}
	set(func(r *Record) {
		if len(r.Set) != 1 || r.Set[changed] != now[changed] {
			t.Errorf("after the second start %v is set, want only %s", r.Set, changed)
		}
		if r.Settings[untouched] != now[untouched] {
			t.Errorf("%s was %q before, want %q", untouched, r.Settings[untouched], now[untouched])
		}
	})
}

func TestSysctls(t *testing.T) {
	root := t.TempDir()
	for file, text := range map[string]string{
		"etc/sysctl.d/10-a.conf":     "# net.ipv4.ip_forward = 0\nnet.ipv4.ip_forward = 1\n-kernel.panic=7\nnet/ipv4/conf/eth0.5/forwarding=1\n",
		"usr/lib/sysctl.d/10-a.conf": "vm.overcommit_memory = 2\n", // that of the administrator takes its place
		"usr/lib/sysctl.d/20-b.conf": "vm.panic_on_oom = 1\nnet.ipv6.conf.*.forwarding = 1\n",
		"etc/sysctl.conf":            "vm.panic_on_oom = 0\nno setting\n=\n",
	} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := readSysctls(root)
	for _, test := range []struct {
		setting, value string
		want           bool
	}{
		{"net/ipv4/ip_forward", "1", true}, {"net/ipv4/ip_forward", "0", false}, {"kernel/panic", "7", true},
		{"net/ipv4/conf/eth0.5/forwarding", "1", true}, {"vm/overcommit_memory", "2", false},
		{"vm/panic_on_oom", "1", false}, {"vm/panic_on_oom", "0", true}, {"net/ipv6/conf/all/forwarding", "1", true}, {"", "", false},
	} {
		if got := s.sets(test.setting, test.value); got != test.want {
			t.Errorf("%s = %s: %v", test.setting, test.value, got)
		}
	}
}

func TestSettingOf(t *testing.T) {
	for path, want := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv4/conf/eth0/forwarding": "1", "kernel/panic": "10", "net/ipv4/tcp_syncookies": "",
	} {
		if got := settingOf(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
