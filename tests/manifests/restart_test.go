package manifests

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/tests/harness/cluster"
)

// TestRestart: what a file owned is known after a restart, also what went while
// lite was down; and what has not changed is not written.
func TestRestart(t *testing.T) {
	t.Parallel()
	b := bed{cluster.NewNode(t)}
	// What is there before the first start is applied by it.
	b.put(t, "stays.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: stays}\n", settings("stays", "one", "1"))
	b.put(t, "goes.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: goes}\n", settings("stays", "theirs", "1"))
	b.put(t, "changes.yaml", settings("default", "kept", "1"), settings("default", "dropped", "1"))
	b.put(t, "wrong.yaml", "a: b: c")
	b.Start(t)
	b.says(t, "3 of 4 files applied; wrong.yaml: ")
	before := b.versions(t)

	b.Stop(t)
	b.Start(t)
	b.says(t, "3 of 4 files applied; wrong.yaml: ")
	for name, version := range b.versions(t) {
		if before[name] != version {
			t.Errorf("%s was written by a start that changed nothing: version %s, was %s", name, version, before[name])
		}
	}

	b.Stop(t)
	b.take(t, "goes.yaml")
	b.take(t, "wrong.yaml")
	b.put(t, "changes.yaml", settings("default", "kept", "2"))
	b.Start(t)
	b.has(t, "default", "kept", "2")
	b.lacks(t, "default", "dropped")
	b.lacks(t, "stays", "theirs")
	b.hasNow(t, "stays", "one", "1")
	cluster.Eventually(t, soon, func() error {
		_, err := b.Client(t).CoreV1().Namespaces().Get(t.Context(), "goes", metav1.GetOptions{})
		return gone(err)
	})
	b.says(t, "2 files applied")

	testKill(t, b)
	testOtherServer(t, b)
}

// testKill ends lite while it applies: the next start brings all of it there, and
// removes all of it with the file.
func testKill(t *testing.T, b bed) {
	const number = 100
	var documents []string
	for i := range number {
		documents = append(documents, settings("default", fmt.Sprintf("kill-%d", i), "1"))
	}
	b.put(t, "many.yaml", documents...)
	cluster.Eventually(t, soon, func() error {
		if len(b.killed(t)) == 0 {
			return errors.New("nothing is applied yet")
		}
		return nil
	})
	b.Kill(t)
	b.Start(t)
	b.says(t, "3 files applied")
	if n := len(b.killed(t)); n != number {
		t.Errorf("%d objects, want %d", n, number)
	}
	b.put(t, "many.yaml", documents[:50]...)
	cluster.Eventually(t, soon, func() error {
		if n := len(b.killed(t)); n > 60 {
			return fmt.Errorf("%d objects are still there", n)
		}
		return nil
	})
	b.Kill(t)
	b.take(t, "many.yaml")
	b.Start(t)
	cluster.Eventually(t, soon, func() error {
		if left := b.killed(t); len(left) > 0 {
			return fmt.Errorf("left over: %q", left)
		}
		return nil
	})
	b.says(t, "2 files applied")
}

// testOtherServer: what another server has applied stays when its file is not on
// the one that leads now. The node is given another name for that.
func testOtherServer(t *testing.T, b bed) {
	record := b.Kubectl(t, "get", "configmap", "-n", "kube-system", "-l", "lite.io/record=manifest", "-o", `jsonpath={.items[?(@.metadata.annotations.lite\.io/file=="changes.yaml")].metadata.name}`)
	b.Stop(t)
	b.Start(t)
	b.Kubectl(t, "annotate", "configmap", "-n", "kube-system", record, "lite.io/server=another", "--overwrite")
	b.Stop(t)
	b.take(t, "changes.yaml")
	b.Start(t)
	b.says(t, "1 file applied; changes.yaml does not exist here: what another has applied of it stays")
	b.hasNow(t, "default", "kept", "2")
	// A file of that name takes it over.
	b.put(t, "changes.yaml", settings("default", "kept", "3"))
	b.has(t, "default", "kept", "3")
	b.says(t, "2 files applied")
	b.take(t, "changes.yaml")
	b.lacks(t, "default", "kept")
}

// killed are the objects of testKill.
func (b bed) killed(t *testing.T) (names []string) {
	t.Helper()
	list, err := b.Client(t).CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Items {
		if strings.HasPrefix(m.Name, "kill-") {
			names = append(names, m.Name)
		}
	}
	return names
}

// versions are the resource versions of what the files have, and of the records.
func (b bed) versions(t *testing.T) map[string]string {
	t.Helper()
	list, err := b.Client(t).CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, m := range list.Items {
		if slices.ContainsFunc(m.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return strings.HasPrefix(f.Manager, "lite/") }) || m.Labels["lite.io/record"] != "" {
			versions[m.Namespace+"/"+m.Name] = m.ResourceVersion
		}
	}
	if len(versions) != 8 {
		t.Errorf("%d objects and records, want 8: %v", len(versions), versions)
	}
	return versions
}
