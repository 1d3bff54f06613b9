package manifests

import (
	"fmt"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	const a = "apiVersion: v1\nkind: A\nmetadata: {name: a}\n"
	const b = "apiVersion: v1\nkind: A\nmetadata: {name: b}\n"
	const json = `{"apiVersion":"v1","kind":"A","metadata":{"name":"a"}}`
	for name, test := range map[string]struct {
		text string
		want string // line and name of the objects
		err  string
	}{
		"nothing":               {"", "", ""},
		"comments":              {"# only\n# words\n", "", ""},
		"one":                   {a, "1:a", ""},
		"two":                   {a + "---\n" + b, "1:a 5:b", ""},
		"empty documents":       {"---\n---\n# c\n---\n" + a + "---\n", "5:a", ""},
		"null":                  {"null\n---\n{}\n---\n" + a, "5:a", ""},
		"comments before":       {"# why\n#\n" + a, "3:a", ""},
		"behind the dashes":     {"--- # first\n" + a + "--- {apiVersion: v1, kind: A, metadata: {name: b}}\n", "2:a 5:b", ""},
		"a directive":           {"%YAML 1.1\n---\n" + a, "3:a", ""},
		"dashes in a text":      {a + "data: |\n  ---\n  x\n----: 1\n", "1:a", ""},
		"no line end":           {strings.TrimSpace(a + "---\n" + b), "1:a 5:b", ""},
		"Windows":               {"\uFEFF" + strings.ReplaceAll(a+"---\n"+b, "\n", "\r\n"), "1:a 5:b", ""},
		"JSON":                  {json, "1:a", ""},
		"several of JSON":       {json + "\n" + json + " " + json, "1:a 2:a 2:a", ""},
		"YAML like JSON":        {"{apiVersion: v1, kind: A, metadata: {name: a}}", "1:a", ""},
		"JSON with tabs":        {strings.ReplaceAll(json, ",", ",\n\t"), "1:a", ""},
		"a list":                {"apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(a), "\n", "\n  ") + "\n- {apiVersion: v1, kind: List, items: []}\n", "1:a", ""},
		"a list of a kind":      {"apiVersion: v1\nkind: AList\nitems: [{metadata: {name: a}}, {metadata: {name: b}}]\n", "1:a 1:b", ""},
		"named like a list":     {"apiVersion: v1\nkind: WaitingList\nmetadata: {name: a}\n", "1:a", ""},
		"larger than a buffer":  {a + "data: " + strings.Repeat("x", 100_000) + "\n", "1:a", ""},
		"not YAML":              {"a: b: c", "", "document at line 1: yaml: mapping values are not allowed in this context"},
		"not YAML, further on":  {a + "---\n# two\nkind: A\n  b: c\n", "", "document at line 6: yaml: line 7: mapping values"},
		"a key twice":           {a + "---\nb: 1\nb: 2\n", "", `document at line 5: yaml: unmarshal errors: line 6: key "b" already set in map`},
		"a key twice in JSON":   {`{"a": 1, "a": 2}`, "", `key "a" already set in map`},
		"binary":                {"\x7fELF\x02\x01", "", "control characters are not allowed"},
		"words":                 {"only words", "", "document at line 1: not an object"},
		"an array":              {"[1, 2]", "", "document at line 1: not an object"},
		"half of JSON":          {json[:20], "", "document at line 1: yaml: "},
		"without a kind":        {a + "---\napiVersion: v1\nmetadata: {name: a}\n", "", "line 5: kind is missing"},
		"without a version":     {"kind: A\nmetadata: {name: a}\n", "", "line 1: apiVersion is missing"},
		"a version of none":     {"apiVersion: a/b/c\nkind: A\nmetadata: {name: a}\n", "", `line 1: apiVersion "a/b/c" is not valid`},
		"an alias of nothing":   {a + "---\n" + a + "stringData: {password: *hunter2}\n", "", "document at line 5: line 8: a value starts with *, which is an alias in YAML, and its anchor does not exist; put it in quotes"},
		"a kind of none":        {"apiVersion: v1\nkind: \"A\\nB\"\n", "", `line 1: kind "A\nB" is not valid: it must be one word`},
		"a list of none":        {"apiVersion: v1\nkind: \"A\\nList\"\nitems: [1]\n", "", "line 1: item 1 of the List is not an object"},
		"without metadata":      {"apiVersion: v1\nkind: A\nmetadata:\n", "", "line 1: metadata of the A is missing"},
		"without a name":        {"apiVersion: v1\nkind: A\nmetadata: {name: }\n", "", "line 1: metadata.name of the A is missing"},
		"a name that is none":   {"apiVersion: v1\nkind: A\nmetadata: {name: yes}\n", "", "line 1: name or namespace of the A is not a string"},
		"a namespace of none":   {"apiVersion: v1\nkind: A\nmetadata: {name: a, namespace: n}\n", "", "line 1: name or namespace of the A is not a string"},
		"a name to be made":     {"apiVersion: v1\nkind: A\nmetadata: {generateName: a-}\n", "", "line 1: A with generateName: use name"},
		"a list with a mistake": {"apiVersion: v1\nkind: List\nitems: [1]\n", "", "line 1: item 1 of the List is not an object"},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := decode([]byte(test.text))
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Fatalf("got %v, want %q", err, test.err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %q", err)
			}
			var names []string
			for _, o := range objects {
				names = append(names, fmt.Sprintf("%d:%s", o.line, o.GetName()))
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestDecodeLeavesOutWhatTheClusterSets(t *testing.T) {
	objects, err := decode([]byte(`{"apiVersion":"v1","kind":"A","metadata":{"name":"a","generateName":"b","uid":"1","resourceVersion":"1",
		"generation":1,"creationTimestamp":null,"selfLink":"/","managedFields":[],"labels":{"l":"1"},"annotations":{"n":"1"},"finalizers":[]},"count":3}`))
	if err != nil {
		t.Fatal(err)
	}
	metadata := objects[0].Object["metadata"].(map[string]any)
	if len(metadata) != 4 || metadata["labels"] == nil || metadata["annotations"] == nil || metadata["finalizers"] == nil || objects[0].Object["count"] != int64(3) {
		t.Errorf("got %v", objects[0].Object)
	}
}
