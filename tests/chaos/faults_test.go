package chaos

import (
	"context"
	crypto "crypto/rand"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/tests/harness/cluster"
)

const (
	// apart is for how long servers do not hear of each other: above every timeout of
	// etcd's, and above the leases of those who do what is done once per cluster.
	apart = 25 * time.Second
	// frozenFor is how long a machine stands still.
	frozenFor = 30 * time.Second
	// downFor is how long most servers are down.
	downFor = time.Minute
)

// kill ends a server as the kernel does when memory is short.
func kill(t *testing.T, b *bed, victim *cluster.Node) {
	victim.Kill(t)
	b.hold(t, restartDelay+time.Second)
}

// cut takes the cable of a server.
func cut(t *testing.T, b *bed, victim *cluster.Node) {
	b.Network.Cut(t, victim.Host)
	b.hold(t, apart)
	b.Network.Heal(t, victim.Host)
}

// oneWay lets a server hear the others, who do not hear it; or the other way round.
func oneWay(t *testing.T, b *bed, victim *cluster.Node) {
	direction := []cluster.Direction{cluster.In, cluster.Out}[rand.IntN(2)]
	t.Logf("lost is what matches %s", direction)
	b.Network.Lose(t, victim.Host, 100, direction)
	b.hold(t, apart)
	b.Network.Found(t)
}

// halfLost loses every second packet of a server's.
func halfLost(t *testing.T, b *bed, victim *cluster.Node) {
	b.Network.Lose(t, victim.Host, 50, cluster.In, cluster.Out)
	b.hold(t, apart)
	b.Network.Found(t)
}

// frozen stops the machine of a server, as a hypervisor does.
func frozen(t *testing.T, b *bed, victim *cluster.Node) {
	victim.Freeze(t)
	b.hold(t, frozenFor)
	victim.Thaw(t)
}

// powerCut takes the power of a server's machine, and with it all that was not synced.
func powerCut(t *testing.T, b *bed, victim *cluster.Node) {
	victim.Reboot(t)
	victim.Launch(t)
}

// diskFull fills the disk of a server for a while. What the store has set aside for itself
// is used up by large objects, which the others take.
func diskFull(t *testing.T, b *bed, victim *cluster.Node) {
	client := b.other(victim).Client(t).CoreV1().ConfigMaps(metav1.NamespaceDefault)
	victim.FillDisk(t)
	ctx, cancel := context.WithTimeout(t.Context(), apart)
	defer cancel()
	var written int
	var refused error
	for written < maxLarge && ctx.Err() == nil {
		_, err := client.Create(ctx, large(), metav1.CreateOptions{})
		if err == nil {
			written++
		} else if ctx.Err() == nil {
			refused = err
			kube.Sleep(ctx, time.Second)
		}
		b.revive(t)
	}
	t.Logf("%d objects of half a megabyte were written; the last that was not: %v", written, refused)
	victim.FreeDisk(t)
	b.back(t)
	err := b.other(victim).Client(t).CoreV1().ConfigMaps(metav1.NamespaceDefault).
		DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "large"})
	if err != nil {
		t.Errorf("delete the large objects: %v", err)
	}
}

// maxLarge is twice as much as a log file of etcd's has room for.
const maxLarge = 256

func large() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "large-", Labels: map[string]string{"large": ""}},
		Data:       map[string]string{"key": strings.Repeat(crypto.Text(), 512<<10/26)},
	}
}

// clockAhead gives a server a clock that is ten minutes ahead, and then a right one.
func clockAhead(t *testing.T, b *bed, victim *cluster.Node) {
	for _, ahead := range []time.Duration{10 * time.Minute, 0} {
		victim.Kill(t)
		victim.Clock = ahead
		victim.Launch(t)
		if ahead != 0 {
			b.back(t)
			b.hold(t, apart)
		}
	}
}

// majorityDown takes down all servers but one for a minute: nothing is written, and what
// is read says why.
func majorityDown(t *testing.T, b *bed, first *cluster.Node) {
	survivor := b.other(first)
	for _, server := range b.Servers {
		if server != survivor {
			b.off[server] = true
			server.Kill(t)
		}
	}
	down := b.ledger.Now()
	b.hold(t, downFor)
	// What was under way may have been acknowledged just before.
	if n := b.ledger.Acknowledged(down + time.Second); n > 0 {
		t.Errorf("%d writes were acknowledged by one of %d servers", n, len(b.Servers))
	}
	if out, err := survivor.KubectlErr(t, "get", "configmaps", "--request-timeout=10s"); err == nil {
		t.Errorf("one of %d servers shows what may be old: %s", len(b.Servers), out)
	} else {
		t.Logf("a read says: %s", strings.TrimSpace(out))
	}
	out, err := survivor.Command(t.Context(), "lite", "status").CombinedOutput()
	t.Logf("lite status: %v\n%s", err, out)
	clear(b.off)
	for _, server := range b.Servers {
		if server != survivor {
			server.Launch(t)
		}
	}
}

// allKilled ends all servers at once.
func allKilled(t *testing.T, b *bed, _ *cluster.Node) {
	for _, server := range b.Servers {
		server.Kill(t)
	}
	b.hold(t, restartDelay+time.Second)
}

// allWithoutPower takes the power of all servers' machines.
func allWithoutPower(t *testing.T, b *bed, _ *cluster.Node) {
	for _, server := range b.Servers {
		server.Reboot(t)
	}
	b.hold(t, restartDelay+time.Second)
}

// replaced puts a new machine in the place of a server, which is lost for good.
func replaced(t *testing.T, b *bed, victim *cluster.Node) {
	b.JoinServer(t, b.NewServer(b.t)) // it outlives this part of the test
	if err := b.api.Use(b.addresses()...); err != nil {
		t.Fatal(err)
	}
	victim.Kill(t)
	b.Servers = slices.DeleteFunc(b.Servers, func(n *cluster.Node) bool { return n == victim })
	b.ns.Node = b.Server()
	b.removeMember(t, victim.Name)
	cluster.Eventually(t, time.Minute, func() error {
		out, err := b.Server().KubectlErr(t, "delete", "node", victim.Name, "--ignore-not-found")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err := b.api.Use(b.addresses()...); err != nil {
		t.Fatal(err)
	}
}

// removeMember takes a server that is gone out of the datastore, as lite itself may.
func (b *bed) removeMember(t *testing.T, name string) {
	t.Helper()
	config := b.Server().Config(t)
	config.Host = fmt.Sprintf("https://127.0.0.1:%d", layout.APIPort) // the cluster's address may be on its way
	pair := cluster.DataDir + "/server/pki/" + pki.Lite
	config.CertData, config.KeyData = []byte(b.Server().ReadFile(t, pair+".crt")), []byte(b.Server().ReadFile(t, pair+".key"))
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Discovery().RESTClient().Delete().AbsPath(layout.MembersPath, name).Do(t.Context()).Error(); err != nil {
		t.Fatalf("remove member %s: %v", name, err)
	}
}
