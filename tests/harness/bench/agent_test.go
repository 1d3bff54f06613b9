package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// measureAgent is one run of one server and one agent, on hosts of their own, and
// of what comes with a cluster.
func measureAgent(b *testing.B, r *report) {
	progress("a server and an agent")
	c := cluster.New(b)
	agent := c.NewAgent(b)
	removeLargeImage(b, agent)
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	client, err := awaitClient(ctx, c.Server())
	if err != nil {
		b.Fatal(err)
	}
	exec := time.Now()
	agent.Launch(b, "--token-file", cluster.TokenFile)
	if err := awaitNode(ctx, client, agent.Name, exec.Add(-time.Second)); err != nil {
		b.Fatal(err)
	}
	r.add(joined, time.Since(exec).Seconds())
	agent.WaitReady(b)

	with := weigh(b, c, exec)
	r.add(agentAnon, with.agentAnon)
	r.add(agentRSS, processOf(b, agent).memory(b).rss)
	r.add(agentCPU, with.agentCPU)

	progress("packets between hosts and between pods")
	measureNetwork(b, r, c)
	for _, n := range []*cluster.Node{agent, c.Server()} {
		n.Stop(b) // or they would disturb those that follow
	}
	measureBatteries(b, r, with)
}

// removeLargeImage takes an image of 44 MB away that nobody runs.
func removeLargeImage(b *testing.B, n *cluster.Node) {
	b.Helper()
	if err := os.Remove(n.Path(cluster.DataDir + "/agent/images/agnhost.tar")); err != nil {
		b.Fatal(err)
	}
}

// place is somewhere to send from or to: a host or a pod.
type place interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	Listen(network, address string) (net.Listener, error)
}

// measureNetwork sends from the agent's host, or a pod on it, and compares what
// passes between pods with what passes between the hosts.
func measureNetwork(b *testing.B, r *report, c *cluster.Cluster) {
	server, agent := c.Server(), c.Agents[0]
	ns := server.Namespace(b)
	for pod, node := range map[string]string{"from": agent.Name, "near": agent.Name, "far": server.Name} {
		ns.Apply(b, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 0
  containers: [{name: wait, image: "lite.test/busybox:1", command: [sleep, "3600"]}]
`, pod, node))
	}
	ns.WaitFor(b, "condition=Ready", "pod/from", "pod/near", "pod/far")
	pod := func(name string) (place, string) {
		return ns.PodNetwork(b, name), ns.Field(b, "pod/"+name, ".status.podIP")
	}
	from, _ := pod("from")
	near, nearIP := pod("near")
	far, farIP := pod("far")

	host := exchange(b, agent, server, server.IP)
	same := exchange(b, from, near, nearIP)
	across := exchange(b, from, far, farIP)
	r.add(hostRate, host.gigabits)
	r.add(nearRate, 100*same.gigabits/host.gigabits)
	r.add(farRate, 100*across.gigabits/host.gigabits)
	r.add(hostTrip, host.micros)
	r.add(nearTrip, same.micros)
	r.add(farTrip, across.micros)
}

// passage is how fast bytes pass between two places.
type passage struct {
	gigabits float64 // per second, one TCP connection
	micros   float64 // median of the round trip of one byte
}

const (
	sendTime = 5 * time.Second
	trips    = 2000
)

// exchange sends bytes one way over one TCP connection for sendTime, then single
// bytes to and fro over another.
func exchange(b *testing.B, from, to place, ip string) passage {
	b.Helper()
	l, err := to.Listen("tcp", net.JoinHostPort(ip, "5201"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	received := make(chan int64, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 256<<10))
		received <- n
		conn.Close()
		if conn, err = l.Accept(); err == nil {
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}
	}()
	dial := func() net.Conn {
		conn, err := from.DialContext(b.Context(), "tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		return conn
	}
	conn := dial()
	data := make([]byte, 256<<10)
	began := time.Now()
	for time.Since(began) < sendTime {
		if _, err := conn.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	conn.Close()
	bits := 8 * float64(<-received)
	p := passage{gigabits: bits / time.Since(began).Seconds() / 1e9}

	conn = dial()
	defer conn.Close()
	var took []float64
	for range trips {
		sent := time.Now()
		if _, err := conn.Write(data[:1]); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, data[:1]); err != nil {
			b.Fatal(err)
		}
		took = append(took, float64(time.Since(sent).Microseconds()))
	}
	slices.Sort(took)
	p.micros = percentile(took, 50)
	return p
}
