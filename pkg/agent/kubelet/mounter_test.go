package kubelet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"
)

// recorder stands for upstream's mounter.
type recorder struct {
	mount.MounterForceUnmounter
	asked []string
}

func (r *recorder) Mount(_, _, fstype string, options []string) error {
	r.asked = append(r.asked, fstype+" "+strings.Join(options, ","))
	return nil
}

func TestWhatNeedsAProgramIsLeftToUpstream(t *testing.T) {
	for name, c := range map[string]struct {
		fstype  string
		options []string
		plain   bool
	}{
		"memory":              {"tmpfs", []string{"size=1048576", "noswap"}, true},
		"huge pages":          {"hugetlbfs", []string{"pagesize=2Mi"}, true},
		"directory":           {"", []string{"bind"}, true},
		"read-only directory": {"", []string{"bind", "ro", "remount"}, true},
		"NFS":                 {"nfs", []string{"vers=4"}, false},
		"disk":                {"ext4", nil, false},
		"unknown option":      {"", []string{"bind", "X-mount.mkdir"}, false},
		"directory and type":  {"ext4", []string{"bind"}, false},
		"recursive":           {"", []string{"rbind"}, false},
	} {
		if got := plain(c.fstype, c.options); got != c.plain {
			t.Errorf("%s: got %t", name, got)
		}
		if c.plain {
			continue
		}
		r := &recorder{}
		if err := (mounter{r}).Mount("a", "/b", c.fstype, c.options); err != nil || len(r.asked) != 1 {
			t.Errorf("%s: upstream was asked %q (%v)", name, r.asked, err)
		}
	}
}

// TestMounts mounts without any program: PATH leads nowhere.
func TestMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	t.Setenv("PATH", t.TempDir())
	dir := t.TempDir()
	memory, second, only := filepath.Join(dir, "memory"), filepath.Join(dir, "second"), filepath.Join(dir, "only")
	for _, d := range []string{memory, second, only} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := newMounter("")
	t.Cleanup(func() {
		for _, d := range []string{only, second, memory} {
			_ = unix.Unmount(d, unix.MNT_DETACH)
		}
	})
	for _, step := range []struct {
		source, target, fstype string
		options                []string
	}{
		{"tmpfs", memory, "tmpfs", []string{"size=1048576", "noexec"}},
		{memory, second, "", []string{"bind"}},
		{memory, only, "", []string{"bind", "ro"}},
	} {
		if err := m.Mount(step.source, step.target, step.fstype, step.options); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(second, "file"), nil, 0o600); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(only, "file"), nil, 0o600); err == nil {
		t.Error("what is mounted read-only can be written")
	}
	for d, want := range map[string]int64{memory: unix.MS_NOEXEC, second: unix.MS_NOEXEC, only: unix.MS_NOEXEC | unix.MS_RDONLY} {
		var fs unix.Statfs_t
		if err := unix.Statfs(d, &fs); err != nil || fs.Flags&(unix.MS_NOEXEC|unix.MS_RDONLY) != want || fs.Blocks*uint64(fs.Bsize) != 1<<20 {
			t.Errorf("%s: %+v, %v", d, fs, err)
		}
	}
	for _, d := range []string{only, second, memory, memory} { // the last one twice
		if err := m.Unmount(d); err != nil {
			t.Error(err)
		}
	}
	points, err := m.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		if strings.HasPrefix(p.Path, dir) {
			t.Errorf("%s is still mounted", p.Path)
		}
	}
	if err := m.Mount("nowhere", filepath.Join(dir, "none"), "tmpfs", nil); err == nil || !strings.Contains(err.Error(), "mount nowhere at "+dir) {
		t.Errorf("got %v", err)
	}
}
