package check

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"lite.io/lite/pkg/check/cis"
	"lite.io/lite/tests/harness/cluster"
)

// cisOutput runs lite check --cis on a host.
func cisOutput(t *testing.T, n *cluster.Node, uid uint32, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := n.Command(ctx, "lite", append([]string{"check", "--cis"}, args...)...)
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	said, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatalf("lite check --cis %v: %v", args, err)
	}
	return string(said), cmd.ProcessState.ExitCode()
}

// judge judges a node. The exit code is what the entries say.
func judge(t *testing.T, n *cluster.Node) cis.Report {
	t.Helper()
	out, code := cisOutput(t, n, 0, "-o", "json")
	var r cis.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if want := map[bool]int{true: 1, false: 0}[r.Failed()]; code != want {
		t.Errorf("exit code %d, want %d with %v", code, want, r.Totals)
	}
	return r
}

// entry wants one to be judged in a way, with words in what it says.
func entry(t *testing.T, r cis.Report, number string, status cis.Status, words ...string) {
	t.Helper()
	for _, e := range r.Entries {
		if e.Number != number {
			continue
		}
		if e.Status != status {
			t.Errorf("%s is %s, want %s: %s", number, e.Status, status, e.Seen)
		}
		for _, w := range words {
			if !strings.Contains(e.Seen+"\n"+e.Reason+"\n"+e.Remedy, w) {
				t.Errorf("%s says no %q: %+v", number, w, e)
			}
		}
		return
	}
	t.Errorf("%s was not judged", number)
}

// asGolden compares with what docs/cis.md is made of: TestCISDocument in cmd/lite
// judges a node that it has put together and not started.
func asGolden(t *testing.T, n *cluster.Node, r cis.Report, name string) {
	t.Helper()
	data, err := os.ReadFile("../../cmd/lite/testdata/" + name + ".golden")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(data)) {
		number, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		want[number] = rest
	}
	if len(want) != len(r.Entries) {
		t.Errorf("%d entries, want %d", len(r.Entries), len(want))
	}
	for _, e := range r.Entries {
		got, expected := fmt.Sprintf("%s: %s", e.Status, strings.ReplaceAll(e.Seen, n.Name, "node-a")), want[e.Number]
		if e.Number == "1.1.9" || e.Number == "1.1.10" { // a node that runs has given out addresses
			got, expected = string(e.Status), strings.SplitN(expected, ":", 2)[0]
		}
		if got != expected {
			t.Errorf("%s is\n  %s\nand in the golden\n  %s", e.Number, got, expected)
		}
	}
}

// judged is a server that has just been started: it is judged as the document says,
// what is put in its way is found, and nothing secret is told.
func judged(t *testing.T, n *cluster.Node) {
	// The controller manager makes them in its own time.
	cluster.Eventually(t, time.Minute, func() error {
		accounts := n.Kubectl(t, "get", "serviceaccounts", "-A", "--field-selector=metadata.name=default", "-o", "name")
		if got := strings.Count(accounts, "serviceaccount/default"); got != 4 {
			return fmt.Errorf("%d namespaces have an account named default", got)
		}
		return nil
	})
	asGolden(t, n, judge(t, n), "cis-server")
	const key, conf = cluster.DataDir + "/server/pki/ca.key", "/etc/lite/kubeconfig.yaml"
	for _, c := range []struct{ number, file, mode, back string }{
		{"1.1.21", key, "644", "600"}, {"1.1.21", cluster.DataDir + "/server/pki/etcd/peer.key", "640", "600"},
		{"1.1.13", conf, "644", "600"}, {"1.1.11", cluster.DataDir + "/server/etcd", "755", "700"},
	} {
		n.Output(t, "chmod", c.mode, c.file)
		entry(t, judge(t, n), c.number, cis.Fail, c.file+" has mode 0"+c.mode, "chmod "+c.back+" "+c.file)
		n.Output(t, "chmod", c.back, c.file)
	}
	n.Output(t, "chown", "65534", key)
	entry(t, judge(t, n), "1.1.19", cis.Fail, "ca.key has user 65534", "chown root:root "+key)
	n.Output(t, "chown", "0", key)

	text, _ := cisOutput(t, n, 0)
	junit, _ := cisOutput(t, n, 0, "-o", "junit")
	var suites struct {
		Tests int `xml:"tests,attr"`
	}
	if err := xml.Unmarshal([]byte(junit), &suites); err != nil || suites.Tests != 131 {
		t.Errorf("%v, %d tests:\n%s", err, suites.Tests, junit)
	}
	if !strings.Contains(text, "server "+n.Name+", 131 entries: ") {
		t.Errorf("no totals in\n%s", text)
	}
	_, secret, _ := strings.Cut(n.ReadFile(t, cluster.DataDir+"/server/encryption.yaml"), "secret: ")
	secret, _, _ = strings.Cut(secret, "\n")
	for _, hidden := range []string{secret, strings.TrimSpace(n.ReadFile(t, cluster.DataDir+"/server/token")), strings.Split(n.ReadFile(t, key), "\n")[1]} {
		if hidden == "" || strings.Contains(text+junit, hidden) {
			t.Errorf("what is secret is told, or there is none: %q", hidden)
		}
	}
	if out, code := cisOutput(t, n, 65534); code != 1 || !strings.Contains(out, "needs root") {
		t.Errorf("somebody else is told, with %d: %s", code, out)
	}
	if out, code := cisOutput(t, n, 0, "--role", "agent"); code != 1 || !strings.Contains(out, "the lite that runs here has the role server") {
		t.Errorf("exit code %d: %s", code, out)
	}
}
