package dns

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"

	"lite.io/lite/pkg/golden"
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
