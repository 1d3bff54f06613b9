package roll

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// What cannot be read of who is refused admits nobody: a key is good only if it stands there as such.
func FuzzRefusals(f *testing.F) {
	for _, seed := range []string{
		"", "null", "{}", "[]", `{"since":"2026-05-01T12:00:00Z","why":"revoked","keys":["k"]}`, `{"keys":[""]}`, `{"keys":null}`, `{"why":7,"keys":["k"]}`, `{"keys":["k"],"since":"x"}`, `{"keys":["k"]`, `{"KEYS":["k"],"keys":[]}`,
	} {
		f.Add([]byte(seed), "k")
	}
	f.Fuzz(func(t *testing.T, data []byte, key string) {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: refusedPrefix + "0"}, Type: TypeRefused, Data: map[string][]byte{"n": data}}
		r, known := Refusals(s)["n"]
		if !known || r == nil {
			t.Fatalf("%q refuses nothing", data)
		}
		if r.Admits(key) && key != "" && !strings.Contains(string(data), key) && !strings.Contains(string(data), `\`) && !strings.Contains(key, "\ufffd") {
			t.Errorf("%q admits the key %q", data, key)
		}
		if text := r.Text(); strings.ContainsAny(text, "\r\n") {
			t.Errorf("%q is said as %q", data, text)
		}
		s.Type = corev1.SecretTypeOpaque
		if Refusals(s) != nil {
			t.Error("a Secret of another type refuses somebody")
		}
	})
}

// Whatever a record holds, every name in it is known, and it is written as it was read.
func FuzzJoined(f *testing.F) {
	for _, seed := range []string{"", "null", "{}", "[]", `{"at":"2026-05-01T12:00:00Z","key":"k","from":"192.0.2.1","lived":true}`, `{"at":"2026-05-01T12:00:00+25:00"}`, `{"key":7}`, `{"at":"9999-12-31T23:59:59.999999999Z"}`} {
		f.Add("n1", []byte(seed), "2026-05-01T12:00:00Z")
		f.Add(endedKey, []byte(seed), "x")
	}
	f.Fuzz(func(t *testing.T, name string, data []byte, ended string) {
		j := parseJoined(&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: joinedPrefix + "abcdef"}, Type: TypeJoined,
			Data: map[string][]byte{name: data, endedKey: []byte(ended)},
		})
		if _, known := j.Nodes[name]; j.Token != "abcdef" || known != (name != endedKey) {
			t.Fatalf("%q: %+v", name, j)
		}
		if e, known := j.Nodes[name]; known && e.Key == "" && e.At.IsZero() && !e.Lived {
			t.Errorf("an admission without a key and a time, %q, counts as one of a machine that may be given up", data)
		}
		client := fake.NewClientset()
		j.secret = nil
		if err := j.Save(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		again, err := ReadJoined(t.Context(), client, "abcdef")
		if year := j.Ended.UTC().Year(); year > 9998 || year < 1 {
			return // nobody writes that
		}
		if err != nil || !again.Ended.Equal(j.Ended.Truncate(time.Second)) || len(again.Nodes) != len(j.Nodes) {
			t.Fatalf("%+v is written, and read as %+v, %v", j, again, err)
		}
		for name, e := range maps.All(j.Nodes) {
			if got := again.Nodes[name]; !got.At.Equal(e.At) || fmt.Sprint(got.Key, got.From, got.Lived) != fmt.Sprint(e.Key, e.From, e.Lived) {
				t.Errorf("%+v is written, and read as %+v", e, got)
			}
		}
	})
}
