package bench

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"lite.io/lite/tests/harness/cluster"
)

// batteries are the parts that a user may bring instead of ours.
var batteries = []string{"dns", "metrics", "storage", "loadbalancer", "networkpolicy"}

// weight is what a server and an agent use when they are idle.
type weight struct {
	serverAnon, agentAnon float64
	serverCPU, agentCPU   float64
}

// measureBatteries compares a server and an agent with all batteries, weighed
// elsewhere, with another pair that has none.
func measureBatteries(b *testing.B, r *report, with weight) {
	progress("a server and an agent without batteries")
	c := cluster.New(b, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		if n.Role == "server" {
			n.WriteFile(b, "/etc/lite/config.yaml", "disable: "+strings.Join(batteries, ",")+"\n")
		} else {
			removeLargeImage(b, n)
		}
	}))
	without := weigh(b, c, time.Now())
	r.add(batteriesAnon, with.serverAnon-without.serverAnon)
	r.add(batteriesAgentAnon, with.agentAnon-without.agentAnon)
	r.add(batteriesCPU, with.serverCPU-without.serverCPU)
	r.add(batteriesAgentCPU, with.agentCPU-without.agentCPU)
}

// weigh waits until the nodes have been up for as long as an idle node has.
func weigh(b *testing.B, c *cluster.Cluster, began time.Time) (w weight) {
	server, agent := processOf(b, c.Server()), processOf(b, c.Agents[0])
	sleep(b, time.Until(began.Add(flags.settle)))
	w.serverAnon, w.agentAnon = server.memory(b).anon, agent.memory(b).anon
	serverUse, agentUse := server.count(b), agent.count(b)
	sleep(b, flags.window)
	w.serverCPU, w.agentCPU = serverUse(), agentUse()
	return w
}

// count returns a function that says which share of a core was used since, in
// per cent.
func (p process) count(b *testing.B) func() float64 {
	before, began := p.cpuTicks(b), time.Now()
	return func() float64 {
		return 100 * (p.cpuTicks(b) - before) / ticks / time.Since(began).Seconds()
	}
}

// awaitFigures waits until `kubectl top node` would show a node.
func (c conn) awaitFigures(b *testing.B) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	if err := try(ctx, statusPoll, func(ctx context.Context) error {
		answer, err := c.client.Discovery().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/nodes").DoRaw(ctx)
		if err != nil {
			return err
		}
		var list struct{ Items []json.RawMessage }
		if err := json.Unmarshal(answer, &list); err != nil {
			return err
		}
		if len(list.Items) == 0 {
			return errors.New("no node has figures")
		}
		return nil
	}); err != nil {
		b.Fatalf("metrics: %v", err)
	}
}

// expose makes a Service of type LoadBalancer and returns how long it took until
// it had an address.
func (c conn) expose(b *testing.B) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	services := c.client.CoreV1().Services(metav1.NamespaceDefault)
	began := time.Now()
	_, err := services.Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: load},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": load},
			Ports: []corev1.ServicePort{{Port: 80}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, load).String()}
	if err := await(ctx, func(ctx context.Context) (watch.Interface, error) {
		return services.Watch(ctx, options)
	}, func(s *corev1.Service) bool { return len(s.Status.LoadBalancer.Ingress) > 0 }); err != nil {
		b.Fatalf("LoadBalancer Service: %v", err)
	}
	return time.Since(began)
}
