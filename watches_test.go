package lite_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strings"
	"testing"
)

// TestWhatIsWatchedIsNotUpdated finds updates of whole objects in packages that have a
// watch: what kube.Watch keeps of an object is less than the object, and the rest would be
// gone. A patch or an apply leaves it alone.
func TestWhatIsWatchedIsNotUpdated(t *testing.T) {
	watches, updates := map[string]bool{}, map[string][]string{}
	for _, file := range goFiles(t, "pkg", "cmd") {
		found := writesOf(t, file)
		dir := path.Dir(file)
		watches[dir] = watches[dir] || found.watches
		updates[dir] = append(updates[dir], found.updates...)
	}
	watching := 0
	for dir, is := range watches {
		if !is {
			continue
		}
		watching++
		for _, at := range updates[dir] {
			t.Errorf("%s: the package watches objects with kube.Watch: patch or apply, do not update", at)
		}
	}
	if watching < 5 {
		t.Errorf("only %d packages with a watch were found", watching)
	}
}

type writes struct {
	watches bool
	updates []string
}

// writesOf is whether a file has a watch, and where it updates objects by a typed client.
func writesOf(t *testing.T, file string) (found writes) {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if of, ok := s.X.(*ast.Ident); ok && of.Name == "kube" && (s.Sel.Name == "NewWatch" || s.Sel.Name == "Nodes") {
				found.watches = true
			}
		}
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 3 {
			return true
		}
		if s, ok := call.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "Update") {
			if o, ok := call.Args[2].(*ast.CompositeLit); ok {
				if k, ok := o.Type.(*ast.SelectorExpr); ok && k.Sel.Name == "UpdateOptions" {
					found.updates = append(found.updates, set.Position(call.Pos()).String())
				}
			}
		}
		return true
	})
	return found
}
