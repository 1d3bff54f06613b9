package lite_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lite.io/lite/pkg/layout"
)

// yetToMove is the files that spell what package layout has to say. The list may only shrink.
var yetToMove = []string{}

// notLites is what looks like a name of lite's on a machine or in a cluster, and is none.
var notLites = []string{
	"lite-linux-", "lite-%s-linux-%s.tar", "lite-v1.2.3-linux-amd64.tar", // files of a release
	"lite.io/lite/cmd/lite",           // the program among Go's
	"/run/containerd/containerd.sock", // the socket of a containerd of the machine's
}

// TestLayoutAloneSpellsWhatLiteOwns finds literals of paths, ports, chains, devices and names of lite's outside
// package layout.
func TestLayoutAloneSpellsWhatLiteOwns(t *testing.T) {
	s := newSpelling()
	left := slices.Clone(yetToMove)
	count := map[string]int{}
	for _, file := range goFiles(t, "pkg", "cmd") {
		if strings.HasPrefix(file, "pkg/layout/") {
			continue
		}
		found := s.in(t, file)
		for _, f := range found {
			count[f.kind]++
		}
		if i := slices.Index(left, file); i >= 0 {
			if left = slices.Delete(left, i, i+1); len(found) == 0 {
				t.Errorf("%s spells nothing of layout's any more: take it off the list yetToMove", file)
			}
			continue
		}
		for _, f := range found {
			t.Errorf("%v: ask package layout for this %s", f, f.kind)
		}
	}
	for _, file := range left {
		t.Errorf("%s does not exist: take it off the list yetToMove", file)
	}
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%d literals of a %s", count[kind], kind)
	}
}

// TestSpelling looks at the test itself.
func TestSpelling(t *testing.T) {
	s := newSpelling()
	for code, want := range map[string]string{
		`"/var/lib/lite"`: "path", `"/etc/lite/config.yaml"`: "path", "`in /run/lite/lite.sock`": "path", `"/var/lib/literal"`: "", `"/etc/hosts"`: "",
		`"agent/containerd/root"`: "path", `"server/etcd"`: "path", `"etcd/server"`: "", `dataDir + "/version"`: "path", `url + "/version"`: "",
		`filepath.Join(dir, "kubelet.conf")`: "path", `filepath.Join(dir, "agent", x)`: "path", `filepath.Join(dir, "other")`: "", `say("agent")`: "",
		`10250`: "port", `"https://host:6443"`: "port", `"1.16443"`: "", `2380 + 1`: "port", `6000`: "", `30000`: "port",
		`"LITE-INPUT"`: "chain", `"cni_hostport"`: "chain", `"inet lite-policy"`: "chain", `"KUBE-FIREWALL"`: "chain", `"KUBE-SERVICES"`: "",
		`"cni0"`: "device", `"/sys/class/net/lite-wg"`: "device", `"kubepods.slice"`: "device", `'L'`: "device", `0x6c6974`: "device", `'M'`: "",
		`"lite.io/overlay"`: "name", `"nodes.lite.io"`: "name", `"lite-leader"`: "name", `"lite:server"`: "name", `"system:node:x"`: "name",
		`"lite-linux-"`: "", `"lite server"`: "", `"elite-x"`: "",
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nimport _ \"lite.io/lite/pkg/layout\"\nvar x = "+code, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		s.walk(file, func(_ *ast.BasicLit, kind string) { got = kind })
		if got != want {
			t.Errorf("%s: got %q, want %q", code, got, want)
		}
	}
}

// spelling knows what lite owns, from package layout.
type spelling struct {
	path, chain, device, name, port *regexp.Regexp
	below                           *regexp.Regexp // two elements of a path of which the second is in the first
	elements                        map[string]bool
	ports                           map[string]bool
}

