package bench

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"lite.io/lite/tests/cluster"
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

// measureClaim counts from the creation of a claim and a pod that mounts it until
// the pod runs.
func (c conn) measureClaim(b *testing.B) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	began := time.Now()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "claim"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}
	if _, err := c.client.CoreV1().PersistentVolumeClaims(metav1.NamespaceDefault).Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "claims"}, Spec: podSpec()}
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"},
	}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	if _, err := c.client.CoreV1().Pods(metav1.NamespaceDefault).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	if err := awaitPod(ctx, c.client, "claims"); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// measureAddress counts from the creation of a Service of type LoadBalancer until
// it has an address.
func (c conn) measureAddress(b *testing.B) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	services := c.client.CoreV1().Services(metav1.NamespaceDefault)
	began := time.Now()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "outside"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 8088}}},
	}
	if _, err := services.Create(ctx, service, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, "outside").String()}
	err := await(ctx, func(ctx context.Context) (watch.Interface, error) {
		return services.Watch(ctx, options)
	}, func(s *corev1.Service) bool { return len(s.Status.LoadBalancer.Ingress) > 0 })
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}
