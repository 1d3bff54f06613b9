package uninstall

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	first := Look(dir)
	first.now.Settings = map[string]string{"vm/panic_on_oom": "seven"}
	if err := first.Keep("/a"); err != nil {
		t.Fatal(err)
	}
	if err := Look(dir).Keep("/b"); err != nil {
		t.Fatal(err)
	}
	r, err := readRecord(dir)
	if err != nil || r.Settings["vm/panic_on_oom"] != "seven" || !slices.Equal(r.DataDirs, []string{"/a", "/b"}) {
		t.Errorf("%v, %v: the first start since boot counts, and all data directories", r, err)
	}
	if info, err := os.Stat(filepath.Join(dir, recordFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	r.Boot = "another"
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	if r, err := readRecord(dir); err != nil || r.Boot != "" {
		t.Errorf("of another boot: %v, %v", r, err)
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

func TestShaperName(t *testing.T) {
	// As made by the plugin bandwidth 1.9.1 for this network and container.
	if got := shaperName("lite", "x"); len(got) != 15 || got[:3] != "bwp" {
		t.Errorf("%q", got)
	}
}

func TestPodName(t *testing.T) {
	for name, want := range map[string]bool{
		"pod3760bb9e-b896-4d9d-9a11-725706bc6dfa":                           true,
		"kubepods-besteffort-pod3760bb9e_b896_4d9d_9a11_725706bc6dfa.slice": true,
		"kubepods-pod3760bb9e_b896_4d9d_9a11_725706bc6dfa.slice":            true,
		"besteffort": false, "kubepods": false, "kubepods-burstable.slice": false, "podman": false,
	} {
		if podName.MatchString(name) != want {
			t.Errorf("%s: want %v", name, want)
		}
	}
}
