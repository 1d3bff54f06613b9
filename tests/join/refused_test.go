package join

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// preShared is a secret as a person would make one up.
const preShared = "correct horse battery staple"

// TestBadTokens lets machines try everything that must not let them in. At last
// one of them joins.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	network := cluster.NewNetwork(t)
	server, other := cluster.NewNode(t, cluster.On(network)), cluster.NewNode(t, cluster.On(network))
	server.Launch(t, "--token", preShared)
	other.Start(t)
	server.WaitReady(t)
	d := door{server: server, other: other, url: "https://" + server.IP + ":6443"}
	for range 4 {
		agent := cluster.NewNode(t, cluster.On(network))
		agent.Role = "agent"
		d.agents = append(d.agents, agent)
	}
	t.Run("Refused", d.testRefused)
	t.Run("BesidesAToken", d.testBesidesAToken)
	t.Run("ServerComesLater", d.testServerComesLater)
	t.Run("Contradiction", d.testContradiction)
	t.Run("OtherCluster", d.testOtherCluster)
	t.Run("NameOfALivingNode", d.testNameOfALivingNode)
	d.checkSecrets(t)
}

// door is a server and machines that want to be let in.
type door struct {
	server  *cluster.Node
	other   *cluster.Node // a server of another cluster
	agents  []*cluster.Node
	url     string
	secrets []string // that must be in no log
}

// create makes a token and notes its secret.
func (d *door) create(t *testing.T, args ...string) (text, id, secret string) {
	t.Helper()
	text = strings.TrimSpace(d.server.Output(t, "lite", append([]string{"token", "create"}, args...)...))
	m := regexp.MustCompile(`^lite://([a-z0-9]{6})\.([a-z0-9]{16})@`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("lite token create printed %q", text)
	}
	d.secrets = append(d.secrets, m[2])
	return text, m[1], m[2]
}

// checkSecrets looks for all of them in what lite has printed on either side.
func (d *door) checkSecrets(t *testing.T) {
	for _, secret := range append(d.secrets, preShared) {
		for _, n := range append(d.agents, d.server, d.other) {
			if strings.Contains(n.Log(), secret) {
				t.Errorf("the log of lite on %s has the secret %s in it", n.Name, secret)
			}
		}
	}
}

// refusal is a start that ends in one line.
type refusal struct {
	args, env []string
	// file is the content of the token file, if args do not name a token.
	file string
	want []string
}

