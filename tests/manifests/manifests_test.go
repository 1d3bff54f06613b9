package manifests

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"lite.io/lite/tests/harness/cluster"
)

// TestDirectory has what one running server does with its directory.
func TestDirectory(t *testing.T) {
	t.Parallel()
	b := bed{cluster.New(t).Server()}
	for _, test := range []struct {
		name string
		run  func(*testing.T, bed)
	}{
		{"changes", testChanges},
		{"forms", testForms},
		{"order", testOrder},
		{"typo", testTypo},
		{"refused", testRefused},
		{"halves", testHalves},
		{"skip", testSkip},
		{"moves", testMoves},
		{"links", testLinks},
		{"trust", testTrust},
		{"adopted", testAdopted},
		{"large", testLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Cleanup(func() { b.clear(t) })
			test.run(t, b)
		})
	}
	if note := b.note(t); note != "" {
		t.Errorf("all files are removed, and lite status says %q", note)
	}
	left, err := b.Client(t).CoreV1().ConfigMaps("kube-system").List(t.Context(), metav1.ListOptions{LabelSelector: "lite.io/record=manifest"})
	if err != nil || len(left.Items) > 0 {
		t.Errorf("records are left: %v, %v", left, err)
	}
}

// testChanges: a file is applied when it appears and when it changes; what is
// dropped from it, and what a removed file had, is pruned; nothing else is.
func testChanges(t *testing.T, b bed) {
	ns := b.space(t)
	b.put(t, "app.yaml", settings(ns, "one", "1"), settings(ns, "two", "2"))
	b.put(t, "other.yaml", settings(ns, "other", "1"))
	b.has(t, ns, "one", "1")
	b.has(t, ns, "two", "2")
	b.has(t, ns, "other", "1")
	b.says(t, "2 files applied")
	b.told(t, "ManifestApplied", "app.yaml", "applied 2 objects")

	one, err := b.configMap(t, ns, "one")
	if err != nil {
		t.Fatal(err)
	}
	if manager := one.ManagedFields[0]; len(one.ManagedFields) != 1 || manager.Manager != "lite/app.yaml" || manager.Operation != metav1.ManagedFieldsOperationApply {
		t.Errorf("managed fields: %+v", one.ManagedFields)
	}

	// Fields and objects of others are left alone.
	b.Kubectl(t, "create", "configmap", "theirs", "-n", ns)
	b.Kubectl(t, "label", "configmap", "one", "-n", ns, "theirs=yes")
	b.put(t, "app.yaml", settings(ns, "one", "changed"))
	b.has(t, ns, "one", "changed")
	b.lacks(t, ns, "two")
	if one, err = b.configMap(t, ns, "one"); err != nil || one.Labels["theirs"] != "yes" {
		t.Errorf("the label of another: %v, %v", one.Labels, err)
	}

	b.put(t, "deep/er/app.yaml", settings(ns, "deep", "1"))
	b.has(t, ns, "deep", "1")
	b.put(t, "deep/er/app.yaml", settings(ns, "deep", "2"))
	b.has(t, ns, "deep", "2")
	b.move(t, "deep", "flat")
	b.put(t, "flat/er/app.yaml", settings(ns, "deep", "3"))
	b.has(t, ns, "deep", "3")

	b.take(t, "app.yaml")
	b.take(t, "flat")
	b.lacks(t, ns, "one")
	b.lacks(t, ns, "deep")
	b.hasNow(t, ns, "other", "1")
	if _, err := b.configMap(t, ns, "theirs"); err != nil {
		t.Error(err)
	}
	// What somebody deletes comes back when the file is touched.
	b.Kubectl(t, "delete", "configmap", "other", "-n", ns)
	b.Output(t, "touch", dir+"/other.yaml")
	b.has(t, ns, "other", "1")
	b.take(t, "other.yaml")
	b.lacks(t, ns, "other")
	b.quiet(t)
}

