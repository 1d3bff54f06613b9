package dns

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"

	"lite.io/lite/tests/golden"
)

func addrs(texts ...string) (all []netip.Addr) {
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

// rewritten writes files where lite would and rewrites the Corefile.
func rewritten(t *testing.T, f files, r rewriter) (string, error) {
	t.Helper()
	s := store{t.TempDir()}
	dir, err := s.write(gather(f, nil))
	if err != nil {
		t.Fatal(err)
	}
	r.dir = dir
	got, err := r.rewrite()
	text := strings.ReplaceAll(string(got), dir, "DIR")
	if err != nil {
		return text, err
	}
	return text, nil
}

// Corefiles that people bring along are served as they mean them.
func TestRewrite(t *testing.T) {
	usual := rewriter{listen: addrs("10.42.0.1"), upstream: addrs("192.0.2.1", "fe80::1%eth0")}
	for name, c := range map[string]struct {
		file   string
		custom map[string]string
		with   func(*rewriter)
	}{
		"default":     {file: "default"},
		"k3s":         {file: "k3s", custom: map[string]string{"NodeHosts": "192.0.2.9 node\n"}},
		"kubeadm":     {file: "kubeadm"},
		"many-blocks": {file: "many-blocks"},
		"dual-stack":  {file: "kubeadm", with: func(r *rewriter) { r.listen = addrs("10.42.0.1", "fd00:42::1") }},
		"no-upstream": {file: "kubeadm", with: func(r *rewriter) { r.upstream = nil }},
		"looping":     {file: "many-blocks", with: func(r *rewriter) { r.looping = map[int]bool{0: true} }},
		"no-cni":      {file: "kubeadm", with: func(r *rewriter) { r.guarded = true }},
		"imports": {file: "default", custom: map[string]string{
			"custom/log.override":  "log\n",
			"custom/test.override": "hosts {\n  192.0.2.1 a.test # comment\n  fallthrough\n}\n",
			"custom/test.server":   "example.test:53 {\n  forward . 192.0.2.5\n}\n",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile("testdata/" + c.file + ".corefile")
			if err != nil {
				t.Fatal(err)
			}
			f := files{corefileName: string(text)}
			for name, content := range c.custom {
				f[name] = content
			}
			r := usual
			if c.with != nil {
				c.with(&r)
			}
			got, err := rewritten(t, f, r)
			if err != nil {
				t.Fatal(err)
			}
			golden.Check(t, name, got)
		})
	}
}

// A few kilobytes of a ConfigMap became more than the memory of the machine: the parser
// puts what is imported in its place, as often as it is.
func TestCorefileThatMultiplies(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.ReplaceAll(format, "%", fmt.Sprint(i)))
		}
		return b.String()
	}
	long, chain := many(2000, "log\n"), ""
	for i := range 16 {
		chain += strings.ReplaceAll(fmt.Sprintf("(s%d) {\nNEXT\nNEXT\n}\n", i), "NEXT", fmt.Sprintf("import s%d", i+1))
	}
	for name, f := range map[string]files{
		"a snippet, often":      {corefileName: "(a) {\n" + long + "}\n.:53 {\n" + many(500, "import a\n") + "}\n"},
		"a file, often":         {corefileName: ".:53 {\n" + many(500, "import custom/x\n") + "}\n", "custom/x": long},
		"snippets of snippets":  {corefileName: chain + "(s16) {\nlog\n}\n.:53 {\nimport s0\n}\n"},
		"files of files":        {corefileName: ".:53 {\nimport custom/0\nimport custom/0\n}\n", "custom/0": many(8, "import 1\n"), "custom/1": many(8, "import 2\n"), "custom/2": many(8, "import 3\n"), "custom/3": long},
		"imports of nothing":    {corefileName: ".:53 {\n" + many(1001, "import custom/*.none\n") + "}\n"},
		"words without imports": {corefileName: ".:53 {\nimport custom/*.override\n}\n", "custom/x.override": many(maxWords, "log\n")},
	} {
		_, err := rewritten(t, f, rewriter{listen: addrs("10.42.0.1")})
		if err == nil || !strings.Contains(err.Error(), "too many imports") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := rewritten(t, files{corefileName: "(a) {\nimport b\n}\n(b) {\nimport a\n}\n.:53 {\nimport a\n}\n"}, rewriter{listen: addrs("10.42.0.1")})
	if err == nil || !strings.Contains(err.Error(), "(b): imports itself: (b) → (a) → (b)") {
		t.Errorf("snippets of each other: %v", err)
	}
	_, err = rewritten(t, files{corefileName: "(a) {\nimport b\nimport b\n}\n(b) {\nlog\n}\n.:53 {\nimport a\n}\n"}, rewriter{listen: addrs("10.42.0.1")})
	if err == nil || !strings.Contains(err.Error(), "Corefile:3: import is not supported here") {
		t.Errorf("a snippet above the one that it imports: %v", err)
	}
	usual := files{corefileName: "(a) {\nerrors\nlog\n}\n" + many(300, "z%.test:53 {\nimport a\n}\n")}
	if _, err := rewritten(t, usual, rewriter{listen: addrs("10.42.0.1")}); err != nil {
		t.Errorf("three hundred zones: %v", err)
	}
}

