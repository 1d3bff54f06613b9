// Package servers has clusters of several servers.
package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// TestJoin grows a cluster from one server to three, by way of everything that must not make a server of a machine.
func TestJoin(t *testing.T) {
	c := cluster.New(t)
	first := c.Server()
	j := &joining{cluster: c, first: first}
	second, third := cluster.NewNode(t, cluster.On(c.Network)), cluster.NewNode(t, cluster.On(c.Network))
	third.WriteFile(t, "/etc/lite/config.yaml", "node-taint: "+controlPlane+":NoSchedule\n")
	t.Run("Refused", func(t *testing.T) { j.testRefused(t, second) })
	t.Run("TwoAtOnce", func(t *testing.T) { j.testTwoAtOnce(t, second, third) })
	if t.Failed() {
		return
	}
	c.Servers = append(c.Servers, second, third)
	t.Run("Same", j.testSame)
	t.Run("Taint", j.testTaint)
	t.Run("NameTaken", j.testNameTaken)
	t.Run("Restart", j.testRestart)
	t.Run("LosesData", j.testLosesData)
	t.Run("DataDamaged", j.testDataDamaged)
	for _, s := range c.Servers {
		for _, secret := range j.secrets {
			if strings.Contains(s.Log(), secret) {
				t.Errorf("the log of %s has the secret %s in it", s.Name, secret)
			}
		}
	}
}

type joining struct {
	cluster *cluster.Cluster
	first   *cluster.Node
	secrets []string
}

// token makes one for servers, or as the arguments say.
func (j *joining) token(t *testing.T, args ...string) (text, id string) {
	t.Helper()
	text = strings.TrimSpace(j.first.Output(t, "lite", append([]string{"token", "create"}, args...)...))
	id, rest, _ := strings.Cut(strings.TrimPrefix(text, "lite://"), ".")
	secret, _, found := strings.Cut(rest, "@")
	if !found {
		t.Fatalf("lite token create printed %q", text)
	}
	j.secrets = append(j.secrets, secret)
	return text, id
}

func (j *joining) testRefused(t *testing.T, machine *cluster.Node) {
	good, _ := j.token(t, "--role", "server", "--ttl", "1h")
	agents, _ := j.token(t)
	deleted, deletedID := j.token(t, "--role", "server")
	j.first.Output(t, "lite", "token", "delete", deletedID)
	short, shortID := j.token(t, "--role", "server", "--ttl", "1s")
	cluster.Eventually(t, 30*time.Second, func() error {
		for line := range strings.Lines(j.first.Output(t, "lite", "token", "list")) {
			if strings.HasPrefix(line, shortID) && !strings.Contains(line, "expired") {
				return fmt.Errorf("has not expired: %s", line)
			}
		}
		return nil
	})
	secret := j.secrets[0]
	for name, r := range map[string]struct {
		token string
		args  []string
		want  []string
	}{
		"for agents":       {token: agents, want: []string{"as agent", "lite token create --role server"}},
		"deleted":          {token: deleted, want: []string{deletedID, "deleted", "lite token create"}},
		"expired":          {token: short, want: []string{"lite token create"}},
		"wrong secret":     {token: strings.Replace(good, secret, "aaaabbbbccccdddd", 1), want: []string{"another secret"}},
		"no address":       {token: strings.TrimPrefix(good[:strings.Index(good, "@")], "lite://"), args: []string{"--server", "http://192.0.2.1"}, want: []string{"https://"}},
		"other cluster":    {token: good[:strings.LastIndex(good, "/")+1] + strings.Repeat("0", 64), want: []string{"another cluster"}},
		"contradiction":    {token: good, args: []string{"--cluster-cidr=10.60.0.0/16", "--disable=metrics"}, want: []string{`cluster-cidr "10.60.0.0/16"`, `disable "metrics"`, "the cluster has"}},
		"wrong argument":   {token: good, args: []string{"--etcd-arg=name=x"}, want: []string{"etcd-arg"}},
		"address in a URL": {token: good, args: []string{"--server", "https://" + j.first.IP + ":10250"}, want: []string{":10250"}},
	} {
		t.Run(name, func(t *testing.T) { j.refuse(t, machine, r.token, r.args, r.want) })
	}
	if out := machine.Output(t, "sh", "-c", "find "+cluster.DataDir+" -name '*.key'"); out != "" {
		t.Errorf("a machine that was refused has keys: %s", out)
	}
}

