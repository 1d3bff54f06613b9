// Package lite_test holds the shape of the project: which of its packages may use which.
package lite_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "lite.io/lite/"

// layers lists the packages bottom-up. A package may import those that its row names ("pkg/" left out), which must stand
// above it in the table; "*" allows all that stand above it. "dir/..." is a row for every package below dir; these may
// import each other. Tests may import anything.
var layers = []struct{ pkg, imports string }{
	{"pkg/golden", ""},
	{"pkg/layout", ""},
	{"pkg/upstream", ""},
	{"pkg/version", ""},
	{"pkg/licenses", ""},
	{"pkg/log", "layout"},
	{"pkg/notify", ""},
	{"pkg/series", "layout"},
	{"pkg/component", ""},
	{"pkg/file", "layout"},
	{"pkg/document", ""},
	{"pkg/config", "document file layout"},
	{"pkg/unpack", ""},
	{"pkg/unpack/layers", "layout unpack"},
	{"pkg/pki", "file layout"},
	{"pkg/bundle", "file layout unpack"},
	{"pkg/netfilter", "layout"},
	{"pkg/firewall", "netfilter"},
	{"pkg/kube", "component document file layout"},
	{"pkg/expiry", "kube layout pki"},
	{"pkg/machine", "kube layout"},
	{"pkg/join", "file kube layout"},
	{"pkg/join/roll", "layout"},
	{"pkg/join/gate", "join/roll layout"},
	{"pkg/join/approver", "component join join/roll kube layout"},
	{"manifests", ""},
	{"pkg/service", "layout"},
	{"pkg/uninstall", "file layout netfilter service"},
	{"pkg/status", "component file netfilter"},
	{"pkg/datastore/etcd", "component kube layout log pki"},
	{"pkg/datastore", ""},
	{"pkg/server/exemption", "layout"},
	{"pkg/server/controlplane", "component config datastore file join/gate kube layout pki series server/exemption"},
	{"pkg/agent/images", "layout unpack unpack/layers"},
	{"pkg/release", "file unpack"},
	{"pkg/install/setup", "config file layout release service"},
	{"pkg/airgap", "agent/images release unpack"},
	{"pkg/agent/containerd", "component document file layout unpack unpack/layers"},
	{"pkg/agent/kubelet", "component kube layout series"},
	{"pkg/agent/kubeproxy", "component firewall kube layout netfilter series"},
	{"pkg/agent/loadbalancer", "file kube layout"},
	{"pkg/cni/overlay", "file layout"},
	{"pkg/cni", "cni/overlay component file firewall kube layout netfilter"},
	{"pkg/cni/policy", "cni/overlay component firewall kube layout"},
	{"pkg/resolver", "file"},
	{"pkg/addon/dns", "component file kube layout resolver series"},
	{"pkg/addon/manifests", "document kube layout"},
	{"pkg/addon/storage", "file kube layout"},
	{"pkg/addon/loadbalancer", "component kube layout"},
	{"pkg/addon/metrics", "kube layout"},
	{"pkg/addon/runtimeclass", "component kube"},
	{"pkg/agent", "addon/dns addon/storage agent/containerd agent/images agent/kubelet agent/kubeproxy agent/loadbalancer bundle cni cni/policy component config expiry file firewall join join/approver join/roll kube layout machine pki resolver version"},
	{"pkg/upgrade", "agent component config datastore/etcd file kube layout release service status version"},
	{"pkg/server", "*"},
	{"pkg/cis", "component config file kube layout manifests pki"},
	{"pkg/check", "agent agent/containerd bundle cni/overlay component config file join kube layout netfilter pki resolver server status uninstall version"},
	{"scripts", ""},
	{"cmd/lite", "*"},
	{"scripts/...", "release scripts"},
	{"tests/...", "*"},
}

// source is what the test knows of one package.
type source struct {
	documented bool
	imports    map[string]string // a package of ours, relative to the module -> a file that imports it; without tests
}

func TestLayers(t *testing.T) {
	sources := readSources(t)
	used := map[string]bool{}
	for _, pkg := range sortedKeys(sources) {
		row := rowOf(pkg)
		if row < 0 {
			t.Errorf("%s is not listed: give it a row in layers", pkg)
			continue
		}
		used[layers[row].pkg] = true
		if !sources[pkg].documented {
			t.Errorf("%s has no doc comment: say in one file what the package is", pkg)
		}
		for _, imported := range sortedKeys(sources[pkg].imports) {
			if !mayImport(row, imported) {
				t.Errorf("%s must not import %s (%s does)", pkg, imported, sources[pkg].imports[imported])
			}
		}
	}
	for _, l := range layers {
		if !used[l.pkg] {
			t.Errorf("%s is listed but does not exist: remove its row from layers", l.pkg)
		}
	}
}

// TestLayersAreBottomUp checks the table itself.
func TestLayersAreBottomUp(t *testing.T) {
	for row, l := range layers {
		for name := range strings.FieldsSeq(l.imports) {
			if name == "*" {
				continue
			}
			i := slices.IndexFunc(layers, func(other struct{ pkg, imports string }) bool { return short(other.pkg) == name })
			if i < 0 || i >= row {
				t.Errorf("%s may import %s, which does not stand above it", l.pkg, name)
			}
		}
	}
}

// rowOf returns the row of a package, or -1.
func rowOf(pkg string) int {
	for i, l := range layers {
		dir, tree := strings.CutSuffix(l.pkg, "/...")
		if l.pkg == pkg || tree && strings.HasPrefix(pkg, dir+"/") {
			return i
		}
	}
	return -1
}

func mayImport(row int, imported string) bool {
	below := rowOf(imported)
	switch {
	case below < 0 || below > row:
		return false
	case below == row:
		return strings.HasSuffix(layers[row].pkg, "/...")
	}
	allowed := strings.Fields(layers[row].imports)
	return slices.Contains(allowed, "*") || slices.Contains(allowed, short(layers[below].pkg))
}

func short(pkg string) string { return strings.TrimPrefix(pkg, "pkg/") }

// readSources parses the head of every Go file of the module, whatever its build tags.
func readSources(t *testing.T) map[string]*source {
	t.Helper()
	sources := map[string]*source{}
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if file != "." && (name[0] == '.' || name[0] == '_' || name == "testdata" || name == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" || filepath.Dir(file) == "." {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(file))
		if sources[pkg] == nil {
			sources[pkg] = &source{imports: map[string]string{}}
		}
		sources[pkg].add(parsed, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

func (s *source) add(parsed *ast.File, file string) {
	if strings.TrimSpace(parsed.Doc.Text()) != "" {
		s.documented = true
	}
	if strings.HasSuffix(file, "_test.go") {
		return
	}
	for _, i := range parsed.Imports {
		imported, _ := strconv.Unquote(i.Path.Value)
		if ours, ok := strings.CutPrefix(imported, module); ok {
			s.imports[ours] = file
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
