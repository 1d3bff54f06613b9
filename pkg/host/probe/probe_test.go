package probe

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMissingControllersAreNamedWithTheRemedy(t *testing.T) {
	needed := []string{"cpu", "memory", "pids"}
	for name, test := range map[string]struct {
		present []string
		want    []string
	}{
		"none missing":      {[]string{"pids", "io", "memory", "cpu"}, nil},
		"memory missing":    {[]string{"cpu", "pids"}, []string{"cgroup controller memory is missing", "cgroup_enable=memory", "reboot"}},
		"two missing":       {[]string{"memory"}, []string{"cgroup controller cpu, pids is missing", "enable it in the kernel"}},
		"nothing there":     {nil, []string{"cpu, memory, pids", "cgroup_enable=memory"}},
		"similar is not it": {[]string{"cpuset", "memory", "pids"}, []string{"controller cpu is missing"}},
	} {
		err := Root(t.TempDir()).missingControllers(test.present, needed)
		if len(test.want) == 0 {
			if err != nil {
				t.Errorf("%s: got %v", name, err)
			}
			continue
		}
		for _, part := range test.want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want %q", name, err, part)
			}
		}
	}
}

func TestHasCapability(t *testing.T) {
	const other = "Name:\tlite\nCapInh:\tffffffffffffffff\nCapPrm:\tffffffffffffffff\n"
	for name, test := range map[string]struct {
		status string
		want   bool
	}{
		"full root":           {other + "CapEff:\t000001ffffffffff\nCapBnd:\t0\n", true},
		"only that":           {other + "CapEff:\t0000000001000000\n", true},
		"all but that":        {other + "CapEff:\t000001fffeffffff\n", false},
		"nobody":              {other + "CapEff:\t0000000000000000\n", false},
		"not hexadecimal":     {other + "CapEff:\tmany\n", false},
		"no line":             {other, false},
		"the last line whole": {"CapEff:\t0000000001000000", true},
	} {
		root := t.TempDir()
		file := filepath.Join(root, "proc", "self", "status")
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(test.status), 0o600)); err != nil {
			t.Fatal(err)
		}
		if got := Root(root).HasCapability(unix.CAP_SYS_RESOURCE); got != test.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
	if Root(t.TempDir()).HasCapability(unix.CAP_SYS_RESOURCE) {
		t.Error("a file that is missing gives a capability")
	}
}

func TestCheckDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	if err := CheckDisk(dir); err != nil {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Dir(dir)); !os.IsNotExist(err) {
		t.Error("CheckDisk made a directory")
	}
	// A file system that never has room.
	err := CheckDisk("/proc/lite")
	if err == nil || !strings.HasPrefix(err.Error(), "data-dir /proc/lite: only 0 MiB are free and 100 MiB are needed") {
		t.Errorf("got %v", err)
	}
}

func TestCheckCgroups(t *testing.T) {
	const v2, v1 = "/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/%s/cgroup.procs"
	old := map[string]string{}
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "devices", "freezer", "pids"} {
		old[fmt.Sprintf(v1, c)] = ""
	}
	with := func(files map[string]string, more ...string) map[string]string {
		all := maps.Clone(files)
		for _, f := range more {
			all[f] = ""
		}
		return all
	}
	pi := map[string]string{v2: "cpuset cpu io pids"}
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"version 2":            {map[string]string{v2: "cpuset cpu io memory pids"}, ""},
		"version 1":            {with(old, fmt.Sprintf(v1, "memory")), ""},
		"version 1, no memory": {old, "cgroup controller memory is missing; add `cgroup_enable=memory cgroup_memory=1` to the kernel's command line and reboot"},
		"nothing mounted":      {nil, "control groups are missing: nothing is mounted on /sys/fs/cgroup"},
		"Raspberry Pi":         {with(pi, "/boot/firmware/cmdline.txt", "/boot/cmdline.txt"), "command line, at the end of the only line of /boot/firmware/cmdline.txt, and reboot"},
		"older Raspberry Pi":   {with(pi, "/boot/cmdline.txt"), "the only line of /boot/cmdline.txt, and reboot"},
		"GRUB":                 {with(pi, "/etc/default/grub"), "GRUB_CMDLINE_LINUX of /etc/default/grub, run update-grub"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, content := range c.files {
				file = filepath.Join(root, file)
				if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			err := Root(root).CheckCgroups()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestWatches(t *testing.T) {
	const most = 28 // of a server
	if err := CheckWatches(11); err != nil {
		t.Fatal(err)
	}
	// The kernel gives the same error when the process may open no more files, and
	// nobody else on the machine has to suffer for that.
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most / 2, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	err := CheckWatches(most)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err == nil || !strings.Contains(err.Error(), "sysctl -w fs.inotify.max_user_instances=1024") {
		t.Errorf("got %v", err)
	}
}