// A file that imports itself is broken: to follow it takes minutes, in which no
// other change is served and lite cannot stop.
func TestImportCycle(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string // "" if there is none
	}{
		"itself":      {map[string]string{"custom/a.override": "log\nimport *.override\n"}, "custom/a.override: imports itself: custom/a.override → custom/a.override"},
		"by its path": {map[string]string{"custom/a.override": "import \"/etc/coredns/custom/a.override\""}, "custom/a.override: imports itself: custom/a.override → custom/a.override"},
		"by another":  {map[string]string{"custom/a.override": "import b", "custom/b": "import a.override"}, "custom/a.override: imports itself: custom/a.override → custom/b → custom/a.override"},
		"in a block":  {map[string]string{"custom/a.server": "a.test { import ../Corefile\n}"}, "Corefile: imports itself: Corefile → custom/a.server → Corefile"},
		"twice":       {map[string]string{"custom/a.override": "import b\nimport b # import a.override", "custom/b": "log"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := files{corefileName: ".:53 {\n import /etc/coredns/custom/*.override\n}\nimport /etc/coredns/custom/*.server\n"}
			maps.Copy(f, c.files)
			_, err := rewritten(t, f, rewriter{listen: addrs("10.42.0.1")})
			if got := fmt.Sprint(err); c.want == "" && err != nil || c.want != "" && got != c.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

// What is added may name its own files, as elsewhere by /etc/coredns/custom/.
func TestFilesOfAdditions(t *testing.T) {
	got, err := rewritten(t, files{
		corefileName:        ".:53 {\n import /etc/coredns/custom/*.override\n}\n",
		"custom/a.override": "hosts /etc/coredns/custom/my.hosts\nimport /etc/coredns/custom/more\n",
		"custom/my.hosts":   "192.0.2.1 a.test",
		"custom/more":       "log",
	}, rewriter{listen: addrs("10.42.0.1")})
	if err != nil || !strings.Contains(got, "hosts DIR/custom/my.hosts") || !strings.Contains(got, "log") {
		t.Errorf("%v:\n%s", err, got)
	}
}

func TestBlocks(t *testing.T) {
	got, err := rewritten(t, files{corefileName: ":53 {\n kubernetes a.test\n kubernetes b.test\n}\n"}, rewriter{listen: addrs("10.42.0.1")})
	if err != nil || !strings.HasPrefix(got, ". {") || strings.Count(got, "\n"+kubernetesDirective) != 2 {
		t.Errorf("%v:\n%s", err, got)
	}
}

// A machine may have more name servers than CoreDNS takes.
func TestManyNameServers(t *testing.T) {
	r := rewriter{listen: addrs("10.42.0.1")}
	for range 20 {
		r.upstream = append(r.upstream, addrs("192.0.2.1")...)
	}
	got, err := rewritten(t, files{corefileName: ".:53 {\n forward . /etc/resolv.conf\n}\n"}, r)
	if n := strings.Count(got, "192.0.2.1"); err != nil || n != 15 {
		t.Errorf("%d name servers, %v", n, err)
	}
}

// What is no Corefile at all is not served, though the parser takes it for names of
// zones.
func TestNoCorefile(t *testing.T) {
	for content, want := range map[string]string{
		"":               "no server block",
		" \n":            "no server block",
		"hello world\n":  "no server block",
		"\xff\xfe\x00":   "no server block",
		".:53":           "no server block",
		".:53 {\n}\n":    "no server block",
		".:53 {\nlog\n}": "<nil>",
	} {
		_, err := rewritten(t, files{corefileName: content}, rewriter{listen: addrs("10.42.0.1")})
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q: %v", content, err)
		}
	}
	if _, err := rewritten(t, files{"corefile": "x"}, rewriter{}); err == nil || err.Error() != "the ConfigMap has no key Corefile" {
		t.Errorf("without one: %v", err)
	}
}
