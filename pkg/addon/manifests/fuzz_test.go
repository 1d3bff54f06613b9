package manifests

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"lite.io/lite/tests/harness/fuzz"
)

var lineOf = regexp.MustCompile(`^(document at )?line (\d+): `)

// Whatever a file of the manifests directory holds: each object that is read can be applied, is on a line of the file,
// and written as YAML is read as the same; what is wrong is named in one line that begins with the place.
func FuzzDecode(f *testing.F) {
	for _, seed := range fuzz.Files(f, "../../../manifests/*.yaml") {
		f.Add([]byte(seed))
	}
	for _, seed := range []string{
		"", "apiVersion: v1\nkind: A\nmetadata: {name: a}\n---\napiVersion: v1\nkind: A\nmetadata: {name: b}\n", "--- {apiVersion: v1, kind: A, metadata: {name: b}}\n",
		`{"apiVersion":"v1","kind":"A","metadata":{"name":"a"}} {"apiVersion":"v1","kind":"A","metadata":{"name":"b"}}`, "a: b: c", "{\"a\": 1, \"a\": 2}",
		"apiVersion: v1\nkind: AList\nitems: [{metadata: {name: a}}, {metadata: {name: b, namespace: n}}]\n", "kind: List\napiVersion: v1\nitems: [{kind: List, items: [1]}]\n",
		"apiVersion: v1\nkind: A\nmetadata: {name: a, generateName: b, uid: c}\ndata: {x: 0777, y: 1e400, z: .inf, u: 9223372036854775808, v: 2001-01-01}\n",
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]\n",
		"apiVersion: v1\nkind: A\nmetadata: {name: a}\n? [b]\n: c\n", "{" + strings.Repeat(`"a":{`, 200),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var objects []object
		var err error
		fuzz.AllocatesAtMost(t, 256+uint64(len(data))/256, func() { objects, err = decode(data) })
		lines := bytes.Count(data, []byte("\n")) + 1
		if err != nil {
			fuzz.OneLine(t, err)
			place := lineOf.FindStringSubmatch(err.Error())
			if place == nil {
				t.Fatalf("the error does not say where: %v", err)
			}
			if line, _ := strconv.Atoi(place[2]); line < 1 || line > lines {
				t.Errorf("of %d lines: %v", lines, err)
			}
			return
		}
		for _, o := range objects {
			if o.GetAPIVersion() == "" || o.GetKind() == "" || o.GetName() == "" || o.line < 1 || o.line > lines {
				t.Errorf("on line %d of %d: %v", o.line, lines, o.Object)
			}
			text, err := yaml.Marshal(o.Object)
			if err != nil {
				t.Fatalf("%v cannot be written: %v", o.Object, err)
			}
			again, err := decode(text)
			if err != nil || len(again) != 1 || !reflect.DeepEqual(again[0].Object, o.Object) {
				t.Errorf("it is\n%v\nand when that is written, %v, %v\n%s", o.Object, again, err, text)
			}
		}
	})
}

// What a record names is removed from the cluster when its file goes. So whatever somebody has made of it: what is read
// is written again as the same, and no object is named that no line names.
func FuzzRecord(f *testing.F) {
	for _, seed := range [][2]string{
		{"", ""}, {"apps/v1 Deployment default/web 0123\nv1 Namespace a\n", "v1 Secret a/b 4567\n"}, {"v1 A a/b/c u\n\n x\n", "a/b/c D e f\n"}, {"v1 A a 1\nv1 A a 2\n", "v1 A a 3\n"},
		{"/ K n u\n", "/v1 K / u\n"}, {"v1\u00a0A\u2003b c\n", "\xff \xff \xff \xff\n"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, created, adopted string) {
		read := func(created, adopted string) *record {
			return parseRecord(corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Data: map[string]string{recordCreated: created, recordAdopted: adopted}})
		}
		r := read(created, adopted)
		again := read(r.lines(false), r.lines(true))
		if !reflect.DeepEqual(r.objects, again.objects) {
			t.Errorf("%v is written as\n%s%sand read as %v", r.objects, r.lines(false), r.lines(true), again.objects)
		}
		for k := range r.objects {
			if k.kind == "" || k.name == "" && k.namespace == "" || !strings.Contains(created+adopted, k.kind) || strings.ContainsAny(fmt.Sprint(k), "\r\n") {
				t.Errorf("the record is of %q", k)
			}
		}
	})
}
