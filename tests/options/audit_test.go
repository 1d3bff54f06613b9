package options

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"lite.io/lite/tests/cluster"
)

// event is what the test wants to know of a line of the audit log.
type event struct {
	Level, Stage, Verb string
	User               struct{ Username string }
	ObjectRef          struct{ Resource, Name string }
	RequestObject      any
}

// TestAudit switches the audit log on, at first with the policy that lite
// brings, then with one of the user's.
func TestAudit(t *testing.T) {
	const file, policy = "/var/log/audit/lite.log", "/etc/lite/audit-policy.yaml"
	n := cluster.NewNode(t)
	n.Start(t, "--audit-log-path="+file)
	n.Kubectl(t, "create", "secret", "generic", "one", "--from-literal=password=sesame")
	e := awaitEvent(t, n, file, "secrets", "one")
	if e.Level != "Metadata" || e.Stage != "ResponseComplete" || e.User.Username == "" || e.RequestObject != nil {
		t.Errorf("got %+v", e)
	}
	if strings.Contains(n.ReadFile(t, file), "sesame") {
		t.Error("the content of a Secret is in the log")
	}
	for path, want := range map[string]os.FileMode{file: 0o600, "/var/log/audit": 0o700 | os.ModeDir} {
		if info, err := os.Stat(n.Path(path)); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, want %v (%v)", path, info.Mode(), want, err)
		}
	}
	n.Stop(t)

	n.WriteFile(t, policy, `
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Request
  resources: [{resources: [configmaps]}]
- level: None
`)
	n.Start(t, "--audit-log-path="+file, "--audit-policy-file="+policy)
	n.Kubectl(t, "create", "secret", "generic", "two", "--from-literal=password=sesame")
	n.Kubectl(t, "create", "configmap", "two")
	if e := awaitEvent(t, n, file, "configmaps", "two"); e.Level != "Request" || e.RequestObject == nil {
		t.Errorf("got %+v", e)
	}
	if e := events(t, n, file, "secrets", "two"); len(e) != 0 {
		t.Errorf("the policy leaves Secrets out, got %+v", e)
	}
	n.Stop(t)
}

// awaitEvent waits for the log of a creation; it may be written a moment later.
func awaitEvent(t *testing.T, n *cluster.Node, file, resource, name string) (e event) {
	t.Helper()
	eventually(t, func() error {
		found := events(t, n, file, resource, name)
		if len(found) == 0 {
			return fmt.Errorf("%s does not tell of %s %s", file, resource, name)
		}
		e = found[len(found)-1]
		return nil
	})
	return e
}

// events returns what the audit log tells of the creation of an object. Each of
// its lines must be JSON; the last may be about to be written.
func events(t *testing.T, n *cluster.Node, file, resource, name string) (found []event) {
	t.Helper()
	lines := strings.Split(n.ReadFile(t, file), "\n")
	for _, line := range lines[:len(lines)-1] {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e.Verb == "create" && e.ObjectRef.Resource == resource && e.ObjectRef.Name == name {
			found = append(found, e)
		}
	}
	return found
}
