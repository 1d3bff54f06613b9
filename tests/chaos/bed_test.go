package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/tests/harness/cluster"
	"lite.io/lite/tests/harness/ledger"
)

const (
	// agents run the pods whose users count.
	agents = 2
	// diskSize is what images and the store of a server need, and more than as much again:
	// the kubelet evicts pods when less than 15 % is free. Only what is written is taken.
	diskSize = 6 << 10 // MiB
	// backTimeout is far above what it takes until all servers are ready again.
	backTimeout = 4 * time.Minute
	// restartDelay is that of the service.
	restartDelay = 5 * time.Second
)

// bed is a cluster whose servers are hurt, and those who use it meanwhile.
type bed struct {
	*cluster.Cluster
	t        *testing.T
	ns       *cluster.Namespace
	api      *ledger.API
	ledger   *ledger.Ledger
	requests *ledger.Requests
	// off is the servers that are not to be started, as nobody would.
	off     map[*cluster.Node]bool
	revived time.Time // when servers that had ended were started last
	turn    int       // which server is next
}

// newBed makes a cluster of servers, pods on its agents, and clients.
func newBed(t *testing.T, servers int) *bed {
	t.Helper()
	c := cluster.New(t, cluster.Servers(servers), cluster.Agents(agents), cluster.Hosts(cluster.Disk(diskSize)),
		cluster.Prepare(func(n *cluster.Node) {
			if n.Role == "server" {
				n.WriteFile(t, "/etc/lite/config.yaml", configuration(servers))
			}
		}))
	b := &bed{Cluster: c, t: t, ns: c.Server().Namespace(t), off: map[*cluster.Node]bool{}}
	b.ns.Apply(t, web(c.Agents))
	b.ns.WaitRollout(t, "daemonset/web")
	b.count(t)
	b.write(t)
	return b
}

// vip is the address of the server that leads, if there are several.
const vip = "10.99.0.200"

// configuration is that of each of some servers.
func configuration(servers int) string {
	text := "etcd-expose-metrics: true\n"
	if servers > 1 {
		text += "cluster-vip: " + vip + "\n"
	}
	return text
}

