package uninstall

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGroupsOf(t *testing.T) {
	all := []hierarchy{{"/sys/fs/cgroup/cpu", "/"}, {"/sys/fs/cgroup/pids", "/docker/x"}}
	const pod = "/kubepods/besteffort/pod3760bb9e-b896-4d9d-9a11-725706bc6dfa"
	for _, test := range []struct {
		path string
		want []string
	}{
		{"/sys/fs/cgroup/cpu" + pod + "/abc", []string{pod + "/abc", pod}},
		{"/sys/fs/cgroup/pids" + pod + "/abc", []string{"/docker/x" + pod + "/abc", "/docker/x" + pod}},
		{"/sys/fs/cgroup/cpu/default/abc", []string{"/default/abc"}},
		{"/sys/fs/cgroup/cpu", nil},
		{"/elsewhere/abc", nil},
	} {
		if got := groupsOf(all, test.path); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.path, got, test.want)
		}
	}
}

// TestIsHelper starts copies of a program that are called as helpers are.
func TestIsHelper(t *testing.T) {
	dir := t.TempDir()
	ours, others := filepath.Join(dir, "data/bundle/0/bin"), filepath.Join(dir, "others")
	w := &work{Report: NewReport(os.Stderr), Installation: Installation{DataDirs: []string{filepath.Join(dir, "data")}, RunDir: "/run/lite"}}
	for _, test := range []struct {
		path string
		args []string
		want bool
	}{
		{ours + "/runc", nil, true},
		{ours + "/crictl", nil, false},
		{others + "/containerd-shim-runc-v2", []string{"-namespace", "k8s.io", "-address", "/run/lite/containerd/containerd.sock"}, true},
		{others + "/more/containerd-shim-runc-v2", []string{"-address", "/run/k3s/containerd/containerd.sock"}, false},
		{others + "/tool", []string{"-address", "/run/lite/containerd/containerd.sock"}, false},
	} {
		proc := startAs(t, test.path, test.args)
		exe, err := os.Readlink(proc + "/exe")
		if err != nil {
			t.Fatal(err)
		}
		if got := w.isHelper(proc, exe); got != test.want {
			t.Errorf("%s %q: %v, want %v", test.path, test.args, got, test.want)
		}
	}
}

// startAs runs a shell under another name, and holds it up.
func startAs(t *testing.T, path string, args []string) (proc string) {
	t.Helper()
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, shell, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, append([]string{"-c", "echo ready; read line"}, args...)...)
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = c.Wait() })
	if _, err := stdout.Read(make([]byte, 6)); err != nil { // before that it may have no arguments yet
		t.Fatal(err)
	}
	return filepath.Join("/proc", strconv.Itoa(c.Process.Pid))
}

func TestHandles(t *testing.T) {
	c := exec.Command("/bin/sh", "-c", "trap 'exit' TERM; echo ready; read line")
	stdin, _ := c.StdinPipe()
	stdout, _ := c.StdoutPipe()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = c.Wait() })
	if _, err := stdout.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if !handles(c.Process.Pid, unix.SIGTERM) || handles(c.Process.Pid, unix.SIGUSR1) {
		t.Error("it handles SIGTERM and not SIGUSR1")
	}
}
