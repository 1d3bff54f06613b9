package document

import (
	"fmt"
	"strings"
	"testing"
)

func TestOnly(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "nothing",
		"# a\n---\n":                       "nothing",
		"null\n":                           "nothing",
		"a: 0600\n":                        "a 0600 in line 1",
		"---\n---\na: b\n...\n":            "a b in line 3",
		"a: b\n---\n# no more\n":           "a b in line 1",
		"\ufeffa: b\r\n":                   "a b in line 1",
		"a: b\n---\na: c\n":                "line 2: a second YAML document begins",
		"---\na: b\n\n---\n- c\n---\n":     "line 4: a second YAML document begins",
		"a: b\nc: *d\n":                    "line 2: a value starts with *, which is an alias in YAML, and its anchor does not exist; put it in quotes",
		"a: b: c\n":                        "mapping values are not allowed",
		"a: b\n---\na: b: c\n":             "mapping values are not allowed",
		"a:\n\tb: c\n":                     "line 2: found character that cannot start any token",
		"a: " + strings.Repeat("[", 20000): "exceeded max depth",
	} {
		n, err := Only([]byte(text))
		got := "nothing"
		if err != nil {
			got = err.Error()
		} else if n != nil {
			got = fmt.Sprintf("%s %s in line %d", n.Content[0].Value, n.Content[1].Value, n.Line)
		}
		if !strings.Contains(got, want) {
			t.Errorf("%.40q: got %s, want %s", text, got, want)
		}
	}
}
