// Package manifests shows that what lies in the manifests directory of a server
// is in the cluster, and what no longer does is not.
package manifests

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"lite.io/lite/pkg/status"
	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

const (
	dir = cluster.DataDir + "/server/manifests"
	// soon is far above what anything here takes.
	soon = 40 * time.Second
)

// bed is a server and its manifests.
type bed struct{ *cluster.Node }

// put writes a file of the directory.
func (b bed) put(t *testing.T, name string, content ...string) {
	t.Helper()
	b.WriteFile(t, dir+"/"+name, strings.Join(content, "---\n"))
}

// take removes a file or a directory of it.
func (b bed) take(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(b.Path(dir + "/" + name)); err != nil {
		t.Fatal(err)
	}
}

func (b bed) move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(b.Path(dir+"/"+from), b.Path(dir+"/"+to)); err != nil {
		t.Fatal(err)
	}
}

// link makes a link in the place of whatever is there.
func (b bed) link(t *testing.T, target, name string) {
	t.Helper()
	path := b.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// space is a namespace of a test's own, made without manifests.
func (b bed) space(t *testing.T) string {
	t.Helper()
	_, name, _ := strings.Cut(t.Name(), "/")
	name = strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(name))
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := b.Client(t).CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return name
}

// settings is the manifest of a ConfigMap with one value.
func settings(namespace, name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s}\ndata: {value: %q}\n", name, namespace, value)
}

func (b bed) configMap(t *testing.T, namespace, name string) (*corev1.ConfigMap, error) {
	t.Helper()
	return b.Client(t).CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
}

// has waits until a ConfigMap has the value.
func (b bed) has(t *testing.T, namespace, name, value string) {
	t.Helper()
	cluster.Eventually(t, soon, func() error {
		m, err := b.configMap(t, namespace, name)
		if err == nil && m.Data["value"] != value {
			err = fmt.Errorf("%s has %q, want %q", name, m.Data["value"], value)
		}
		return err
	})
}

// hasNow wants a ConfigMap to have the value already.
func (b bed) hasNow(t *testing.T, namespace, name, value string) {
	t.Helper()
	if m, err := b.configMap(t, namespace, name); err != nil {
		t.Error(err)
	} else if m.Data["value"] != value {
		t.Errorf("%s has %q, want %q", name, m.Data["value"], value)
	}
}

// lacks waits until a ConfigMap is gone.
func (b bed) lacks(t *testing.T, namespace, name string) {
	t.Helper()
	cluster.Eventually(t, soon, func() error {
		_, err := b.configMap(t, namespace, name)
		return gone(err)
	})
}

// gone wants err to say that there is no such object.
func gone(err error) error {
	if err == nil {
		return fmt.Errorf("is still there")
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// object reads any object.
func (b bed) object(t *testing.T, r schema.GroupVersionResource, namespace, name string) (*unstructured.Unstructured, error) {
	t.Helper()
	client, err := dynamic.NewForConfig(b.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	return client.Resource(r).Namespace(namespace).Get(t.Context(), name, metav1.GetOptions{})
}

// note is what lite status says of the directory.
func (b bed) note(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon) // also in cleanup
	defer cancel()
	out, err := b.Command(ctx, "lite", "status", "-o", "json").Output()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	var n status.Node
	if err := json.Unmarshal(out, &n); err != nil {
		t.Fatal(err)
	}
	for _, c := range n.Components {
		if c.Name == "manifests-directory" {
			return c.Note
		}
	}
	return ""
}

// says waits until lite status has all of the words in its line.
func (b bed) says(t *testing.T, words ...string) {
	t.Helper()
	cluster.Eventually(t, soon, func() error {
		note := b.note(t)
		for _, w := range words {
			if !strings.Contains(note, w) {
				return fmt.Errorf("lite status says %q, without %q", note, w)
			}
		}
		return nil
	})
}

// told waits for an event of a file that has all of the words.
func (b bed) told(t *testing.T, reason, file string, words ...string) {
	t.Helper()
	cluster.Eventually(t, soon, func() error {
		events, err := b.events(t, reason, file)
		if err != nil {
			return err
		}
	next:
		for _, message := range events {
			for _, w := range words {
				if !strings.Contains(message, w) {
					continue next
				}
			}
			return nil
		}
		return fmt.Errorf("no event %s of %s has %q; there are %q", reason, file, words, events)
	})
}

func (b bed) events(t *testing.T, reason, file string) (messages []string, err error) {
	t.Helper()
	list, err := b.Client(t).CoreV1().Events("kube-system").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=" + reason})
	if err != nil {
		return nil, err
	}
	for _, e := range list.Items {
		if message, ok := strings.CutPrefix(e.Message, file+": "); ok {
			messages = append(messages, message)
		}
	}
	return messages, nil
}

// quiet waits until lite status has nothing to say of the directory: no file is
// left.
func (b bed) quiet(t *testing.T) {
	t.Helper()
	cluster.Eventually(t, soon, func() error {
		if note := b.note(t); note != "" {
			return fmt.Errorf("lite status says %q", note)
		}
		return nil
	})
}

// clear removes what a failed test has left, and says what is known of it.
func (b bed) clear(t *testing.T) {
	if !t.Failed() {
		return
	}
	t.Logf("lite status says %q", b.note(t))
	entries, err := os.ReadDir(b.Path(dir))
	if err != nil {
		t.Log(err)
	}
	for _, e := range entries {
		b.take(t, e.Name())
	}
}