// testForms has the forms that a file can have.
func testForms(t *testing.T, b bed) {
	ns := b.space(t)
	json := func(name string) string {
		return fmt.Sprintf("{\n\t\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\",\n\t\"metadata\": {\"name\": %q, \"namespace\": %q},\n\t\"data\": {\"value\": \"1\"}\n}\n", name, ns)
	}
	b.put(t, "a.json", json("json-a")+json("json-b"))
	b.put(t, "b.yml", "# only words\n", settings(ns, "yml", "1"), "", "# the end\n")
	b.put(t, "c.yaml", "apiVersion: v1\nkind: List\nitems:\n- "+strings.ReplaceAll(strings.TrimSpace(settings(ns, "list-a", "1")), "\n", "\n  ")+
		"\n- apiVersion: v1\n  kind: ConfigMapList\n  items:\n  - metadata: {name: list-b, namespace: "+ns+"}\n    data: {value: \"1\"}\n")
	b.put(t, "d.yaml", strings.ReplaceAll("\uFEFF---\n"+settings(ns, "windows", "1"), "\n", "\r\n"))
	exported := b.Kubectl(t, "get", "configmap", "kube-root-ca.crt", "-n", ns, "-o", "yaml", "--show-managed-fields")
	b.put(t, "exported.yaml", strings.Replace(exported, "kube-root-ca.crt", "exported", 1))
	b.put(t, "no-namespace.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: no-namespace}\ndata: {value: \"1\"}\n")
	for _, ignored := range []string{".hidden.yaml", "backup.yaml~", "notes.txt", ".git/x.yaml"} {
		b.put(t, ignored, "this is: no: manifest")
	}
	for _, name := range []string{"json-a", "json-b", "yml", "list-a", "list-b", "windows"} {
		b.has(t, ns, name, "1")
	}
	b.has(t, ns, "exported", "")
	b.has(t, "default", "no-namespace", "1")
	b.says(t, "6 files applied")
	for _, f := range []string{"a.json", "b.yml", "c.yaml", "d.yaml", "exported.yaml", "no-namespace.yaml", ".hidden.yaml", "backup.yaml~", "notes.txt", ".git"} {
		b.take(t, f)
	}
	b.lacks(t, ns, "list-b")
	b.lacks(t, "default", "no-namespace")
	b.quiet(t)
}

// boats is a definition, its object and the namespace of that, the wrong way
// round; and the kinds may be in another file.
const (
	boat       = "apiVersion: test.lite.io/v1\nkind: Boat\nmetadata: {name: boat, namespace: harbour}\nspec: {sails: 3}\n"
	definition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.test.lite.io}
spec:
  group: test.lite.io
  names: {kind: Boat, plural: boats}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {sails: {type: integer}}}