// web is a pod on each of some nodes, and their Service.
func web(nodes []*cluster.Node) string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
            - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]
      containers:
      - name: web
        image: lite.test/agnhost:2
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`, strings.Join(names, ", "))
}

// count begins to request what the pods serve from each agent, once they are reached.
func (b *bed) count(t *testing.T) {
	t.Helper()
	url := "http://" + b.ns.Field(t, "service/web", ".spec.clusterIP") + "/hostname"
	places := map[string]cluster.Dialer{}
	for _, agent := range b.Agents {
		places[agent.Name] = agent
		cluster.Eventually(t, time.Minute, func() error {
			_, err := cluster.Get(agent, url)
			return err
		})
	}
	b.requests = ledger.Count(url, places)
	t.Cleanup(b.requests.Stop)
}

// write begins to write, to the address that several servers have in turn.
func (b *bed) write(t *testing.T) {
	t.Helper()
	var err error
	b.api, err = ledger.NewAPI(b.Server().Config(t), b.Network.DialContext, b.ns.Name, b.addresses()...)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Servers) > 1 {
		if err := b.api.Through(fmt.Sprintf("%s:%d", vip, layout.APIPort)); err != nil {
			t.Fatal(err)
		}
	}
	b.ledger = ledger.Start(b.api)
	t.Cleanup(b.ledger.Stop)
}

// addresses are those of the servers.
func (b *bed) addresses() (all []string) {
	for _, server := range b.Servers {
		all = append(all, fmt.Sprintf("%s:%d", server.IP, layout.APIPort))
	}
	return all
}

// hold lets time pass, in which a server that ends by itself is started again.
func (b *bed) hold(t *testing.T, d time.Duration) {
	t.Helper()
	for until := time.Now().Add(d); time.Now().Before(until); {
		time.Sleep(min(restartDelay, time.Until(until)))
		b.revive(t)
	}
}

// revive does what the service manager of each server would.
func (b *bed) revive(t *testing.T) {
	t.Helper()
	if time.Since(b.revived) < restartDelay {
		return
	}
	b.revived = time.Now()
	for _, server := range b.Servers {
		if !server.Running() && !b.off[server] {
			t.Logf("lite has ended on %s: %s", server.Name, lastLine(server.Log()))
			server.Launch(t)
		}
	}
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// back waits until all nodes are ready without a hand, and writes go on.
func (b *bed) back(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), backTimeout)
	defer cancel()
	for {
		var waiting []error
		for _, node := range append(b.Servers[:len(b.Servers):len(b.Servers)], b.Agents...) {
			if err := node.Ready(ctx); err != nil {
				waiting = append(waiting, fmt.Errorf("%s: %w", node.Name, err))
			}
		}
		if len(waiting) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not ready after %s: %v", backTimeout, errors.Join(waiting...))
		case <-time.After(time.Second):
			b.revive(t)
		}
	}
	since := b.ledger.Now()
	cluster.Eventually(t, time.Minute, func() error {
		if n := b.ledger.Acknowledged(since); n < 2*ledger.Rate {
			return fmt.Errorf("%d writes were acknowledged: %s", n, b.ledger)
		}
		return nil
	})
}

// leader is the server whose etcd leads.
func (b *bed) leader(t *testing.T) *cluster.Node {
	t.Helper()
	var leader *cluster.Node
	cluster.Eventually(t, time.Minute, func() error {
		for _, server := range b.Servers {
			figures, err := cluster.Get(b.Network, fmt.Sprintf("http://%s:%d/metrics", server.IP, layout.EtcdMetricsPort))
			if err != nil {
				return err
			}
			if strings.Contains(figures, "\netcd_server_is_leader 1\n") {
				leader = server
				return nil
			}
		}
		return errors.New("no server says that it leads")
	})
	return leader
}

// elected is the server that does what is done once per cluster, and has its address.
func (b *bed) elected(t *testing.T) *cluster.Node {
	t.Helper()
	holder := b.Server().Kubectl(t, "get", "lease", layout.Lease, "--namespace", "kube-system", "-o", "jsonpath={.spec.holderIdentity}")
	for _, server := range b.Servers {
		if server.Name == holder {
			return server
		}
	}
	t.Fatalf("none of the servers is %q, which leads", holder)
	return nil
}

// victim is who leads the cluster, then who leads the datastore, then one after the other.
func (b *bed) victim(t *testing.T, round int) *cluster.Node {
	t.Helper()
	switch {
	case round == 0 && len(b.Servers) > 1:
		return b.elected(t)
	case round < 2:
		return b.leader(t)
	}
	b.turn++
	return b.Servers[b.turn%len(b.Servers)]
}

// roles says what a server leads.
func (b *bed) roles(t *testing.T, server *cluster.Node) string {
	t.Helper()
	roles := "follows"
	if server == b.leader(t) {
		roles = "leads the datastore"
	}
	if len(b.Servers) > 1 && server == b.elected(t) {
		roles += " and has the address"
	}
	return roles
}

// other is a server that a fault spares.
func (b *bed) other(than *cluster.Node) *cluster.Node {
	all := rand.Perm(len(b.Servers))
	for _, i := range all {
		if b.Servers[i] != than {
			return b.Servers[i]
		}
	}
	return than
}

// round hurts the cluster once, and holds against it what all who use it have seen.
func (b *bed) round(t *testing.T, f fault, round int) {
	t.Helper()
	victim, containers := b.victim(t, round), b.ns.Containers(t)
	if f.oldest {
		victim = b.Server()
	}
	b.requests.Taken()
	b.ledger.Reasons()
	leads := b.roles(t, victim)
	since, began := b.ledger.Now(), time.Now()
	f.strike(t, b, victim)
	over := time.Now()
	b.back(t)
	t.Logf("%s of %s (%s): no write for %s; all is back %s after its end, %s after its beginning", f.name, victim.Name, leads,
		b.ledger.Outage(since).Round(10*time.Millisecond), time.Since(over).Round(time.Second), time.Since(began).Round(time.Second))
	if reasons := b.ledger.Reasons(); len(reasons) > 0 {
		t.Logf("requests failed meanwhile:\n%s", strings.Join(reasons[:min(len(reasons), 6)], "\n"))
	}
	if outage := b.ledger.Outage(since); f.spares && len(b.Servers) > 1 && outage > outageLimit() {
		t.Errorf("no write was acknowledged for %s", outage)
	}
	right, failed := b.requests.Taken()
	if len(failed) > 0 || right == 0 {
		t.Errorf("%d requests to the Service of pods on agents were answered, and %d failed:\n%s", right, len(failed),
			strings.Join(failed[:min(len(failed), 10)], "\n"))
	}
	if after := b.ns.Containers(t); !maps.Equal(containers, after) {
		t.Errorf("the containers on agents and their restarts were\n%v, and are\n%v", containers, after)
	}
	if err := b.ledger.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
}
