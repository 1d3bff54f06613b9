package series

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	sources "lite.io/lite/tests/upstream"
)

// registers reports which component has what a directory of upstream's sources registers.
var registers = []struct {
	dir  string // below the module's
	who  []Owner
	skip []string // directories below that are others'
}{
	{"k8s.io/kubernetes pkg/kubelet", []Owner{Kubelet}, []string{"metrics/collectors", "prober", "server"}}, // served at paths of their own; cAdvisor's
	{"k8s.io/kubernetes pkg/scheduler", []Owner{Scheduler}, []string{"metrics/resources"}},                  // served at a path of its own
	{"k8s.io/kubernetes pkg/proxy", []Owner{KubeProxy}, nil},
	{"k8s.io/kubernetes pkg/controller", []Owner{ControllerManager}, nil},
	{"k8s.io/endpointslice .", []Owner{ControllerManager}, nil},
	{"k8s.io/cloud-provider .", []Owner{ControllerManager}, nil},
	{"k8s.io/kubernetes pkg/registry", []Owner{APIServer}, nil},
	{"k8s.io/kubernetes pkg/serviceaccount", []Owner{APIServer}, nil},
	{"k8s.io/kubernetes plugin", []Owner{APIServer}, nil},
	{"k8s.io/apiserver pkg", []Owner{APIServer}, nil},
	{"k8s.io/apiserver plugin", []Owner{APIServer}, nil},
	{"k8s.io/apiextensions-apiserver pkg", []Owner{APIServer}, nil},
	{"k8s.io/kube-aggregator pkg", []Owner{APIServer}, nil},
	{"k8s.io/pod-security-admission .", []Owner{APIServer}, nil},
	{"k8s.io/kubernetes pkg/volume/util", []Owner{ControllerManager, Kubelet}, nil},
	{"k8s.io/component-base metrics/prometheus/restclient", kubernetes, nil},
	{"k8s.io/component-base metrics/prometheus/clientgo/fifo", kubernetes, nil},
	{"k8s.io/component-base metrics/prometheus/workqueue", []Owner{APIServer, ControllerManager}, nil},
}

// TestFollowsUpstream reads in upstream's sources who registers which family. A version that has
// more fails it, until families says whose they are.
func TestFollowsUpstream(t *testing.T) {
	total := 0
	for _, r := range registers {
		module, below, _ := strings.Cut(r.dir, " ")
		dir := filepath.Join(sources.Sources(t, module), below)
		found := registered(t, dir, r.skip)
		if len(found) == 0 {
			t.Errorf("%s registers nothing: has it moved?", r.dir)
		}
		for family, file := range found {
			total++
			var got []Owner
			for _, o := range kubernetes {
				if Known(family) && o.serves(family) {
					got = append(got, o)
				}
			}
			if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(r.who))) {
				t.Errorf("%s (%s) is served by %v, want %v", family, file, got, r.who)
			}
		}
	}
	if total < 400 {
		t.Errorf("found only %d families in all", total)
	}
}

// registered is the families for which there are options below a directory, each with the file.
func registered(t *testing.T, dir string, skip []string) map[string]string {
	t.Helper()
	constants, options := map[string]string{}, map[string][]*ast.CompositeLit{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, _ := filepath.Rel(dir, path)
		if d.IsDir() && (slices.Contains(skip, relative) || d.Name() == "testing" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if i < len(n.Values) {
						if text, ok := literal(n.Values[i]); ok {
							constants[filepath.Dir(path)+" "+name.Name], constants[name.Name] = text, text
						}
					}
				}
			case *ast.CompositeLit:
				if isOptions(n.Type) {
					options[path] = append(options[path], n)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]string{}
	for path, all := range options {
		for _, o := range all {
			if name := familyOf(o, filepath.Dir(path), constants); name != "" {
				families[name] = path
			}
		}
	}
	return families
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}

// isOptions is whether a type is that of the options of a family.
func isOptions(e ast.Expr) bool {
	selector, ok := e.(*ast.SelectorExpr)
	return ok && slices.Contains([]string{"GaugeOpts", "CounterOpts", "HistogramOpts", "SummaryOpts", "TimingHistogramOpts"}, selector.Sel.Name)
}

// familyOf is the name that options make; "" if they are made from what a function is given.
func familyOf(o *ast.CompositeLit, dir string, constants map[string]string) string {
	parts := map[string]string{}
	for _, e := range o.Elts {
		pair, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, ok := pair.Key.(*ast.Ident)
		if !ok || key.Name != "Namespace" && key.Name != "Subsystem" && key.Name != "Name" {
			continue
		}
		text, ok := literal(pair.Value)
		switch v := pair.Value.(type) {
		case *ast.Ident:
			if text, ok = constants[dir+" "+v.Name]; !ok {
				text, ok = constants[v.Name]
			}
		case *ast.SelectorExpr:
			text, ok = constants[v.Sel.Name]
		}
		if !ok {
			return ""
		}
		parts[key.Name] = text
	}
	var name []string
	for _, key := range []string{"Namespace", "Subsystem", "Name"} {
		if parts[key] != "" {
			name = append(name, parts[key])
		}
	}
	return strings.Join(name, "_")
}