// refuse starts a server that must end with one line that says why.
func (j *joining) refuse(t *testing.T, machine *cluster.Node, token string, args, want []string) {
	t.Helper()
	machine.WriteFile(t, cluster.TokenFile, token)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lite := machine.Command(ctx, "lite", append([]string{"server", "--token-file", cluster.TokenFile}, args...)...)
	var stderr bytes.Buffer
	lite.Stderr = &stderr
	err := lite.Run()
	if lite.ProcessState == nil {
		t.Fatal(err)
	}
	all := strings.TrimSpace(stderr.String())
	message := all[strings.LastIndexByte(all, '\n')+1:]
	if code := lite.ProcessState.ExitCode(); code != 1 || !strings.HasPrefix(message, "lite: ") {
		t.Errorf("exit code %d:\n%s", code, all)
	}
	for _, w := range want {
		if !strings.Contains(message, w) {
			t.Errorf("%q does not contain %q", message, w)
		}
	}
	for _, secret := range j.secrets {
		if strings.Contains(all, secret) {
			t.Errorf("it shows the secret %s", secret)
		}
	}
}

// testTwoAtOnce has two servers join at the same instant, one of which is killed on the way again and again.
func (j *joining) testTwoAtOnce(t *testing.T, second, third *cluster.Node) {
	for _, n := range []*cluster.Node{second, third} {
		token, _ := j.token(t, "--role", "server", "--ttl", "1h")
		n.WriteFile(t, cluster.TokenFile, token)
		n.Launch(t, "--token-file", cluster.TokenFile)
	}
	for _, sign := range []string{"membership.json", "pki/sa.key", "etcd/member/wal", "etcd/member/snap/db"} {
		path := second.Path(cluster.DataDir + "/server/" + sign)
		cluster.Eventually(t, time.Minute, func() error { _, err := os.Stat(path); return err })
		second.Kill(t)
		second.Launch(t, "--token-file", cluster.TokenFile)
	}
	second.WaitReady(t)
	third.WaitReady(t)
}

// member is what the API says of one.
type member struct {
	Name    string
	ID      string
	Learner bool
	Leader  bool
}

