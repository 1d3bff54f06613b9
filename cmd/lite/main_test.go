package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"lite.io/lite/pkg/check"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/version"
	"lite.io/lite/tests/golden"
)

// The help of every verb is a reference; the tools have their own.
func TestHelp(t *testing.T) {
	for name, args := range map[string][]string{
		"help":              {"--help"},
		"help-server":       {"server", "--help"},
		"help-agent":        {"agent", "--help"},
		"help-token":        {"token", "--help"},
		"help-token-create": {"token", "create", "--help"},
		"help-token-list":   {"token", "list", "--help"},
		"help-token-delete": {"token", "delete", "--help"},
		"help-token-rotate": {"token", "rotate", "--help"},
		"help-token-revoke": {"token", "revoke", "--help"},
		"help-node":         {"node", "--help"},
		"help-node-revoke":  {"node", "revoke", "--help"},
		"help-member":       {"member", "--help"},
		"help-member-list":  {"member", "list", "--help"},
		"help-member-state": {"member", "status", "--help"},
		"help-member-drop":  {"member", "remove", "--help"},
		"help-member-again": {"member", "rejoin", "--help"},
		"help-status":       {"status", "--help"},
		"help-top":          {"top", "--help"},
		"help-check":        {"check", "--help"},
		"help-version":      {"version", "--help"},
		"help-config-print": {"config", "print", "--help"},
		"help-config-check": {"config", "check", "--help"},
		"help-upgrade":      {"upgrade", "--help"},
		"help-rollback":     {"rollback", "--help"},
		"help-config-write": {"config", "write", "--help"},
		"help-setup":        {"setup", "--help"},
	} {
		var out bytes.Buffer
		root := command()
		root.SetArgs(args)
		root.SetOut(&out)
		root.SetErr(&out)
		if err := root.Execute(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		golden.Check(t, name, out.String())
	}
}

func TestMistakesAreErrorsWithoutUsage(t *testing.T) {
	for _, args := range [][]string{{"sever"}, {"server", "--no-such-flag"}, {"server", "argument"}, {"agent", "argument"}, {"token", "delete"}, {"token", "create", "--role=king"}, {"member", "list", "x"}, {"member", "list", "-o", "xml"}, {"member", "remove"}, {"status", "--output=xml"}, {"version", "-o", "xml"}, {"check", "x"}, {"check", "-o", "xml"}, {"check", "--role", "king"}, {"check", "--nodes", "x"},
		{"check", "--role", "agent", "--cluster-cidr", "10.0.0.0/16"}, {"config", "print", "x"},
		{"config", "check", "x"}, {"upgrade", "v1"}, {"upgrade", "--artifact=x", "--to=v1"}, {"upgrade", "--health-timeout=0s"}, {"rollback", "v1"}} {
		var out bytes.Buffer
		root := command()
		root.SetArgs(args)
		root.SetOut(&out)
		root.SetErr(&out)
		if err := root.Execute(); err == nil {
			t.Errorf("%q: got %v", args, err)
		}
		if out.Len() > 0 {
			t.Errorf("%q: printed %s", args, &out)
		}
	}
}

func TestVersionsOfWhatIsInsideAreKnown(t *testing.T) {
	v := version.Get()
	for name, got := range map[string]string{"kubernetes": v.Kubernetes, "etcd": v.Etcd, "containerd": v.Containerd} {
		if !strings.HasPrefix(got, "v") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestMentions(t *testing.T) {
	for _, test := range []struct {
		args string
		want bool
	}{
		{"", false},
		{"ps", false},
		{"--namespace x c ls", true},
		{"--namespace=x c ls", true},
		{"-n x c ls", true},
		{"-n=x c ls", true},
		{"--debug -n x c ls", true},
		{"--name x", false},
		{"--namespaces", false},
		// After the subcommand a flag is the subcommand's, or another program's.
		{"run --rm image name sh -n", false},
		{"task exec -n x", false},
	} {
		if got := mentions(strings.Fields(test.args), "namespace", "n"); got != test.want {
			t.Errorf("%q: got %t", test.args, got)
		}
	}
}

func TestCrictlIsToldWhatTheUserDoesNotSay(t *testing.T) {
	const socket = "unix:///s"
	endpoints := []string{"--runtime-endpoint=" + socket, "--image-endpoint=" + socket}
	for _, name := range []string{"CONTAINER_RUNTIME_ENDPOINT", "IMAGE_SERVICE_ENDPOINT", "CRI_CONFIG_FILE"} {
		t.Setenv(name, "")
	}
	for _, test := range []struct {
		args      string
		hasConfig bool
		env       string // name of a variable that is set
		want      []string
	}{
		{"ps -a", false, "", append(endpoints, "--config=/dev/null")},
		{"ps -a", true, "", endpoints},
		{"--config=/x ps", false, "", endpoints},
		{"-c /x ps", false, "", endpoints},
		{"ps", false, "CRI_CONFIG_FILE", endpoints},
		// It writes the file that is missing.
		{"config --set debug=true", false, "", endpoints},
		{"-r unix:///x ps", true, "", endpoints[1:]},
		{"-i unix:///x ps", true, "", endpoints[:1]},
		{"ps", true, "CONTAINER_RUNTIME_ENDPOINT", endpoints[1:]},
		{"ps", true, "IMAGE_SERVICE_ENDPOINT", endpoints[:1]},
	} {
		if test.env != "" {
			t.Setenv(test.env, "/x")
		}
		if got := crictlPreset(strings.Fields(test.args), socket, test.hasConfig); !slices.Equal(got, test.want) {
			t.Errorf("%s (%t, %s): got %q, want %q", test.args, test.hasConfig, test.env, got, test.want)
		}
		if test.env != "" {
			t.Setenv(test.env, "")
		}
	}
}

func TestCheckTable(t *testing.T) {
	r := check.Report{Role: "server", Result: check.Fail, Fixed: []check.Done{
		{Check: "firewall", Did: "ufw: let in pods", Undo: "ufw delete allow from 10.42.0.0/16"},
		{Check: "inotify", Did: "write a file", Error: "read-only file system"},
	}, Checks: []check.Result{
		{Name: "memory", Status: check.Pass, Found: "4 GiB"},
		{Name: "data directory", Status: check.Skip, Found: "only root can see /var/lib/lite"},
		{Name: "swap", Status: check.Warn, Found: "1 GiB on /dev/sda5", Remedy: "switch it off", Commands: []string{"swapoff -a"}},
		{Name: "firewall", Status: check.Fail, Found: "ufw keeps out 6443/tcp", Remedy: "add the rules", Commands: []string{"ufw allow 6443/tcp"}, Fixable: true},
	}}
	var out bytes.Buffer
	for _, d := range r.Fixed {
		writeDone(&out, d)
	}
	if err := writeReport(&out, r); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "check", out.String())
}

func TestTokenListKeepsToItsLines(t *testing.T) {
	var out bytes.Buffer
	if err := writeTokens(&out, []join.Info{{ID: "abcdef", Role: join.Agent, Description: "a\nevil0   agent\x1b[31m"}}, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Count(text, "\n") != 2 || strings.Contains(text, "\x1b") {
		t.Errorf("got %q", text)
	}
}

// One ID with a slip in it kept the tokens alive that were named after it.
func TestTokenDeleteGoesOnAfterAnUnknownID(t *testing.T) {
	client := fake.NewClientset()
	token := join.New()
	if err := join.Create(t.Context(), client, token, join.Settings{Role: join.Agent, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	err := deleteTokens(t.Context(), client, []string{"zzzzzz", token.ID, "abc"})
	if err == nil || !strings.Contains(err.Error(), "zzzzzz") || !strings.Contains(err.Error(), "is not a token") {
		t.Errorf("got %v", err)
	}
	if left, err := join.List(t.Context(), client); err != nil || len(left) != 0 {
		t.Errorf("%v are left, %v", left, err)
	}
}

// admitted is a cluster with two tokens of which one has admitted three nodes; another
// has admitted one of these since.
func admitted(t *testing.T) *fake.Clientset {
	t.Helper()
	server := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "server", Labels: map[string]string{kube.ServerLabel: "true"}}}
	client := fake.NewClientset(server)
	now := time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	for i, id := range []string{"aaaaaa", "bbbbbb"} {
		if err := join.Create(t.Context(), client, join.Token{ID: id, Secret: "0123456789abcdef"}, join.Settings{Role: join.Agent, Now: now}); err != nil {
			t.Fatal(err)
		}
		j, err := roll.ReadJoined(t.Context(), client, id)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range [][]string{{"n1", "n2", "n3"}, {"n3"}}[i] {
			j.Nodes[name] = roll.Entry{At: now.Add(time.Duration(i) * time.Hour), From: "192.0.2.1", Lived: name != "n2"}
		}
		if err := j.Save(t.Context(), client); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"n1", "n3"} {
		if _, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return client
}

func TestTokenListSaysWhatWasAdmitted(t *testing.T) {
	client, now := admitted(t), time.Date(2026, time.May, 1, 14, 0, 0, 0, time.UTC)
	if err := join.Delete(t.Context(), client, "bbbbbb", now); err != nil {
		t.Fatal(err)
	}
	tokens, err := join.List(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	joined, err := roll.ListJoined(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := errors.Join(writeTokens(&out, tokens, joined, now), writeJoined(&out, joined, now)); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "token-list", out.String())
}

func TestTokenRevokeTakesOutWhatItAdmitted(t *testing.T) {
	client := admitted(t)
	var out bytes.Buffer
	err := revokeTokens(t.Context(), client, &out, []string{"zzzzzz", "aaaaaa", "abc"}, "aaaaaa")
	if err == nil || !strings.Contains(err.Error(), "zzzzzz") || !strings.Contains(err.Error(), "is not a token") {
		t.Errorf("got %v", err)
	}
	golden.Check(t, "token-revoke", out.String())
	for name, refused := range map[string]bool{"n1": true, "n2": true, "n3": false, "server": false} {
		r, err := roll.RefusalOf(t.Context(), client, name)
		if err != nil || r.Admits("any") == refused {
			t.Errorf("%s: got %+v, %v", name, r, err)
		}
	}
	if _, err := client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("n1 is there: %v", err)
	}
	if _, err := client.CoreV1().Nodes().Get(t.Context(), "n3", metav1.GetOptions{}); err != nil {
		t.Errorf("n3, which another token has admitted since: %v", err)
	}
	// A token that is gone has admitted nodes all the same.
	out.Reset()
	if err := join.Delete(t.Context(), client, "bbbbbb", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := revokeTokens(t.Context(), client, &out, []string{"bbbbbb"}, "aaaaaa"); err != nil || !strings.Contains(out.String(), "node n3: ") {
		t.Errorf("got %v, %s", err, &out)
	}
}

func TestNodeRevoke(t *testing.T) {
	client := admitted(t)
	for name, want := range map[string]string{
		"n3": "node n3 joined with token bbbbbb, which is still valid", "long-gone": "there was no such node",
		"server": "is a server", "N_1": "not a valid node name",
	} {
		var out bytes.Buffer
		err := revokeNode(t.Context(), client, &out, name)
		if got := fmt.Sprint(err, out.String()); !strings.Contains(got, want) {
			t.Errorf("%s: got %s", name, got)
		}
		r, readErr := roll.RefusalOf(t.Context(), client, name)
		if readErr != nil || r.Admits("any") != (err != nil) {
			t.Errorf("%s: got %+v, %v, after %v", name, r, readErr, err)
		}
	}
}

func TestLinkNamedAfterAToolIsThatTool(t *testing.T) {
	was := tools
	t.Cleanup(func() { tools = was })
	var got []string
	tools = []tool{{name: "kubectl", run: func(args []string) error { got = args; return nil }}}
	for _, args := range [][]string{{"/usr/local/bin/kubectl", "get", "pods", "--help"}, {"lite", "kubectl", "get", "pods", "--help"}} {
		got = nil
		if err := run(args); err != nil || strings.Join(got, " ") != "get pods --help" {
			t.Errorf("%q: got %q, %v", args, got, err)
		}
	}
}

// kubectl brings a flag of that name along, which means another version.
func TestVersionFlagIsThatOfLite(t *testing.T) {
	var out bytes.Buffer
	root := command()
	root.SetArgs([]string{"--version"})
	root.SetOut(&out)
	root.SetErr(&out)
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	if want := "lite version " + version.Version() + "\n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
}

func TestHelpKnowsNoFlagsOfOthers(t *testing.T) {
	root := command()
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	server, _, err := root.Find([]string{"server"})
	if err != nil {
		t.Fatal(err)
	}
	if usage := server.InheritedFlags().FlagUsages(); usage != "" {
		t.Errorf("server inherits\n%s", usage)
	}
}
