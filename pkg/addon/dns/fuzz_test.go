package dns

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy/caddyfile"

	"lite.io/lite/tests/harness/fuzz"
)

// Whoever writes the ConfigMaps is not an administrator. Whatever a Corefile contains, neither what is served nor the
// error has anything of the machine's files or the environment, reading takes little time, and the result is a Corefile
// with the words that were meant.
func FuzzCorefile(f *testing.F) {
	const secret = "Xq7secretZk9"
	f.Setenv("LITE_FUZZ", secret)
	log.SetOutput(io.Discard) // the parser logs patterns that match nothing
	f.Cleanup(func() { log.SetOutput(os.Stderr) })
	for _, seed := range fuzz.Files(f, "testdata/*.corefile") {
		f.Add(seed, "log\n")
	}
	for _, seed := range []string{
		"import SECRET", "hosts SECRET", "forward . SECRET", "forward . 192.0.2.1 {\ntls SECRET\n}", "kubernetes cluster.local {\nkubeconfig SECRET a\n}",
		"import /etc/coredns/*/../../SECRET", "log {$LITE_FUZZ} {%LITE_FUZZ%}", "hosts {\n192.0.2.1 \"a\\\" b\" # c\n}", "import x", "import custom/*.override",
		"health {\nlameduck 5s\n}\nready\nprometheus :9153", "template IN A {\nanswer \"{{ .Name }} \\\" 60 IN A 192.0.2.1\"\n}", "log \"a\nb\" c", `log "" "\"" \"`,
	} {
		f.Add(".:53 {\n"+seed+"\n}\n", seed+"\n")
	}
	f.Add("(a) {\nimport b\nimport b\n}\n(b) {\nlog\nlog\n}\n.:53 {\nimport a\nimport a\n}\n", "")
	f.Add("a.test b.test:53, {\nlog\n}\nimport custom/x.override", "c.test {\nerrors\n}\n")
	f.Fuzz(func(t *testing.T, corefile, custom string) {
		root := t.TempDir()
		file := filepath.Join(root, "ca.key")
		if err := os.WriteFile(file, []byte(secret+" {\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		place := func(text string) string { return strings.ReplaceAll(text, "SECRET", file) }
		dir, err := store{filepath.Join(root, "dns")}.write(gather(files{corefileName: place(corefile), "custom/x.override": place(custom)}, nil))
		if err != nil {
			t.Fatal(err)
		}
		r := rewriter{dir: dir, listen: addrs("10.42.0.1"), upstream: addrs("192.0.2.1", "fe80::1%eth0")}
		var first []byte
		fuzz.AllocatesAtMost(t, 64+uint64(len(corefile)+len(custom))/64, func() { first, err = r.rewrite() })
		if strings.Contains(string(first)+fmt.Sprint(err), secret) && !strings.Contains(corefile+custom, secret) {
			t.Errorf("the secret is in what comes of it: %v\n%s", err, first)
		}
		if err != nil {
			return
		}
		parsed, err := caddyfile.Parse(corefileName, bytes.NewReader(first), append(directives(), "kubernetes"))
		if err != nil {
			t.Fatalf("what comes of it is no Corefile: %v\n%s", err, first)
		}
		var again writer
		for _, b := range parsed {
			again.block(b)
		}
		reparsed, err := caddyfile.Parse(corefileName, strings.NewReader(again.text.String()), append(directives(), "kubernetes"))
		if err != nil || described(parsed) != described(reparsed) {
			t.Errorf("%v: it is\n%s\nand when that is written, %s", err, described(parsed), described(reparsed))
		}
	})
}

// described is the words of server blocks, by line.
func described(blocks []caddyfile.ServerBlock) string {
	var out strings.Builder
	for _, b := range blocks {
		fmt.Fprintf(&out, "%q\n", b.Keys)
		var names []string
		for name := range b.Tokens {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			for i, token := range b.Tokens[name] {
				if i == 0 || newLine(b.Tokens[name][i-1], token) {
					out.WriteString("\n")
				}
				fmt.Fprintf(&out, " %q", token.Text)
			}
		}
	}
	return out.String()
}
