package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"lite.io/lite/manifests"
	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/check/cis"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/server"
	"lite.io/lite/tests/golden"
)

// Who has no API, or no lite, is told what is wrong with the command.
func TestCISRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"check --cis -o xml":               "table, json or junit",
		"check --cis --fix":                "cannot be combined with --fix",
		"check --cis --strict":             "cannot be combined with --fix, --strict",
		"check --cis --nodes 192.0.2.0/24": "or --nodes; leave them out",
		"check -o junit":                   "must be table or json",
	} {
		root := command()
		root.SetArgs(strings.Fields(args))
		if err := root.Execute(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// TestCISDocument compares docs/cis.md, and the results that tests/check compares with
// a real node's, with what a fresh default node of each role is judged.
func TestCISDocument(t *testing.T) {
	s, a := freshServer(t), freshAgent(t)
	golden.Check(t, "cis-server", cisLines(s))
	golden.Check(t, "cis-agent", cisLines(a))

	file := filepath.Join("..", "..", "docs", "cis.md")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	after := replacePart(t, string(before), "entries", cisTables(s, a))
	switch {
	case after == string(before):
	case *golden.Update:
		if err := os.WriteFile(file, []byte(after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s does not say how a fresh node is judged: run `make golden` and look at the difference", file)
	}
}

// cisLines is a result as tests/check has it too.
func cisLines(r cis.Report) string {
	var b strings.Builder
	for _, e := range r.Entries {
		fmt.Fprintf(&b, "%s %s: %s\n", e.Number, e.Status, e.Seen)
	}
	return b.String()
}

// cisTables is a table of each section, and one of what does not pass.
func cisTables(s, a cis.Report) string {
	agents := map[string]cis.Result{}
	for _, e := range a.Entries {
		agents[e.Number] = e
	}
	var b strings.Builder
	b.WriteString("\n| | " + cisHead(cis.Statuses) + " |\n|---" + strings.Repeat("|---", len(cis.Statuses)) + "|\n")
	b.WriteString(cisCounts("a server", s) + cisCounts("an agent", a))
	for _, section := range cis.Sections {
		fmt.Fprintf(&b, "\n### %s %s\n\n| | Asks that | Level | Kind | Server | Agent |\n|---|---|---|---|---|---|\n", section.Number, section.Title)
		rest := ""
		for _, e := range s.Entries {
			if cis.SectionOf(e.Number) != section.Number {
				continue
			}
			on, there := agents[e.Number]
			fmt.Fprintf(&b, "| %s | %s | %d | %s | %s | %s |\n", e.Number, cell(e.Title), e.Level, e.Kind, e.Status, on.Status)
			rest += cisWhy(e, on, there)
		}
		if rest != "" {
			b.WriteString("\n| | Found | Why | What to do |\n|---|---|---|---|\n" + rest)
		}
	}
	return b.String() + "\n"
}

func cisHead(all []cis.Status) string {
	var names []string
	for _, s := range all {
		names = append(names, string(s))
	}
	return strings.Join(names, " | ")
}

func cisCounts(name string, r cis.Report) string {
	line := "| " + name
	for _, s := range cis.Statuses {
		line += fmt.Sprintf(" | %d", r.Totals[s])
	}
	return line + " |\n"
}

// cisWhy is a row for what does not pass, and a second where an agent differs.
func cisWhy(s, a cis.Result, agent bool) (rows string) {
	row := func(number string, e cis.Result) {
		if e.Status != cis.Pass {
			rows += fmt.Sprintf("| %s | %s | %s | %s |\n", number, cell(e.Seen), cell(e.Reason), cell(e.Remedy))
		}
	}
	row(s.Number, s)
	if agent && (a.Status != s.Status || a.Status != cis.Pass && a.Seen != s.Seen) {
		row(s.Number+", agent", a)
	}
	return rows
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// loaded is a default configuration of a node whose files are below a root.
func loaded(t *testing.T, role config.Role, root string) *config.Config {
	t.Helper()
	file := filepath.Join(root, "config.yaml") // and not what this machine may have
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	flags := config.Flags(role)
	args := []string{"--data-dir", root + "/var/lib/lite", "--config", file, "--node-name", "node-a", "--node-ip", "192.0.2.10"}
	if role == config.Server {
		args = append(args, "--write-kubeconfig", root+"/etc/lite/kubeconfig.yaml")
	} else {
		args = append(args, "--server", "https://192.0.2.1:6443", "--token", "abcdef.0123456789abcdef")
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(role, flags, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// judged is a node whose group is made and not run. Its files are below root, and
// named as they are on a machine.
func judged(t *testing.T, cfg *config.Config, root string, g *component.Group, objects *cis.Objects) cis.Report {
	t.Helper()
	parts, err := g.Settings()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	parts = nil
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(text), root, "")), &parts); err != nil {
		t.Fatal(err)
	}
	n := &cis.Node{Layout: layout.Default(),
		Role: cfg.Role, Root: root, DataDir: strings.TrimPrefix(cfg.DataDir, root), Kubeconfig: strings.TrimPrefix(cfg.WriteKubeconfig, root),
		Components: parts, Objects: objects,
		// Whoever runs the test stands for root.
		Stat: func(path string) (cis.File, error) {
			f, err := cis.Stat(path)
			f.UID, f.GID = 0, 0
			return f, err
		},
	}
	return cis.Judge(n)
}

// running makes what the components make when they run.
func running(t *testing.T, cfg *config.Config, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(cfg.DataDir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func freshServer(t *testing.T) cis.Report {
	root := t.TempDir()
	cfg := loaded(t, config.Server, root)
	facts, err := server.Facts(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Config{Node: cfg, Cluster: facts, Host: agent.Host{Systemd: true, NFTables: true}}, func(component.Status) {})
	if err != nil {
		t.Fatal(err)
	}
	node, err := s.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	running(t, cfg, "agent/cni/10-lite.conflist", "server/etcd/member/x")
	return judged(t, cfg, root, node.Group, freshCluster(t))
}

func freshAgent(t *testing.T) cis.Report {
	root := t.TempDir()
	cfg := loaded(t, config.Agent, root)
	g := &component.Group{}
	dir := string(cfg.Layout().Data.Agent())
	if err := agent.Add(g, agent.Config{
		Node: cfg, Host: agent.Host{Systemd: true, NFTables: true}, Client: kube.NewClient(dir+"/kubelet.conf", "node"), CAFile: dir + "/ca.crt",
		Cluster: config.StandardFacts(),
	}, nil); err != nil {
		t.Fatal(err)
	}
	running(t, cfg, "agent/kubelet.conf", "agent/ca.crt", "agent/cni/10-lite.conflist")
	return judged(t, cfg, root, g, nil)
}

// freshCluster holds what Kubernetes and lite make, and nothing of users.
func freshCluster(t *testing.T) *cis.Objects {
	t.Helper()
	given, err := cis.Given()
	if err != nil {
		t.Fatal(err)
	}
	o := &cis.Objects{Access: given}
	for _, name := range []string{"default", "kube-node-lease", "kube-public", "kube-system"} {
		ns := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		account := corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: name}}
		shipped(t, "Namespace", "", name, &ns)
		shipped(t, "ServiceAccount", name, "default", &account)
		o.Namespaces, o.ServiceAccounts = append(o.Namespaces, ns), append(o.ServiceAccounts, account)
	}
	return o
}

// shipped puts what an embedded manifest says over an object, if one is about it.
// Those of profiles are not among the defaults.
func shipped(t *testing.T, kind, namespace, name string, into any) {
	t.Helper()
	err := fs.WalkDir(manifests.FS, ".", func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || path.Ext(file) != ".yaml" || path.Dir(file) == "profiles" {
			return err
		}
		data, err := manifests.FS.ReadFile(file)
		if err != nil {
			return err
		}
		for document := range bytes.SplitSeq(data, []byte("\n---\n")) {
			var head struct {
				Kind     string            `json:"kind"`
				Metadata metav1.ObjectMeta `json:"metadata"`
			}
			if err := yaml.Unmarshal(document, &head); err != nil {
				return err
			}
			if head.Kind == kind && head.Metadata.Namespace == namespace && head.Metadata.Name == name {
				return yaml.Unmarshal(document, into)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
