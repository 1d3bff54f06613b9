package dns

import (
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
