package upgrade

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/tests/harness/cluster"
	"lite.io/lite/tests/harness/versions"
)

// definition is a resource of a user's, and an object of it.
const definition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.test}
spec:
  group: example.test
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// TestLong needs a second lite, on another minor version of Kubernetes: helpers, bundle
// and program of an earlier commit, of which nothing is there on a new machine.
func TestLong(t *testing.T) {
	cluster.Long(t)
	t.Run("Minor", testMinor)
}

// testMinor crosses a minor version of Kubernetes, etcd and containerd, and goes
// back: a server and an agent of the version before, with all that people have in a
// cluster.
func testMinor(t *testing.T) {
	before, after := versions.PreviousMinor(t), nextBinary(t)
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		installProgram(t, n, before).put(t, after, "/var/lib/next")
	}))
	server, agent := bed{c.Server()}, bed{c.Agents[0]}
	old, _ := server.versions(t)
	all := newBelongings(t, server, agent)
	token := strings.TrimSpace(server.Output(t, "lite", "token", "create"))
	all.intact(t)

	t.Run("forced failure", func(t *testing.T) {
		// The new version has opened the store and is never ready without a pod network.
		fails := server.pose(t, "/var/lib/fails", func(p *pose) {
			p.Version.Version, p.Exec = next, "/var/lib/next"
			p.Version.Kubernetes, p.Version.Etcd = minors(p.Version.Kubernetes, 1), minors(p.Version.Etcd, 1)
			p.Write, p.Content = "/etc/lite/config.yaml.d/90-broken.yaml", "disable: [cni]\n"
		})
		// The version before drives, and these are its words.
		server.refused(t, []string{"upgrade", "--health-timeout=25s", "--artifact", fails}, "was not healthy within 25s", "was taken back and "+old+" runs again")
		server.WaitReady(t)
		server.is(t, old)
		server.clean(t)
		all.intact(t)
	})
	t.Run("under load", func(t *testing.T) {
		stop := writes(t, server)
		server.must(t, "upgrade", "--artifact", "/var/lib/next")
		stop()
		server.is(t, next)
		server.clean(t)
		server.WaitReady(t)
		all.intact(t)
	})
	t.Run("agent one behind", func(t *testing.T) {
		agent.is(t, old)
		all.ns.Kubectl(t, "run", "late", "--image=lite.test/busybox:1", "--overrides",
			`{"spec":{"nodeName":"`+agent.Name+`","terminationGracePeriodSeconds":0}}`, "--command", "--", "sh", "-c", "echo started; sleep 3600")
		all.ns.WaitFor(t, "condition=Ready", "pod/late")
		if got := all.ns.Kubectl(t, "logs", "late"); got != "started\n" {
			t.Errorf("its log is %q", got)
		}
		all.ns.Kubectl(t, "delete", "pod", "late")
	})
	t.Run("token", func(t *testing.T) {
		joins := cluster.NewNode(t, cluster.On(c.Network))
		joins.Role = "agent"
		joins.WriteFile(t, cluster.TokenFile, token)
		joins.Start(t, "--token-file", cluster.TokenFile)
	})
	agent.must(t, "upgrade", "--artifact", "/var/lib/next")
	agent.is(t, next)
	all.intact(t)
	t.Run("back", func(t *testing.T) {
		// No agent is newer than a server, so it goes first.
		agent.must(t, "rollback", "--yes")
		server.must(t, "rollback", "--yes")
		server.WaitReady(t)
		agent.WaitReady(t)
		agent.is(t, old)
		server.is(t, old)
		all.intact(t)
	})
}

// belongings is what people have in a cluster: a web server on both nodes, a database with
// a volume on the agent, an object of a kind of their own, and a Secret.
type belongings struct {
	ns         *cluster.Namespace
	containers map[string]string
}

func newBelongings(t *testing.T, server, agent bed) belongings {
	t.Helper()
	ns := server.Namespace(t)
	server.KubectlStdin(t, definition, "create", "-f", "-")
	server.Kubectl(t, "wait", "--for=condition=Established", "crd/gadgets.example.test")
	ns.Apply(t, cluster.Web(4)+"---"+cluster.Database(1, cluster.Idle(agent.Node))+"---\napiVersion: example.test/v1\nkind: Gadget\nmetadata: {name: one}\nsize: 7\n")
	ns.WaitRollout(t, "deployment/web")
	ns.WaitRollout(t, "statefulset/db")
	ns.Exec(t, "db-0", "sh", "-c", "echo precious >/data/file && sync")
	ns.Kubectl(t, "create", "secret", "generic", "key", "--from-literal=word=swordfish")
	return belongings{ns, ns.Containers(t)}
}

// intact checks that all is there and works, in the containers in which it began.
func (b belongings) intact(t *testing.T) {
	t.Helper()
	same(t, b.ns, b.containers)
	for _, check := range [][3]string{
		{"gadget/one", ".size", "7"}, {"secret/key", ".data.word", "c3dvcmRmaXNo"}, {"pvc/data-db-0", ".status.phase", "Bound"},
	} {
		if got := b.ns.Field(t, check[0], check[1]); got != check[2] {
			t.Errorf("%s: %s is %q, want %q", check[0], check[1], got, check[2])
		}
	}
	if got := b.ns.Exec(t, "db-0", "cat", "/data/file"); got != "precious\n" {
		t.Errorf("the volume holds %q", got)
	}
	b.ns.Exec(t, "deployment/web", "/agnhost", "connect", "web:80", "--timeout=10s") // a name, a Service, and pods of both nodes
}

// writes has objects created until stop is called, which checks that every one that
// was acknowledged is there.
func writes(t *testing.T, n bed) (stop func()) {
	t.Helper()
	var acknowledged atomic.Int64
	prefix := fmt.Sprintf("write-%d-", time.Now().UnixNano()) // others may have written before
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	maps := n.Client(t).CoreV1().ConfigMaps("default")
	go func() {
		defer close(done)
		for i := int64(0); ctx.Err() == nil; {
			_, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: prefix + strconv.FormatInt(i, 10)}}, metav1.CreateOptions{})
			if err == nil || strings.Contains(err.Error(), "already exists") { // its answer was lost
				i++
				acknowledged.Store(i)
				continue
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() {
		t.Helper()
		cancel()
		<-done
		there, err := n.Client(t).CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, m := range there.Items {
			names[m.Name] = true
		}
		for i := range acknowledged.Load() {
			if name := prefix + strconv.FormatInt(i, 10); !names[name] {
				t.Errorf("%s was acknowledged and is lost", name)
			}
		}
		if acknowledged.Load() == 0 {
			t.Error("nothing was written")
		}
		t.Logf("%d writes were acknowledged and are there", acknowledged.Load())
	}
}