func (d *door) testRefused(t *testing.T) {
	good, id, secret := d.create(t)
	asServer, _, _ := d.create(t, "--role", "server")
	deleted, deletedID, _ := d.create(t)
	d.server.Output(t, "lite", "token", "delete", deletedID)
	expired := d.expired(t)
	hash := hashIn(good)
	other, otherShort := d.ofOther(t)
	const wrong = "aaaabbbbccccdddd"
	d.secrets = append(d.secrets, wrong, "ofk3s-secret")

	d.tryAll(t, map[string]refusal{
		"no token":         {want: []string{"token", "lite token create --print-join-command"}},
		"no token, server": {args: []string{"--server", d.url}, want: []string{"token", "lite token create"}},
		"empty token file": {file: "\n", want: []string{"token-file", "empty"}},
		"no token file":    {args: []string{"--token-file", "/etc/lite/none"}, want: []string{"token-file", "/etc/lite/none"}},
		"both":             {args: []string{"--token", good, "--token-file", "/etc/lite/token"}, want: []string{"token-file", "one of them"}},
		"cut off":          {file: good[:len(good)-8], want: []string{"token-file", "hash", "lite token create"}},
		"no hash":          {file: good[:strings.Index(good, "/sha256/")], want: []string{"token-file", "/sha256/"}},
		"short secret":     {file: strings.Replace(good, secret, secret[:10], 1), want: []string{"token-file", "secret", "16"}},
		"by the flag":      {args: []string{"--token", strings.Replace(good, secret, secret[:10], 1)}, want: []string{"token", "secret", "16"}},
		"by environment":   {env: []string{"LITE_TOKEN=" + good[:len(good)-8]}, want: []string{"token", "hash"}},
		"LITE_URL":         {env: []string{"LITE_TOKEN=" + id + "." + wrong, "LITE_URL=" + d.url}, want: []string{d.url, id, "another secret"}},
		"of k3s": {file: "K10" + hash + "::server:ofk3s-secret", args: []string{"--server", d.url},
			want: []string{"k3s", "lite token create"}},
		"a URL":                      {args: []string{"--token", d.url}, want: []string{"URL", "--server"}},
		"no server":                  {file: id + "." + secret, want: []string{"server", "--server https://"}},
		"no server, LITE_":           {env: []string{"LITE_TOKEN=" + id + "." + secret}, want: []string{"--server https://"}},
		"other cluster":              {file: other, args: []string{"--server", d.url}, want: []string{d.url, hash, hashIn(other), "another cluster"}},
		"other cluster's address":    {file: strings.Replace(good, d.server.IP, d.other.IP, 1), want: []string{d.other.IP, hash, hashIn(other), "another cluster"}},
		"other cluster, no hash":     {file: otherShort, args: []string{"--server", d.url}, want: []string{d.url, otherShort[:6], "compare the token and the address"}},
		"other cluster, LITE_URL":    {env: []string{"LITE_TOKEN=" + other, "LITE_URL=" + d.url}, want: []string{d.url, hash, hashIn(other), "another cluster"}},
		"wrong secret":               {file: strings.Replace(good, secret, wrong, 1), want: []string{d.url, id, "another secret"}},
		"wrong secret, by signature": {file: id + "." + wrong, args: []string{"--server", d.url}, want: []string{d.url, id, "another secret"}},
		"unknown":                    {file: "zzzzzz." + wrong, args: []string{"--server", d.url}, want: []string{"zzzzzz", "lite token list"}},
		"unknown, full":              {file: strings.Replace(good, id+"."+secret, "zzzzzz."+wrong, 1), want: []string{"zzzzzz", "lite token list"}},
		"another shared secret":      {file: "incorrect horse battery staple", args: []string{"--server", d.url}, want: []string{"lite token"}},
		"deleted":                    {file: deleted, want: []string{deletedID, "deleted", "lite token create"}},
		"deleted, by environment":    {env: []string{"LITE_TOKEN=" + deleted}, want: []string{deletedID, "deleted"}},
		"expired":                    {file: expired, want: []string{"expired", "lite token create"}},
		"for servers":                {file: asServer, want: []string{"as server", "lite token create --role agent"}},
		"not TLS":                    {file: good, args: []string{"--server", "http://" + d.server.IP + ":6443"}, want: []string{"https://"}},
		"other ranges":               {file: good, env: []string{"LITE_SERVICE_CIDR=10.61.0.0/16"}, want: []string{`service-cidr "10.61.0.0/16" (environment LITE_SERVICE_CIDR), but the cluster has "10.43.0.0/16"`}},
		"another cluster's facts": {file: good, env: []string{"LITE_CLUSTER_CIDR=10.60.0.0/16", "LITE_CLUSTER_DOMAIN=Other.TEST.", "LITE_DISABLE=dns,cni", "LITE_FLANNEL_BACKEND=vxlan"},
			want: []string{`contradicts its cluster: cluster-cidr "10.60.0.0/16"`, `"10.42.0.0/16"`, `cluster-domain "other.test" (environment LITE_CLUSTER_DOMAIN)`, `disable "dns,cni"`, "remove these settings"}},
		"a kubelet": {file: good, args: []string{"--server", "https://" + d.server.IP + ":10250"}, want: []string{":10250", "6443"}},
	})
	for _, server := range []*cluster.Node{d.server, d.other} {
		if nodes := strings.Fields(server.Kubectl(t, "get", "nodes", "-o", "name")); len(nodes) != 1 {
			t.Errorf("nodes are %v", nodes)
		}
	}
}

// ofOther is the token of the other cluster, in full and without its hash.
func (d *door) ofOther(t *testing.T) (full, short string) {
	t.Helper()
	full = strings.TrimSpace(d.other.ReadFile(t, cluster.DataDir+"/server/token"))
	short, _, _ = strings.Cut(strings.TrimPrefix(full, "lite://"), "@")
	d.secrets = append(d.secrets, short[strings.IndexByte(short, '.')+1:])
	return full, short
}

// hashIn returns the hash of the CA that is in a token.
func hashIn(token string) string { return token[strings.LastIndexByte(token, '/')+1:] }

// tryAll makes all attempts, one at a time on each machine: some wait for seconds
// whether the server does not know the token yet.
func (d *door) tryAll(t *testing.T, refusals map[string]refusal) {
	machines := make(chan *cluster.Node, len(d.agents))
	for _, agent := range d.agents {
		machines <- agent
	}
	var trying sync.WaitGroup
	for name, r := range refusals {
		agent := <-machines
		trying.Go(func() {
			defer func() { machines <- agent }()
			t.Run(name, func(t *testing.T) { d.refuse(t, agent, r) })
		})
	}
	trying.Wait()
}

// expired returns a token whose time is over.
func (d *door) expired(t *testing.T) string {
	text, id, _ := d.create(t, "--ttl", "1s")
	cluster.Eventually(t, 30*time.Second, func() error {
		list := d.server.Output(t, "lite", "token", "list")
		for line := range strings.Lines(list) {
			if strings.HasPrefix(line, id) && !strings.Contains(line, "expired") {
				return fmt.Errorf("has not expired: %s", line)
			}
		}
		return nil
	})
	return text
}