// members is those that a server knows.
func members(t *testing.T, of *cluster.Node) (all []member) {
	t.Helper()
	if err := json.Unmarshal([]byte(of.Kubectl(t, "get", "--raw", "/lite/v1/members")), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// voting checks that a server knows three members that vote.
func voting(t *testing.T, of *cluster.Node) {
	t.Helper()
	all, leaders := members(t, of), 0
	for _, m := range all {
		if m.Leader {
			leaders++
		}
		if m.Learner || m.Name == "" {
			t.Errorf("%s knows a member that does not vote: %+v", of.Name, m)
		}
	}
	if len(all) != 3 || leaders != 1 {
		t.Errorf("%s knows the members %+v", of.Name, all)
	}
}

// testSame compares what the servers share, and what they do not.
func (j *joining) testSame(t *testing.T) {
	read := func(n *cluster.Node, name string) string { return n.ReadFile(t, cluster.DataDir+"/server/"+name) }
	for _, s := range j.cluster.Servers {
		voting(t, s)
		if n := strings.Count(s.Kubectl(t, "get", "nodes", "--no-headers"), " Ready "); n != 3 {
			t.Errorf("%s knows %d nodes that are ready", s.Name, n)
		}
		addresses := s.Kubectl(t, "get", "endpointslices", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[0]}")
		for _, other := range j.cluster.Servers {
			if !strings.Contains(addresses, other.IP) {
				t.Errorf("the Service kubernetes leads to %s, and not to %s", addresses, other.IP)
			}
		}
		if s == j.first {
			continue
		}
		for _, name := range []string{"pki/ca.key", "pki/front-proxy-ca.key", "pki/etcd/ca.key", "pki/sa.key", "encryption.yaml", "facts.json"} {
			if read(s, name) != read(j.first, name) {
				t.Errorf("%s has another %s", s.Name, name)
			}
		}
		for _, name := range []string{"pki/apiserver.key", "pki/lite.key", "pki/etcd/peer.key", "pki/kubelet-client.key"} {
			if read(s, name) == read(j.first, name) {
				t.Errorf("%s has the same %s as the first", s.Name, name)
			}
		}
	}
	j.first.Kubectl(t, "create", "secret", "generic", "shared", "--from-literal=a=b")
	for _, s := range j.cluster.Servers {
		if got := s.Kubectl(t, "get", "secret", "shared", "-o", "jsonpath={.data.a}"); got != "Yg==" {
			t.Errorf("%s reads %q", s.Name, got)
		}
	}
}

// testNameTaken starts a server under the name of one that is up: nothing happens to that.
func (j *joining) testNameTaken(t *testing.T) {
	machine := cluster.NewNode(t, cluster.On(j.cluster.Network))
	token, _ := j.token(t, "--role", "server", "--ttl", "1h")
	machine.WriteFile(t, cluster.TokenFile, token)
	before := members(t, j.first)
	machine.Launch(t, "--token-file", cluster.TokenFile, "--node-name", j.cluster.Servers[1].Name)
	cluster.Eventually(t, 30*time.Second, func() error {
		if !strings.Contains(machine.Log(), fmt.Sprintf("the name %q is held by another node", j.cluster.Servers[1].Name)) &&
			!strings.Contains(machine.Log(), "is held by another node") {
			return fmt.Errorf("it says\n%s", machine.Log())
		}
		return nil
	})
	machine.Stop(t)
	if after := members(t, j.first); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the members were %+v, and are %+v", before, after)
	}
}

// testRestart starts each server again, without a token and with one that has ended.
func (j *joining) testRestart(t *testing.T) {
	for i, s := range j.cluster.Servers {
		s.Stop(t)
		if i == 1 {
			s.Start(t, "--token-file", cluster.TokenFile)
		} else {
			s.Start(t)
		}
		voting(t, s)
	}
	j.cluster.Servers[2].Stop(t)
	j.refuseMember(t, j.cluster.Servers[2], "--cluster-cidr=10.60.0.0/16", `cluster-cidr "10.60.0.0/16"`)
	j.first.Stop(t)
	j.refuseMember(t, j.first, "--disable=metrics", `disable "metrics"`)
	j.first.Launch(t)
	j.cluster.Servers[2].Launch(t)
	j.first.WaitReady(t)
	j.cluster.Servers[2].WaitReady(t)
}

func (j *joining) refuseMember(t *testing.T, s *cluster.Node, arg, want string) {
	t.Helper()
	out, err := s.Command(t.Context(), "lite", "server", arg).CombinedOutput()
	if err == nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "contradicts its cluster") {
		t.Errorf("%s: %v\n%s", arg, err, out)
	}
}

// testLosesData takes the datastore of the first server away: it gets it from the others, and makes no cluster of its own.
func (j *joining) testLosesData(t *testing.T) {
	before := members(t, j.cluster.Servers[1])
	j.first.Kill(t)
	j.first.Output(t, "rm", "-r", cluster.DataDir+"/server/etcd")
	j.first.Start(t)
	voting(t, j.first)
	for _, m := range members(t, j.first) {
		for _, was := range before {
			if m.ID == was.ID && was.Name == j.first.Name {
				t.Errorf("it votes under the identity of before, %s", m.ID)
			}
		}
	}
	if got := j.first.Kubectl(t, "get", "secret", "shared", "-o", "jsonpath={.data.a}"); got != "Yg==" {
		t.Errorf("it reads %q", got)
	}
}
