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
	{"tests/golden", ""},
	{"pkg/layout", ""},
	{"tests/upstream", ""},
	{"pkg/version", ""},
	{"pkg/licenses", ""},
	{"pkg/log", "layout"},
	{"pkg/install/notify", ""},
	{"pkg/component/series", "layout"},
	{"pkg/component", ""},
	{"pkg/file", "layout"},
	{"pkg/addon", "layout"},
	{"pkg/cluster", "addon"},
	{"pkg/file/document", ""},
	{"pkg/host/probe", "file layout"},
	{"pkg/config", "addon cluster file file/document host/probe layout"},
	{"pkg/file/unpack", ""},
	{"pkg/file/unpack/layers", "file/unpack layout"},
	{"pkg/pki", "file layout"},
	{"pkg/helpers", "file file/unpack layout"},
	{"pkg/host/netfilter", "host/probe layout"},
	{"pkg/host/changes", "file host/netfilter host/probe layout"},
	{"pkg/host/firewall", "host/netfilter"},
	{"pkg/kube", "component file file/document layout"},
	{"pkg/kube/apply", "kube"},
	{"pkg/pki/expiry", "file kube layout pki"},
	{"pkg/host/watch", "kube layout"},
	{"pkg/host/vip", ""},
	{"pkg/join", "cluster file kube layout"},
	{"pkg/join/roll", "layout"},
	{"pkg/join/gate", "join/roll layout"},
	{"pkg/join/revoke", "join join/roll kube"},
	{"pkg/join/approver", "component join join/roll kube layout"},
	{"manifests", ""},
	{"pkg/install/inventory", ""},
	{"pkg/install/service", "install/inventory layout"},
	{"pkg/install/uninstall", "config file host/changes host/netfilter host/probe install/inventory install/service layout"},
	{"pkg/status", "component file host/netfilter"},
	{"pkg/datastore/etcd", "component file kube layout log pki"},
	{"pkg/datastore/shared", "kube layout"},
	{"pkg/datastore/external", "datastore/shared"},
	{"pkg/datastore/kine", "cluster datastore/shared log"},
	{"pkg/datastore", "cluster component datastore/etcd datastore/external datastore/kine datastore/shared join kube layout pki"},
	{"pkg/server/exemption", "layout"},
	{"pkg/server/controlplane", "cluster component component/series config datastore file join/gate kube layout pki server/exemption"},
	{"pkg/agent/images", "file/unpack file/unpack/layers layout"},
	{"pkg/install/release", "file file/unpack"},
	{"pkg/install/setup", "config file host/probe install/inventory install/release install/service layout"},
	{"scripts", ""},
	{"pkg/install/airgap", "agent/images file/unpack install/release scripts version"},
	{"pkg/agent/containerd", "component file file/document file/unpack file/unpack/layers layout"},
	{"pkg/agent/kubelet", "component component/series kube layout"},
	{"pkg/agent/kubeproxy", "component component/series host/firewall host/netfilter host/probe kube layout"},
	{"pkg/agent/apiproxy", "file kube layout"},
	{"pkg/cni/overlay", "file host/probe layout"},
	{"pkg/join/proof", "cni/overlay component kube layout"},
	{"pkg/cni", "cni/overlay component file host/firewall host/netfilter host/probe kube layout"},
	{"pkg/cni/policy", "cni/overlay component host/firewall kube layout"},
	{"pkg/host/resolver", "file"},
	{"pkg/addon/dns", "component component/series file host/probe host/resolver kube layout"},
	{"pkg/addon/manifests", "addon file file/document kube kube/apply layout"},
	{"pkg/addon/storage", "file kube layout"},
	{"pkg/addon/servicelb", "component kube layout"},
	{"pkg/addon/metrics", "kube layout"},
	{"pkg/addon/runtimeclass", "component kube"},
	{"pkg/addon/battery", "addon addon/dns addon/metrics addon/servicelb addon/storage agent/kubeproxy cluster cni cni/policy component config host/firewall host/resolver kube layout pki"},
	{"pkg/agent", "addon addon/battery agent/apiproxy agent/containerd agent/images agent/kubelet cluster component config file helpers host/firewall host/probe host/resolver host/watch join join/approver join/roll kube layout pki pki/expiry version"},
	{"pkg/install/backup", "config datastore file layout version"},
	{"pkg/install/upgrade", "agent component config datastore/etcd file host/probe install/backup install/release install/service kube layout status version"},
	{"pkg/server", "*"},
	{"pkg/check/cis", "component config file kube layout manifests pki"},
	{"pkg/check", "addon agent agent/containerd check/cis cluster cni/overlay component config datastore/etcd file helpers host/changes host/netfilter host/probe host/resolver join kube layout log pki server status version"},
	{"pkg/boot", "agent check cluster component component/series config helpers host/changes host/netfilter host/watch install/notify install/service install/uninstall install/upgrade layout log pki/expiry server status version"},
	{"cmd/lite", "*"},
	{"scripts/...", "install/release scripts"},
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

// TestOnlyServersProposeFacts: everybody else is given what the cluster shares. Where a package could make facts from
// the configuration of its node, sooner or later it would.
func TestOnlyServersProposeFacts(t *testing.T) {
	proposed := false
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		dir := filepath.Dir(file)
		if err == nil && d.IsDir() && dir == "." && !slices.Contains([]string{".", "cmd", "pkg"}, file) {
			return filepath.SkipDir
		}
		if err != nil || filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") || strings.HasPrefix(dir, "pkg/config") {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Propose" {
				proposed = true
				if dir != "pkg/server" {
					t.Errorf("%s proposes facts: have it given the cluster's", file)
				}
			}
			return true
		})
		return nil
	})
	if err != nil || !proposed {
		t.Errorf("nobody proposes facts, %v", err)
	}
}
