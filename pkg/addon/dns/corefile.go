package dns

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/coredns/caddy/caddyfile"

	"lite.io/lite/pkg/layout"
)

// rewriter makes of the Corefile that all nodes share, and that people read and
// write, the one that this node serves.
type rewriter struct {
	dir      string       // holds what elsewhere is mounted at /etc/coredns
	listen   []netip.Addr // the only addresses to listen on
	upstream []netip.Addr // instead of /etc/resolv.conf
	// looping are the server blocks, by their number, whose forwarding leads
	// back to us.
	looping map[int]bool
	guarded bool // answer only allowed clients
}

const (
	corefileName = "Corefile"
	mounted      = "/etc/coredns/"
	resolvConf   = "/etc/resolv.conf"
	// maxUpstream is how many name servers CoreDNS forwards to (1.15). More would
	// leave the node without DNS; programs of the machine ask three of them.
	maxUpstream = 15
)

// rewrite reads the Corefile and what it imports. Lines stay where they are as
// far as possible, so that errors which CoreDNS finds later name the right ones.
func (r rewriter) rewrite() ([]byte, error) {
	path := filepath.Join(r.dir, corefileName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("the ConfigMap has no key Corefile")
	}
	if err != nil {
		return nil, fmt.Errorf("read the Corefile: %w", err)
	}
	words, err := r.confine()
	if err != nil {
		return nil, err
	}
	if _, err := newExpansion(r, words).of(path, nil); err != nil {
		return nil, err
	}
	blocks, err := caddyfile.Parse(path, bytes.NewReader(text), accepted())
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(blocks, func(b caddyfile.ServerBlock) bool { return len(b.Tokens) > 0 }) {
		// Without a block, CoreDNS would serve an example of its own on every address. The
		// parser takes any text for a block, which refuses all names.
		return nil, errors.New("the Corefile has no server block; it needs one such as `.:53 { … }`")
	}
	var w writer
	for i, b := range blocks {
		if err := errors.Join(r.imported(b), r.confineBlock(b)); err != nil {
			return nil, err
		}
		r.block(i, b)
		w.block(b)
	}
	return []byte(w.text.String()), nil
}

// imported refuses an import that the parser has left. It takes the words of a line for
// those of the line before, if they come from further up in the file (1.1.4): where a
// snippet imports one that stands below it, and then another.
func (r rewriter) imported(b caddyfile.ServerBlock) error {
	for _, tokens := range b.Tokens {
		for i, t := range tokens {
			if t.Text == "import" && (i == 0 || newLine(tokens[i-1], t)) {
				return fmt.Errorf("%s:%d: import is not supported here; define snippets above those that import them", r.name(t.File), t.Line)
			}
		}
	}
	return nil
}

// block changes what is another on each node.
func (r rewriter) block(number int, b caddyfile.ServerBlock) {
	for i, key := range b.Keys {
		// Our port replaces the default one, see layout.DNSPort.
		b.Keys[i] = cmp.Or(strings.TrimSuffix(key, ":53"), ".")
	}
	bind := directive("bind")
	for _, a := range r.listen {
		bind = append(bind, word(a.String()))
	}
	b.Tokens["bind"] = bind
	for name, port := range map[string]string{"prometheus": strconv.Itoa(layout.DNSMetricsPort), "health": "8080", "ready": "8181"} {
		if tokens, ok := b.Tokens[name]; ok {
			b.Tokens[name] = r.address(tokens, port)
		}
	}
	if tokens, ok := b.Tokens["health"]; ok {
		// Its only option makes it wait before it stops, and lite with it. No load balancer
		// redirects clients meanwhile.
		end := slices.IndexFunc(tokens, func(t caddyfile.Token) bool { return t.Text == "{" })
		if end >= 0 {
			b.Tokens["health"] = tokens[:end]
		}
	}
	if tokens, ok := b.Tokens["kubernetes"]; ok {
		delete(b.Tokens, "kubernetes")
		for _, stanza := range stanzas(tokens) {
			stanza[0].Text = kubernetesDirective
			b.Tokens[kubernetesDirective] = append(b.Tokens[kubernetesDirective], stanza...)
		}
	}
	var forward []caddyfile.Token
	for _, stanza := range stanzas(b.Tokens["forward"]) {
		forward = append(forward, r.forward(stanza)...)
	}
	if len(forward) == 0 || r.looping[number] {
		delete(b.Tokens, "forward")
	} else {
		b.Tokens["forward"] = forward
	}
	b.Tokens[refuseDirective] = directive(refuseDirective)
	if _, ok := b.Tokens["prometheus"]; ok {
		b.Tokens[seriesDirective] = directive(seriesDirective)
	}
	if r.guarded {
		b.Tokens[guardDirective] = directive(guardDirective)
	}
}

