package boot

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"lite.io/lite/pkg/component"
)

func TestRowFitsTheTerminal(t *testing.T) {
	since := time.Now()
	for name, s := range map[string]component.Status{
		"waiting": {Name: "apiserver", State: component.Waiting},
		"ready":   {Name: "etcd", State: component.Ready, Took: 1234 * time.Millisecond},
		"starting with a reason": {Name: "controller-manager", State: component.Starting, Since: since,
			Err: errors.New("waiting for poststarthook/rbac/bootstrap-roles, poststarthook/scheduling/bootstrap-system-priority-classes")},
		"failed":            {Name: "network", State: component.Failed, Err: errors.New("one\ntwo\nthree")},
		"words that are ü":  {Name: "etcd", State: component.Failed, Err: errors.New(strings.Repeat("ü", 300))},
		"a name of no end":  {Name: strings.Repeat("n", 300), State: component.Ready},
		"nothing to be cut": {Name: "a", State: component.Ready, Took: time.Second},
	} {
		for _, width := range []int{20, 40, 80, 81, 200} {
			got := row(s, width)
			if n := utf8.RuneCountInString(got); n >= width {
				t.Errorf("%s: %d columns of %d: %q", name, n, width, got)
			}
			if strings.Contains(got, "\n") || !utf8.ValidString(got) || strings.TrimRight(got, " ") != got {
				t.Errorf("%s: got %q", name, got)
			}
		}
	}
	if got, want := row(component.Status{Name: "etcd", State: component.Ready, Took: 1234 * time.Millisecond}, 80), "✓ etcd                 ready       1.2 s"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got, want := row(component.Status{Name: "etcd", State: component.Failed, Err: errors.New("a\nb")}, 80), "✗ etcd                 failed             a b"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