`
	harbour = "apiVersion: v1\nkind: Namespace\nmetadata: {name: harbour}\n"
)

var boats = schema.GroupVersionResource{Group: "test.lite.io", Version: "v1", Resource: "boats"}

func testOrder(t *testing.T, b bed) {
	b.put(t, "fleet.yaml", boat, definition, harbour)
	cluster.Eventually(t, soon, func() error {
		_, err := b.object(t, boats, "harbour", "boat")
		return err
	})
	b.says(t, "1 file applied")
	if events, err := b.events(t, "ManifestFailed", "fleet.yaml"); err != nil || len(events) > 0 {
		t.Errorf("a right file is told of as %q, %v", events, err)
	}
	// An object that the definition does not fit is a typo.
	b.put(t, "typo.yaml", strings.NewReplacer("sails", "sials", "boat,", "other,").Replace(boat))
	b.says(t, "1 of 2 files applied", "typo.yaml: line 1, Boat harbour/other: ", "sials")
	b.take(t, "typo.yaml")
	b.take(t, "fleet.yaml")
	cluster.Eventually(t, soon, func() error {
		_, err := b.object(t, schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "", "harbour")
		return gone(err)
	})

	// The definition comes from another file, and later.
	b.put(t, "a-boat.yaml", boat)
	b.put(t, "b-harbour.yaml", harbour)
	b.told(t, "ManifestFailed", "a-boat.yaml", "the cluster has no kind Boat in test.lite.io/v1")
	b.says(t, "1 of 2 files applied")
	b.put(t, "z/definition.yaml", definition)
	b.told(t, "ManifestApplied", "a-boat.yaml", "applied 1 objects")
	b.says(t, "3 files applied")

	// And from somebody else.
	b.take(t, "z")
	b.put(t, "z-after", "")
	cluster.Eventually(t, soon, func() error {
		_, err := b.object(t, boats, "harbour", "boat")
		return gone(err)
	})
	b.Output(t, "touch", dir+"/a-boat.yaml")
	b.says(t, "a-boat.yaml: line 1, Boat harbour/boat: the cluster has no kind Boat")
	b.KubectlStdin(t, definition, "apply", "-f", "-")
	b.says(t, "2 files applied")
	b.take(t, "a-boat.yaml")
	b.take(t, "b-harbour.yaml")
	b.take(t, "z-after")
	b.quiet(t)
	b.Kubectl(t, "delete", "crd", "boats.test.lite.io")
}

// testTypo: a file that cannot be read is told of, changes nothing of what it
// had, and keeps no other back.
func testTypo(t *testing.T, b bed) {
	ns := b.space(t)
	b.put(t, "a.yaml", settings(ns, "a", "1"), settings(ns, "b", "1"))
	b.has(t, ns, "b", "1")
	for _, wrong := range []struct{ content, told string }{
		{settings(ns, "a", "2") + "---\nkind: ConfigMap\n  metadata:\n", "line 7: mapping values are not allowed"},
		{settings(ns, "a", "2") + "---\n" + strings.Replace(settings(ns, "b", "2"), "kind", "knd", 1), "line 6: kind is missing"},
		{strings.Replace(settings(ns, "a", "2"), "name: a", "generateName: a-", 1), "generateName"},
		{"data: {a: 1, a: 2}\n", `key "a" already set in map`},
		{"\x7fELF\x02\x01\x01\x00\x00", "line 1: yaml: control characters are not allowed"},
		{"just words\n", "line 1: not an object"},
	} {
		b.put(t, "a.yaml", wrong.content)
		b.told(t, "ManifestFailed", "a.yaml", wrong.told)
		b.says(t, "0 of 1 file applied", "a.yaml: ", wrong.told)
	}
	b.put(t, "b.yaml", settings(ns, "other", "1"))
	b.has(t, ns, "other", "1")
	b.hasNow(t, ns, "a", "1")
	b.hasNow(t, ns, "b", "1")
	// Somebody who looks for it finds the event at the file's record.
	record := b.Kubectl(t, "get", "configmap", "-n", "kube-system", "-l", "lite.io/record=manifest", "-o", `jsonpath={.items[?(@.metadata.annotations.lite\.io/file=="a.yaml")].metadata.name}`)
	if out := b.Kubectl(t, "describe", "configmap", "-n", "kube-system", record); !strings.Contains(out, "ManifestFailed") {
		t.Errorf("no event at the record %s:\n%s", record, out)
	}

	b.put(t, "a.yaml", settings(ns, "a", "3"))
	b.has(t, ns, "a", "3")
	b.lacks(t, ns, "b")
	b.told(t, "ManifestApplied", "a.yaml", "applied 1 objects, removed 1")
	b.says(t, "2 files applied")
	b.take(t, "a.yaml")
	b.take(t, "b.yaml")
	b.lacks(t, ns, "a")
	b.quiet(t)
}

// testRefused: what the API refuses is told of with its remedy, the other objects
// of the file are applied, and nothing of it is pruned meanwhile.
func testRefused(t *testing.T, b bed) {
	ns := b.space(t)
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: " + ns + "}\nimmutable: true\nstringData: {a: %s}\n"
	b.put(t, "x.yaml", settings(ns, "a", "1"), settings(ns, "dropped", "1"), fmt.Sprintf(secret, "old"))
	b.says(t, "1 file applied")

	b.put(t, "x.yaml", fmt.Sprintf(secret, "new"), settings(ns, "a", "2"), strings.Replace(settings(ns, "c", "1"), "\ndata", "\ndtaa", 1), settings("nowhere", "d", "1"), settings(ns, "not/a/name", "1"))
	b.has(t, ns, "a", "2")
	b.told(t, "ManifestFailed", "x.yaml",
		"line 1, Secret "+ns+"/s: ", "immutable", "lite kubectl delete secret s -n "+ns,
		"line 12, ConfigMap "+ns+"/c: ", ".dtaa: field not declared in schema",
		`line 17, ConfigMap nowhere/d: namespaces "nowhere" not found`, "line 22, ConfigMap "+ns+"/not/a/name: ")
	b.says(t, "0 of 1 file applied", "x.yaml: line 1, Secret")
	b.hasNow(t, ns, "dropped", "1")

	b.Kubectl(t, "delete", "secret", "s", "-n", ns)
	b.put(t, "x.yaml", fmt.Sprintf(secret, "new"), settings(ns, "a", "2"))
	b.lacks(t, ns, "dropped")
	b.says(t, "1 file applied")

	// Whoever has an object keeps it.
	b.put(t, "a-second.yaml", settings(ns, "a", "3"), settings(ns, "e", "1"))
	b.says(t, "a-second.yaml: line 1, ConfigMap "+ns+"/a: is also in x.yaml, which owns it: remove one of the two")
	b.hasNow(t, ns, "a", "2")
	b.hasNow(t, ns, "e", "1")
	b.take(t, "x.yaml")
	b.has(t, ns, "a", "3")
	b.says(t, "1 file applied")
	b.take(t, "a-second.yaml")
	b.lacks(t, ns, "a")
	b.quiet(t)
}

// testHalves: a file that is still being written is not taken for one from which
// objects were dropped, even if what is there is right.
func testHalves(t *testing.T, b bed) {
	ns := b.space(t)
	b.put(t, "x.yaml", settings(ns, "a", "1"), settings(ns, "b", "1"))
	b.has(t, ns, "b", "1")
	half, err := os.OpenFile(b.Path(dir+"/x.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	if _, err := half.WriteString(settings(ns, "a", "2")); err != nil {
		t.Fatal(err)
	}
	b.says(t, "x.yaml: is being written")
	b.put(t, "y.yaml", settings(ns, "second", "1"))
	b.has(t, ns, "second", "1")
	b.hasNow(t, ns, "a", "1")
	b.hasNow(t, ns, "b", "1")
	if _, err := half.WriteString("---\n" + settings(ns, "b", "2")); err != nil {
		t.Fatal(err)
	}
	if err := half.Close(); err != nil {
		t.Fatal(err)
	}
	b.has(t, ns, "a", "2")
	b.has(t, ns, "b", "2")
	b.says(t, "2 files applied")
	b.take(t, "x.yaml")
	b.take(t, "y.yaml")
	b.lacks(t, ns, "b")
	b.quiet(t)
}

// testSkip: what is skipped is neither applied nor pruned.
func testSkip(t *testing.T, b bed) {
	ns := b.space(t)
	b.put(t, "new.yaml.skip", "")
	b.put(t, "new.yaml", settings(ns, "new", "1"))
	b.put(t, "old.yaml", settings(ns, "old", "1"))
	b.has(t, ns, "old", "1")
	b.put(t, "old.yaml.skip", "")
	b.put(t, "dir.skip", "")
	b.put(t, "dir/x.yaml", settings(ns, "below", "1"))
	b.says(t, "3 skipped")
	b.put(t, "old.yaml", "broken: [")
	b.put(t, "mark.yaml", settings(ns, "mark", "1"))
	b.has(t, ns, "mark", "1")
	b.take(t, "old.yaml")
	b.put(t, "mark.yaml", settings(ns, "mark", "2"))
	b.has(t, ns, "mark", "2")
	b.hasNow(t, ns, "old", "1")
	for _, name := range []string{"new", "below"} {
		if _, err := b.configMap(t, ns, name); gone(err) != nil {
			t.Errorf("%s: %v", name, gone(err))
		}
	}
	b.take(t, "new.yaml.skip")
	b.take(t, "dir.skip")
	b.has(t, ns, "new", "1")
	b.has(t, ns, "below", "1")
	b.take(t, "old.yaml.skip")
	b.lacks(t, ns, "old")
	for _, name := range []string{"new.yaml", "mark.yaml", "dir"} {
		b.take(t, name)
	}
	b.lacks(t, ns, "new")
	b.quiet(t)
}

// testMoves: an object that goes from one file to another, or with its file to
// another name, is the same afterwards.
func testMoves(t *testing.T, b bed) {
	ns := b.space(t)
	uid := func() string {
		m, err := b.configMap(t, ns, "m")
		if err != nil {
			t.Fatal(err)
		}
		return string(m.UID)
	}
	with := strings.Replace(settings(ns, "m", "1"), "\ndata: {", "\ndata: {dropped: x, ", 1)
	b.put(t, "a.yaml", settings(ns, "a", "1"), with)
	b.put(t, "b.yaml", settings(ns, "b", "1"))
	b.says(t, "2 files applied")
	was := uid()

	b.put(t, ".b", settings(ns, "b", "1"), settings(ns, "m", "2"))
	b.put(t, ".a", settings(ns, "a", "2"))
	b.move(t, ".a", "a.yaml")
	b.move(t, ".b", "b.yaml")
	b.has(t, ns, "m", "2")
	b.has(t, ns, "a", "2")
	cluster.Eventually(t, soon, func() error {
		m, err := b.configMap(t, ns, "m")
		if err == nil && (len(m.ManagedFields) != 1 || m.ManagedFields[0].Manager != "lite/b.yaml" || len(m.Data) != 1) {
			err = fmt.Errorf("the other file's part is still there: %v, %v", m.Data, m.ManagedFields)
		}
		return err
	})

	b.move(t, "b.yaml", "c.yaml")
	b.put(t, "c.yaml", settings(ns, "b", "1"), settings(ns, "m", "3"))
	b.has(t, ns, "m", "3")
	b.says(t, "2 files applied")
	if is := uid(); is != was {
		t.Errorf("the object is another: %s, was %s", is, was)
	}
	b.take(t, "c.yaml")
	b.lacks(t, ns, "m")
	b.hasNow(t, ns, "a", "2")
	b.take(t, "a.yaml")
	b.lacks(t, ns, "a")
	b.quiet(t)
}

// testLinks: links are followed, and noticed when they lead elsewhere.
func testLinks(t *testing.T, b bed) {
	ns := b.space(t)
	// As a ConfigMap is mounted.
	b.put(t, "mount/..1/x.yaml", settings(ns, "x", "1"))
	b.put(t, "mount/..2/x.yaml", settings(ns, "x", "2"))
	b.link(t, "..1", dir+"/mount/..data")
	b.link(t, "..data/x.yaml", dir+"/mount/x.yaml")
	b.has(t, ns, "x", "1")
	b.link(t, "..2", dir+"/mount/..data")
	b.has(t, ns, "x", "2")

	// As releases are laid out elsewhere: a file and a directory.
	const base = "/var/lib/releases"
	for _, n := range []string{"1", "2"} {
		b.WriteFile(t, base+"/"+n+"/file.yaml", settings(ns, "file", n))
		b.WriteFile(t, base+"/"+n+"/dir/below/x.yaml", settings(ns, "below", n))
	}
	b.link(t, "1", base+"/current")
	b.link(t, base+"/current/file.yaml", dir+"/file.yaml")
	b.link(t, base+"/current/dir", dir+"/linked")
	b.has(t, ns, "file", "1")
	b.has(t, ns, "below", "1")
	b.link(t, "2", base+"/current")
	b.has(t, ns, "file", "2")
	b.has(t, ns, "below", "2")
	b.WriteFile(t, base+"/2/file.yaml", settings(ns, "file", "3"))
	b.WriteFile(t, base+"/2/dir/below/x.yaml", settings(ns, "below", "3"))
	b.has(t, ns, "file", "3")
	b.has(t, ns, "below", "3")

	// What a link has lost is not removed.
	b.link(t, "3", base+"/current")
	b.says(t, "file.yaml: links to "+base+"/3/file.yaml, which does not exist", "linked: links to")
	b.hasNow(t, ns, "file", "3")
	b.hasNow(t, ns, "below", "3")
	b.link(t, "1", base+"/current")
	b.has(t, ns, "file", "1")
	b.link(t, "..", dir+"/mount/round")
	b.says(t, "mount/round: links to a directory above itself")
	for _, name := range []string{"mount", "file.yaml", "linked"} {
		b.take(t, name)
	}
	b.lacks(t, ns, "x")
	b.lacks(t, ns, "file")
	b.lacks(t, ns, "below")
	b.quiet(t)
}

// testTrust: who could write a file could do anything in the cluster.
func testTrust(t *testing.T, b bed) {
	ns := b.space(t)
	b.put(t, "x.yaml", settings(ns, "x", "1"))
	b.has(t, ns, "x", "1")
	b.put(t, "x.yaml", settings(ns, "x", "2"), settings(ns, "z", "2"))
	for _, wrong := range []struct{ do, undo, told string }{
		{"chown 1000 " + dir + "/x.yaml", "chown 0 " + dir + "/x.yaml", "x.yaml belongs to user 1000"},
		{"chmod 666 " + dir + "/x.yaml", "chmod 644 " + dir + "/x.yaml", "is writable by others than root (mode 0666)"},
		{"mkdir -m 777 /srv/open; cp -p " + dir + "/x.yaml /srv/open; ln -sf /srv/open/x.yaml " + dir, "rm -r /srv/open; rm " + dir + "/x.yaml", "/srv/open is writable by others than root (mode 0777)"},
	} {
		b.Output(t, "sh", "-c", wrong.do)
		b.told(t, "ManifestFailed", "x.yaml", wrong.told)
		b.says(t, wrong.told)
		if wrong.undo != "" {
			b.Output(t, "sh", "-c", wrong.undo)
		}
	}
	b.lacks(t, ns, "x")
	b.quiet(t)
	if info, err := os.Stat(b.Path(dir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info, err)
	}
}

// testAdopted: what was there before the file stays when the file goes, without
// what the file had set.
func testAdopted(t *testing.T, b bed) {
	ns := b.space(t)
	b.KubectlStdin(t, settings(ns, "theirs", "1"), "create", "-f", "-")
	b.put(t, "x.yaml",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: kube-system, labels: {from-file: \"yes\"}}\n",
		"apiVersion: v1\nkind: Node\nmetadata: {name: "+b.Name+", labels: {from-file: \"yes\"}}\n",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: theirs, namespace: "+ns+"}\ndata: {more: \"1\"}\n")
	b.says(t, "1 file applied")
	node := func() bool {
		n, err := b.Client(t).CoreV1().Nodes().Get(t.Context(), b.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return n.Labels["from-file"] == "yes"
	}
	if !node() {
		t.Error("the node has no label")
	}
	b.take(t, "x.yaml")
	cluster.Eventually(t, soon, func() error {
		m, err := b.configMap(t, ns, "theirs")
		if err == nil && (m.Data["more"] != "" || m.Data["value"] != "1") {
			err = fmt.Errorf("has %v", m.Data)
		}
		if err == nil && node() {
			err = errors.New("the node has the label")
		}
		return err
	})
	b.quiet(t)
}

// testLarge: a file of more than an object can hold, and one of too much.
func testLarge(t *testing.T, b bed) {
	ns := b.space(t)
	var documents []string
	for i := range 20 {
		documents = append(documents, settings(ns, fmt.Sprintf("large-%d", i), strings.Repeat("x", 100_000)))
	}
	for i := range 300 {
		documents = append(documents, settings(ns, fmt.Sprintf("small-%d", i), "1"))
	}
	b.put(t, "large.yaml", documents...)
	b.told(t, "ManifestApplied", "large.yaml", "applied 320 objects")
	b.has(t, ns, "small-299", "1")
	b.put(t, "huge.yaml", "# "+strings.Repeat("x", 17<<20))
	b.says(t, "1 of 2 files applied; huge.yaml: has 17 MiB, and may have 16: split it")
	// One object that is too large keeps no other back.
	b.put(t, "huge.yaml", settings(ns, "huge", strings.Repeat("x", 4<<20)), settings(ns, "beside", "1"))
	b.has(t, ns, "beside", "1")
	b.says(t, "1 of 2 files applied; huge.yaml: line 1, ConfigMap "+ns+"/huge: ")
	b.take(t, "huge.yaml")
	b.take(t, "large.yaml")
	b.lacks(t, ns, "small-299")
	b.quiet(t)
	// Without its record a file goes, and its objects stay.
	b.put(t, "kept.yaml", settings(ns, "kept", "1"))
	b.says(t, "1 file applied")
	b.Kubectl(t, "delete", "configmap", "-n", "kube-system", "-l", "lite.io/record=manifest")
	b.take(t, "kept.yaml")
	b.quiet(t)
	b.hasNow(t, ns, "kept", "1")
}