// address leads a directive that listens on a port of all addresses, or of
// loopback by default, to ours.
func (r rewriter) address(tokens []caddyfile.Token, port string) []caddyfile.Token {
	ours := r.listen[0].String()
	at := 1
	if len(tokens) == 1 || newLine(tokens[0], tokens[1]) || tokens[1].Text == "{" {
		t := tokens[0]
		t.Text = net.JoinHostPort(ours, port)
		return slices.Insert(slices.Clone(tokens), at, t)
	}
	host, port, err := net.SplitHostPort(tokens[at].Text)
	if err == nil && (host == "" || host == "0.0.0.0" || host == "::") {
		tokens[at].Text = net.JoinHostPort(ours, port)
	}
	return tokens
}

// forward replaces the machine's file of name servers with these. A forward directive
// without any is left out.
func (r rewriter) forward(stanza []caddyfile.Token) []caddyfile.Token {
	var out []caddyfile.Token
	servers, options := 0, false
	for i, t := range stanza {
		options = options || t.Text == "{"
		if i < 2 || options { // the directive and what it is for
			out = append(out, t)
			continue
		}
		if t.Text != resolvConf {
			out = append(out, t)
			servers++
			continue
		}
		for _, a := range r.upstream[:min(len(r.upstream), maxUpstream)] {
			t.Text = a.String()
			out = append(out, t)
			servers++
		}
	}
	if servers == 0 && slices.ContainsFunc(stanza, func(t caddyfile.Token) bool { return t.Text == resolvConf }) {
		return nil
	}
	return out
}

func directive(name string) []caddyfile.Token { return []caddyfile.Token{word(name)} }

// word is a token that stands in no file.
func word(text string) caddyfile.Token { return caddyfile.Token{Text: text} }

// newLine reports whether b begins a line, as CoreDNS sees it.
func newLine(a, b caddyfile.Token) bool {
	return a.File != b.File || a.Line+strings.Count(a.Text, "\n") != b.Line
}

// stanzas takes apart what the parser has gathered of a directive that is in a
// server block several times.
func stanzas(tokens []caddyfile.Token) [][]caddyfile.Token {
	var all [][]caddyfile.Token
	depth := 0
	for i, t := range tokens {
		if i == 0 || depth == 0 && newLine(tokens[i-1], t) {
			all = append(all, nil)
		}
		switch t.Text {
		case "{":
			depth++
		case "}":
			depth--
		}
		all[len(all)-1] = append(all[len(all)-1], t)
	}
	return all
}

// writer writes server blocks as a Corefile.
type writer struct {
	text strings.Builder
	line int // that it is on, from 0
}

// block writes the directives in the order of their lines, and then those without a line,
// which are ours. CoreDNS orders them itself; only the order of those with the same name
// matters.
func (w *writer) block(b caddyfile.ServerBlock) {
	names := slices.SortedFunc(maps.Keys(b.Tokens), func(x, y string) int {
		a, b := b.Tokens[x][0], b.Tokens[y][0]
		if (a.Line == 0) != (b.Line == 0) {
			return b.Line - a.Line
		}
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, strings.Compare(x, y))
	})
	w.advance(b.Tokens[names[0]][0].Line - 1)
	for _, key := range b.Keys {
		w.word(key)
	}
	w.word("{")
	for _, name := range names {
		for i, t := range b.Tokens[name] {
			if i == 0 || newLine(b.Tokens[name][i-1], t) {
				w.newLine(t)
			}
			w.word(t.Text)
		}
	}
	w.end()
	w.word("}")
	w.end()
}

// newLine begins a line for t: the one that t stands on, unless that has passed.
func (w *writer) newLine(t caddyfile.Token) {
	w.end()
	w.advance(t.Line)
}

// advance moves to a line, from 1.
func (w *writer) advance(line int) {
	for w.line < line-1 {
		w.end()
	}
}

func (w *writer) end() {
	w.text.WriteByte('\n')
	w.line++
}

func (w *writer) word(text string) {
	w.text.WriteString(quote(text))
	w.text.WriteByte(' ')
	w.line += strings.Count(text, "\n")
}

// quote undoes what the lexer of the Corefile does.
func quote(text string) string {
	if text != "" && !strings.ContainsAny(text, " \t\r\n#") && text[0] != '"' {
		return text
	}
	return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"`
}