// refuse makes the attempt.
func (d *door) refuse(t *testing.T, agent *cluster.Node, r refusal) {
	t.Helper()
	if r.file != "" {
		agent.WriteFile(t, cluster.TokenFile, r.file)
		r.args = append(r.args, "--token-file", cluster.TokenFile)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	lite := agent.Command(ctx, "lite", append([]string{"agent"}, r.args...)...)
	lite.Env = append(lite.Env, r.env...)
	var stderr bytes.Buffer
	lite.Stderr = &stderr
	err := lite.Run()
	if lite.ProcessState == nil {
		t.Fatal(err)
	}
	if code := lite.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	all := strings.TrimSpace(stderr.String())
	message := all[strings.LastIndexByte(all, '\n')+1:]
	for _, want := range r.want {
		if !strings.Contains(message, want) {
			t.Errorf("does not say %q", want)
		}
	}
	if !strings.HasPrefix(message, "lite: ") || strings.Count(all, "lite: ") != 1 {
		t.Error("it is not one line that begins with lite:")
	}
	for _, secret := range append(d.secrets, preShared) {
		if strings.Contains(all, secret) {
			t.Errorf("shows the secret %s", secret)
		}
	}
	if t.Failed() {
		t.Logf("it printed:\n%s", all)
	} else {
		t.Log(message)
	}
}

// testBesidesAToken shows the other two ways to say a token and a server.
func (d *door) testBesidesAToken(t *testing.T) {
	_, id, secret := d.create(t)
	for name, token := range map[string]string{"id and secret": id + "." + secret, "shared secret": preShared} {
		t.Run(name, func(t *testing.T) {
			agent := cluster.NewNode(t, cluster.On(d.server.Network()))
			agent.Role = "agent"
			agent.WriteFile(t, "/etc/lite/config.yaml", fmt.Sprintf("server: %s\n", d.url))
			agent.WriteFile(t, cluster.TokenFile, token+"\n")
			agent.Start(t, "--token-file", cluster.TokenFile)
			agent.Stop(t)
		})
	}
}

// testServerComesLater starts the agent while nothing listens at the server's
// address.
func (d *door) testServerComesLater(t *testing.T) {
	good, _, _ := d.create(t)
	agent := d.agents[0]
	d.server.Stop(t)
	agent.WriteFile(t, cluster.TokenFile, good)
	agent.Launch(t, "--token-file", cluster.TokenFile)
	cluster.Eventually(t, 20*time.Second, func() error {
		for _, want := range []string{"cannot reach the server " + d.url, "start `lite server`"} {
			if !strings.Contains(agent.Log(), want) {
				return fmt.Errorf("does not say %q:\n%s", want, agent.Log())
			}
		}
		return nil
	})
	status, err := agent.Command(t.Context(), "lite", "status").CombinedOutput()
	if err == nil || !strings.Contains(string(status), "cannot reach the server") {
		t.Errorf("lite status: %v\n%s", err, status)
	}
	d.server.Start(t)
	agent.WaitReady(t)
}

// testContradiction gives a node a file of another cluster, and then one that all machines
// of its own cluster could share.
func (d *door) testContradiction(t *testing.T) {
	const file = "/etc/lite/config.yaml"
	agent := d.agents[0]
	agent.Stop(t)
	agent.WriteFile(t, file, "cluster-cidr: 10.60.0.0/16\nflannel-backend: host-gw\ncluster-domain: CLUSTER.local.\n")
	d.refuse(t, agent, refusal{want: []string{`cluster-cidr "10.60.0.0/16" (` + file + `:1), but the cluster has "10.42.0.0/16"; flannel-backend "host-gw" (` + file + `:2), but the cluster has "vxlan"; remove`}})
	shown := agent.Output(t, "lite", "config", "print", "agent")
	for _, want := range []string{
		`cluster-cidr: [10.60.0.0/16] # ` + file + `:1; cluster-wide, and the cluster has "10.42.0.0/16"`, "cluster-domain: cluster.local # " + file + ":3; cluster-wide\n", "service-cidr: [10.43.0.0/16] # the cluster's\n",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("lite config print agent does not have %q:\n%s", want, shown)
		}
	}
	agent.WriteFile(t, file, "cluster-cidr: [10.42.0.0/16]\nservice-cidr: 10.43.0.0/16\ncluster-dns: 10.43.0.10\ndisable: []\ncluster-domain: CLUSTER.local.\n")
	agent.Start(t)
	agent.WriteFile(t, file, "")
}

// testOtherCluster gives a node a token of another cluster: it must not seem to
// be in that one then.
func (d *door) testOtherCluster(t *testing.T) {
	agent := d.agents[0]
	token, _ := d.ofOther(t)
	agent.Stop(t)
	d.refuse(t, agent, refusal{file: token, want: []string{"is not the one that this machine is in", hashIn(token)[:12], cluster.DataDir + "/agent"}})
	agent.Start(t)
}
