package document

import (
	"bytes"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"lite.io/lite/tests/harness/fuzz"
)

// Whatever a file holds, there is one document or an error of one line, nodes have lines of the file, and what refers to
// itself again and again takes no memory.
func FuzzOnly(f *testing.F) {
	for _, seed := range append(fuzz.Files(f, "../../../manifests/*.yaml"),
		"", "null\n", "---\n---\na: b\n...\n", "a: b\n---\na: c\n", "\ufeffa: b\r\n", "a: &a [*a]\n", "? {a: b}\n: c", "a: |\n  ---\n", "%YAML 1.1\n---\na: b\n",
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n",
		"a: "+strings.Repeat("[", 200), "\xff\xfea\x00:\x00 \x00b\x00",
	) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var only *yaml.Node
		var err error
		fuzz.AllocatesAtMost(t, 64+uint64(len(data))/1024, func() { only, err = Only(data) })
		if err != nil {
			fuzz.OneLine(t, err)
			return
		}
		if only == nil {
			return
		}
		if only.Kind == yaml.AliasNode || IsNull(only) {
			t.Errorf("the document is of kind %d, %s", only.Kind, only.Tag)
		}
		lines := bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + strings.Count(string(data), "\u2028") + strings.Count(string(data), "\u2029") +
			strings.Count(string(data), "\u0085") + 1
		if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
			return // UTF-16, whose lines end otherwise
		}
		withinLines(t, only, lines)
		if second, err := Only(append(bytes.Clone(data), "\n---\nx: y\n"...)); err == nil {
			t.Errorf("a second document was read over: %v", second)
		}
	})
}

func withinLines(t *testing.T, n *yaml.Node, lines int) {
	if n.Line < 1 || n.Line > lines+1 { // what is missing at the end is after it
		t.Errorf("%q is on line %d of %d", n.Value, n.Line, lines)
	}
	for _, child := range n.Content {
		withinLines(t, child, lines)
	}
}