func newSpelling() *spelling {
	s := &spelling{elements: map[string]bool{}, ports: map[string]bool{strconv.Itoa(layout.NodePortFirst): true}}
	l := layout.Default()
	roots := []string{string(l.Data), string(l.Run), string(l.Config), filepath.Dir(l.Host.AuditLog)}
	for i := range reflect.TypeFor[layout.Host]().NumField() {
		roots = append(roots, reflect.ValueOf(l.Host).Field(i).String())
	}
	s.path = anyOf(`(?:`, roots, `)(?:[^A-Za-z0-9]|$)`)
	pairs := map[string]bool{}
	for _, f := range layout.New(layout.Roots{}).Files() {
		elements := strings.Split(f.Path, "/")
		if filepath.IsAbs(f.Path) || f.Path == "" || f.Path == "." {
			continue // of the machine
		}
		for i, e := range elements {
			if len(e) > 1 && !strings.ContainsAny(e, "*<") {
				s.elements[e] = true
			}
			if i > 0 {
				pairs[elements[i-1]+"/"+e] = true
			}
		}
	}
	s.below = anyOf(`(?:^|/)(?:`, slices.Sorted(maps.Keys(pairs)), `)(?:/|$)`)
	var numbers []string
	for _, p := range layout.Ports() {
		numbers = append(numbers, strconv.Itoa(p.Number))
		s.ports[strconv.Itoa(p.Number)] = true
	}
	s.port = anyOf(`(?:^|[^0-9.])(?:`, numbers, `)(?:[^0-9]|$)`)
	s.chain = anyOf(`(?:^|\W)(?:`, append(layout.Chains(), layout.PolicyTable, layout.PortmapTable, layout.PortmapDNAT, layout.PortmapMASQ, layout.KubeletChain), `)(?:\W|$)`)
	s.device = anyOf(`(?:^|\W)(?:`, append(layout.Devices(), layout.Bridge, layout.DevicePrefix+"*", layout.PodCgroup, layout.PodSlice), `)(?:\W|$)`)
	s.name = regexp.MustCompile(`\b` + regexp.QuoteMeta(layout.Domain) + `\b|(?:^|[^A-Za-z])lite-[a-z%]|\blite:(?:agent|server|metrics)\b|\bsystem:(?:nodes?|bootstrap(?:pers)?)\b`)
	return s
}

func anyOf(before string, texts []string, after string) *regexp.Regexp {
	for i, t := range texts {
		texts[i] = regexp.QuoteMeta(t)
	}
	return regexp.MustCompile(before + strings.Join(texts, "|") + after)
}

// spelled is one literal.
type spelled struct {
	at   token.Position
	text string
	kind string
}

func (s spelled) String() string { return fmt.Sprintf("%s:%d %s", s.at.Filename, s.at.Line, s.text) }

// in finds what a file spells.
func (s *spelling) in(t *testing.T, file string) (all []spelled) {
	t.Helper()
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.walk(parsed, func(l *ast.BasicLit, kind string) { all = append(all, spelled{set.Position(l.Pos()), l.Value, kind}) })
	return all
}

// walk visits each literal that is not to be there.
func (s *spelling) walk(file *ast.File, visit func(*ast.BasicLit, string)) {
	joined := map[*ast.BasicLit]bool{} // to a path
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			n.Tag = nil
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Join" && (isNamed(f.X, "filepath") || isNamed(f.X, "path")) {
				for _, a := range n.Args {
					if l, ok := a.(*ast.BasicLit); ok {
						joined[l] = true
					}
				}
			}
		case *ast.BinaryExpr:
			if l, ok := n.Y.(*ast.BasicLit); ok && n.Op == token.ADD && isDirectory(n.X) {
				joined[l] = true
			}
		case *ast.BasicLit:
			if kind := s.kindOf(n, joined[n]); kind != "" {
				visit(n, kind)
			}
		}
		return true
	})
}

func isNamed(e ast.Expr, name string) bool {
	i, ok := e.(*ast.Ident)
	return ok && i.Name == name
}

// isDirectory reports whether an expression is called one.
func isDirectory(e ast.Expr) bool {
	name := ""
	switch e := e.(type) {
	case *ast.Ident:
		name = e.Name
	case *ast.SelectorExpr:
		name = e.Sel.Name
	}
	return strings.HasSuffix(strings.ToLower(name), "dir")
}

// kindOf says what a literal is of that it should not spell, "" if it is fine.
func (s *spelling) kindOf(l *ast.BasicLit, joined bool) string {
	switch l.Kind {
	case token.INT:
		if s.ports[l.Value] {
			return "port"
		}
		if n, err := strconv.ParseInt(l.Value, 0, 64); err == nil && n == layout.VNI {
			return "device"
		}
	case token.CHAR:
		if l.Value == strconv.QuoteRune(layout.RouteProtocol) {
			return "device"
		}
	case token.STRING:
		text, _ := strconv.Unquote(l.Value)
		for _, other := range notLites {
			text = strings.ReplaceAll(text, other, "")
		}
		switch {
		case s.path.MatchString(text), joined && s.elements[path.Clean(strings.Trim(text, "/"))], s.below.MatchString(text):
			return "path"
		case s.port.MatchString(text):
			return "port"
		case s.chain.MatchString(text):
			return "chain"
		case s.device.MatchString(text):
			return "device"
		case s.name.MatchString(text):
			return "name"
		}
	}
	return ""
}

// goFiles is those of directories, without tests.
func goFiles(t *testing.T, dirs ...string) (files []string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() && entry.Name() == "testdata" {
				return filepath.SkipDir
			}
			if path.Ext(file) == ".go" && !strings.HasSuffix(file, "_test.go") {
				files = append(files, filepath.ToSlash(file))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}
