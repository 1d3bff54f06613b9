package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// family as a proxy in a directory has it: version → what its go.mod says. The
// proxy lists what is here, oldest first by chance only.
var modules = map[string]map[string]string{
	kubernetes:                               {"v1.37.2": "go 1.26.0\nrequire go.etcd.io/etcd/server/v3 v3.7.0\nrequire github.com/opencontainers/cgroups v0.0.7"},
	etcd:                                     {"v3.6.16": "go 1.25", "v3.7.0": "go 1.26", "v3.7.3": "go 1.26", "v3.8.0": "go 1.27", "v3.8.0-rc.0": "go 1.27"},
	"github.com/containerd/containerd/v2":    {"v2.3.7": "go 1.26\nrequire k8s.io/api v0.36.3", "v2.4.2": "go 1.26.6\nrequire k8s.io/api v0.37.0", "v2.5.0": "go 1.27\nrequire k8s.io/api v0.38.0"},
	"github.com/containernetworking/plugins": {"v1.9.1": "go 1.25"},
	"github.com/coredns/coredns":             {"v1.15.0": "go 1.26\nrequire go.etcd.io/etcd/api/v3 v3.7.2\nrequire k8s.io/klog/v2 v2.140.0"},
	// The minor version fits in its first patches only.
	"github.com/k3s-io/kine": {
		"v0.16.0": "go 1.26", "v0.17.0": "go 1.26\nrequire k8s.io/client-go v0.37.0", "v0.17.1": "go 1.26\nrequire k8s.io/client-go v0.37.1",
		"v0.17.2": "go 1.26\nrequire k8s.io/client-go v0.37.2", "v0.17.3": "go 1.26\nrequire k8s.io/client-go v0.38.0", "v0.17.4": "go 1.26\nrequire k8s.io/client-go v0.38.0",
	},
	"github.com/containerd/fuse-overlayfs-snapshotter/v2": {"v2.1.7": "go 1.24"},
	"github.com/opencontainers/runc":                      {"v1.5.2": "go 1.25", "v1.5.3": "go 1.25"},
	"sigs.k8s.io/cri-tools":                               {"v1.37.0": "go 1.26\nrequire k8s.io/utils v0.0.0-20260626114624-be93311217bd"},
	"sigs.k8s.io/metrics-server":                          {"v0.9.0": "go 1.26"},
}

