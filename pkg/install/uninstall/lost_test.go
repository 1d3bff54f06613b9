package uninstall

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lite.io/lite/pkg/layout"
)

// What containerd can reach is left to it, and what is not named as a container is nobody's.
func TestWhatIsLost(t *testing.T) {
	root, run := t.TempDir(), t.TempDir()
	id := func(c string) string { return strings.Repeat(c, 64) }
	bundle := filepath.Join(run, "containerd/state/io.containerd.runtime.v2.task/k8s.io")
	for _, dir := range []string{
		"sandboxes/" + id("a"), "containers/" + id("b"), "containers/" + id("c"), "sandboxes/" + id("d"), "containers/" + id("e"), "containers/kubepods", "containers/" + id("z"),
		"sandboxes/" + id("1"), "sandboxes/" + id("2"), "sandboxes/" + id("3"), "sandboxes/" + id("4"), "sandboxes/" + id("5"),
	} {
		if err := os.MkdirAll(filepath.Join(root, "io.containerd.grpc.v1.cri", dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{
		id("a") + "/bootstrap.json": `{"version":3,"address":"unix://` + root + `","protocol":"ttrpc"}`,
		id("b") + "/address":        "unix://" + root,
		id("c") + "/rootfs/x":       "", id("d") + "/config.json": "",
		id("1") + "/bootstrap.json": `{"version":3,"address":"unix:///no/such/socket","protocol":"ttrpc"}`,
		id("2") + "/bootstrap.json": `{"version":3,"addr`, // a disk that was full
		id("3") + "/bootstrap.json": `{"version":3,"address":"vsock://3:1024"}`,
		id("4") + "/address":        "unix:///no/such/socket",
		"../../io.containerd.sandbox.controller.v1.shim/k8s.io/" + id("5") + "/bootstrap.json": `{"address":"unix://` + root + `"}`,
	} {
		path := filepath.Join(bundle, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := slices.Sorted(maps.Keys(lostIDs(root, layout.Run(run))))
	if want := []string{id("1"), id("2"), id("4"), id("c"), id("d"), id("e")}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for name, want := range map[string]string{
		id("a"): id("a"), "cri-containerd-" + id("a") + ".scope": id("a"), "crio-" + id("a") + ".scope": "", "docker-" + id("a") + ".scope": "",
		id("a") + "a": "", "pod3760bb9e-b896-4d9d-9a11-725706bc6dfa": "", "": "",
	} {
		if got := idOf(name); got != want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// A shim is recognized by its arguments, wherever its program is.
func TestShimsOfWhatIsLost(t *testing.T) {
	dir, id := t.TempDir(), strings.Repeat("a", 64)
	l := lost{ids: map[string]bool{id: true}, address: "/run/lite/containerd/containerd.sock"}
	for i, test := range []struct {
		args string
		want bool
	}{
		{"-namespace k8s.io -id " + id + " -address /run/lite/containerd/containerd.sock", true},
		{"-namespace k8s.io -id " + strings.Repeat("b", 64) + " -address /run/lite/containerd/containerd.sock", false}, // it runs on
		{"-namespace k8s.io -id " + id + " -address /run/containerd/containerd.sock", false},
		{"-namespace moby -id " + id + " -address /run/lite/containerd/containerd.sock", false},
		{"-namespace k8s.io -address /run/lite/containerd/containerd.sock -id", false},
		{"", false},
	} {
		proc := startAs(t, filepath.Join(dir, strconv.Itoa(i), "containerd-shim-x-v1"), strings.Fields(test.args))
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil {
			t.Fatal(err)
		}
		if got := l.isShim(pid); got != test.want {
			t.Errorf("%s: got %v", test.args, got)
		}
		if got := parentOf(pid); got != os.Getpid() {
			t.Errorf("the parent of %d is %d, want %d", pid, got, os.Getpid())
		}
		if l.has(pid) {
			t.Errorf("%d is in no cgroup of a container", pid)
		}
	}
}

// Where nothing is lost nothing is looked for, and where all that is lost has ended nothing is
// signalled.
func TestNothingIsLost(t *testing.T) {
	root := t.TempDir()
	if n, err := EndLost(root, layout.Run(t.TempDir()), 0); n != 0 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if err := os.MkdirAll(filepath.Join(root, "io.containerd.grpc.v1.cri/sandboxes", strings.Repeat("0", 64)), 0o700); err != nil {
		t.Fatal(err)
	}
	if n, err := EndLost(root, layout.Run(t.TempDir()), 0); n != 0 || err != nil {
		t.Errorf("after a reboot: got %d, %v", n, err)
	}
}
