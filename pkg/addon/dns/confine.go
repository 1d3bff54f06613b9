package dns

import (
	"cmp"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coredns/caddy/caddyfile"
)

// Users who may write the ConfigMaps are not administrators of the machine. But CoreDNS
// opens what a Corefile names as root, in the process that has the cluster's keys, and
// quotes what it cannot parse. So it gets nothing that leads to a file of the machine, a
// socket or the environment: only keys of the ConfigMaps.

// confine checks all files of the ConfigMaps, before the parser reads them, and returns
// their words.
func (r rewriter) confine() (map[string][]caddyfile.Token, error) {
	words := map[string][]caddyfile.Token{}
	return words, filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.Open(path)
		if err != nil {
			return err
		}
		defer text.Close()
		// The parser's own lexer, which follows no import.
		tokens := caddyfile.NewDispenser(path, text)
		for tokens.Next() {
			words[path] = append(words[path], caddyfile.Token{File: path, Line: tokens.Line(), Text: tokens.Val()})
		}
		tokens = caddyfile.NewDispenserTokens(path, words[path])
		for tokens.Next() {
			if err := r.confineToken(path, &tokens); err != nil {
				return fmt.Errorf("%s:%d: %w", r.name(path), tokens.Line(), err)
			}
		}
		return nil
	})
}

func (r rewriter) confineToken(path string, tokens *caddyfile.Dispenser) error {
	if err := noVariable(tokens.Val()); err != nil {
		return err
	}
	if tokens.Val() != "import" || !tokens.NextArg() {
		return nil
	}
	pattern := tokens.Val()
	if err := noVariable(pattern); err != nil {
		return err
	}
	full := pattern
	if !filepath.IsAbs(pattern) { // or a snippet
		full = filepath.Join(filepath.Dir(path), pattern)
	}
	if r.within(full) {
		return nil
	}
	return outside("import", pattern)
}

// noVariable refuses what the parser would replace from the environment.
func noVariable(word string) error {
	if strings.Contains(word, "{$") || strings.Contains(word, "{%") {
		return fmt.Errorf("a Corefile may not use environment variables, such as %s; write the value itself", word)
	}
	return nil
}

// within reports whether a path leads to what the ConfigMaps have. There are no links.
func (r rewriter) within(path string) bool {
	return filepath.Clean(path) == path && strings.HasPrefix(path, r.dir+"/")
}

func outside(directive, path string) error {
	return fmt.Errorf("%s may not open %s: the cluster's DNS reads keys of the ConfigMaps coredns and coredns-custom, as %s<key> and %scustom/<key>, and no other files", directive, path, mounted, mounted)
}

// name is what people know a file as. The parser names only those that are imported.
func (r rewriter) name(path string) string {
	return cmp.Or(strings.TrimPrefix(path, r.dir+"/"), corefileName)
}

// confineBlock checks what the directives of a server block open. Those that are not listed
// here open nothing (CoreDNS 1.15).
func (r rewriter) confineBlock(b caddyfile.ServerBlock) error {
	for directive, opens := range map[string]func(lines [][]caddyfile.Token) []caddyfile.Token{
		"forward": forwardOpens, "hosts": hostsOpens, "kubernetes": kubernetesOpens, "loadbalance": loadbalanceOpens,
		"prometheus": prometheusOpens,
	} {
		for _, stanza := range stanzas(b.Tokens[directive]) {
			for _, t := range opens(lines(stanza)) {
				if !r.within(t.Text) {
					return fmt.Errorf("%s:%d: %w", r.name(t.File), t.Line, outside(directive, t.Text))
				}
			}
		}
	}
	return nil
}

// lines takes apart a stanza, without its braces.
func lines(stanza []caddyfile.Token) (all [][]caddyfile.Token) {
	for i, t := range stanza {
		if i == 0 || newLine(stanza[i-1], t) {
			all = append(all, nil)
		}
		if t.Text != "{" && t.Text != "}" {
			all[len(all)-1] = append(all[len(all)-1], t)
		}
	}
	return slices.DeleteFunc(all, func(line []caddyfile.Token) bool { return len(line) == 0 })
}

// options is the words after those options of a stanza that have one of the names.
func options(lines [][]caddyfile.Token, names ...string) (words []caddyfile.Token) {
	for _, line := range lines[1:] {
		if slices.Contains(names, line[0].Text) {
			words = append(words, line[1:]...)
		}
	}
	return words
}

// forwardOpens: what is no address is taken for a file of name servers, or a socket.
func forwardOpens(lines [][]caddyfile.Token) []caddyfile.Token {
	opened := options(lines, "tls")
	for _, t := range lines[0][min(len(lines[0]), 2):] {
		if t.Text != resolvConf && !isServer(t.Text) {
			opened = append(opened, t)
		}
	}
	return opened
}

// isServer reports whether CoreDNS takes a word for the address of a name server.
func isServer(text string) bool {
	if scheme, rest, ok := strings.Cut(text, "://"); ok && scheme != "unix" {
		text = rest
	}
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	_, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return err == nil
}

// hostsOpens: the first word is a file. Without one it is /etc/hosts, which is not secret.
func hostsOpens(lines [][]caddyfile.Token) []caddyfile.Token {
	if len(lines[0]) < 2 || lines[0][1].Text == "/etc/hosts" {
		return nil
	}
	return lines[0][1:2]
}

func kubernetesOpens(lines [][]caddyfile.Token) []caddyfile.Token {
	opened := options(lines, "tls")
	if kubeconfig := options(lines, "kubeconfig"); len(kubeconfig) > 0 {
		opened = append(opened, kubeconfig[0]) // a context may follow
	}
	return opened
}

func loadbalanceOpens(lines [][]caddyfile.Token) []caddyfile.Token {
	if len(lines[0]) > 2 && lines[0][1].Text == "weighted" {
		return lines[0][2:3]
	}
	return nil
}

// prometheusOpens: the file names others in turn.
func prometheusOpens(lines [][]caddyfile.Token) []caddyfile.Token {
	opened := options(lines, "tls")
	for i := range opened {
		opened[i].Text = strings.TrimPrefix(opened[i].Text, "/") + ", which contains names of other files"
	}
	return opened
}