// serve makes a module proxy of files, and a module cache that knows nothing else.
func serve(t *testing.T) {
	t.Helper()
	proxy := t.TempDir()
	for path, versions := range modules {
		dir := filepath.Join(proxy, filepath.FromSlash(path), "@v")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		list := ""
		for v, content := range versions {
			list += v + "\n"
			for name, content := range map[string]string{v + ".info": fmt.Sprintf(`{"Version":%q}`, v), v + ".mod": "module " + path + "\n" + content + "\n"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "list"), []byte(list), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{"GOPROXY": "file://" + proxy, "GOSUMDB": "off", "GONOSUMDB": "", "GOMODCACHE": t.TempDir(), "GOTOOLCHAIN": "local"} {
		t.Setenv(name, value)
	}
}

// ourMod is a go.mod with what fits, but for what is replaced.
func ourMod(t *testing.T, oldnew ...string) string {
	t.Helper()
	content := strings.NewReplacer(oldnew...).Replace(`module lite
go 1.26.8
require (
	github.com/containerd/containerd/v2 v2.4.2
	github.com/containerd/fuse-overlayfs-snapshotter/v2 v2.1.7
	github.com/containernetworking/plugins v1.9.1
	github.com/coredns/coredns v1.15.0
	github.com/opencontainers/cgroups v0.1.0
	github.com/opencontainers/runc v1.5.2
	go.etcd.io/etcd/api/v3 v3.7.3
	go.etcd.io/etcd/server/v3 v3.7.3
	k8s.io/api v0.37.2
	k8s.io/kubernetes v1.37.2
	sigs.k8s.io/cri-tools v1.37.0
	sigs.k8s.io/metrics-server v0.9.0
)
`)
	file := filepath.Join(t.TempDir(), "go.mod")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestFit(t *testing.T) {
	serve(t)
	for name, test := range map[string]struct {
		oldnew []string
		agree  bool
		want   []string
	}{
		"as it is": {nil, true, []string{
			"With v1.37.2, which is built with etcd 3.7:",
			"go.etcd.io/etcd/server/v3 v3.7.3 v3.7.3 1.26 v3.8.0 is newer than the etcd of Kubernetes, 3.7",
			"github.com/containerd/containerd/v2 v2.4.2 v2.4.2 1.26.6 v2.5.0 requires k8s.io/api v0.38.0",
			"github.com/k3s-io/kine - v0.17.2 1.26 v0.17.4 requires k8s.io/client-go v0.38.0",
			"github.com/opencontainers/runc could be v1.5.3.",
			"All that go.mod has fits.",
			"github.com/opencontainers/cgroups v0.1.0, not v0.0.7",
		}},
		"containerd too new": {[]string{"containerd/v2 v2.4.2", "containerd/v2 v2.5.0"}, false, []string{
			"WRONG: github.com/containerd/containerd/v2 v2.5.0 requires k8s.io/api v0.38.0"}},
		"containerd too old": {[]string{"containerd/v2 v2.4.2", "containerd/v2 v2.3.7"}, true, []string{
			"github.com/containerd/containerd/v2 could be v2.4.2."}},
		"etcd too new": {[]string{"server/v3 v3.7.3", "server/v3 v3.8.0"}, false, []string{
			"WRONG: go.etcd.io/etcd/server/v3 v3.8.0 is newer than the etcd of Kubernetes, 3.7"}},
		"etcd in two versions": {[]string{"etcd/api/v3 v3.7.3", "etcd/api/v3 v3.7.0"}, false, []string{
			"WRONG: go.etcd.io/etcd/api/v3 v3.7.0 is beside go.etcd.io/etcd/server/v3 v3.7.3"}},
		"Kubernetes in two versions": {[]string{"k8s.io/api v0.37.2", "k8s.io/api v0.37.1"}, false, []string{
			"WRONG: k8s.io/api v0.37.1 is beside k8s.io/kubernetes v1.37.2"}},
		"Go too old": {[]string{"go 1.26.8", "go 1.26.5"}, false, []string{
			"WRONG: github.com/containerd/containerd/v2 v2.4.2 needs Go 1.26.6, and go.mod says 1.26.5"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			agree, err := run(&out, ourMod(t, test.oldnew...), "")
			if err != nil {
				t.Fatal(err)
			}
			said := strings.Join(strings.Fields(out.String()), " ")
			for _, want := range test.want {
				if !strings.Contains(said, want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if agree != test.agree {
				t.Errorf("agree is %t", agree)
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}

func TestWhatCannotBeAskedIsNamed(t *testing.T) {
	serve(t)
	for name, test := range map[string]struct{ version, proxy, want string }{
		"no such version": {"v1.99.0", "", "ask the module proxy for k8s.io/kubernetes@v1.99.0: "},
		"no network":      {"", "http://127.0.0.1:9", "ask the module proxy for k8s.io/kubernetes@v1.37.2: "},
		"no proxy":        {"", "off", "module lookup disabled by GOPROXY=off; `go env GOPROXY` tells which one that is"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.proxy != "" {
				t.Setenv("GOPROXY", test.proxy)
			}
			_, err := run(&bytes.Buffer{}, ourMod(t), test.version)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	if _, err := run(&bytes.Buffer{}, filepath.Join(t.TempDir(), "go.mod"), ""); err == nil || !strings.Contains(err.Error(), "go.mod") {
		t.Errorf("without a go.mod: %v", err)
	}
}
