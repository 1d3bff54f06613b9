package datastore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/tests/harness/cluster"
	"lite.io/lite/tests/harness/stores"
)

// TestEtcd: an etcd that somebody else runs.
func TestEtcd(t *testing.T) {
	t.Parallel()
	network := cluster.NewNetwork(t)
	store := stores.Etcd(t, network)
	node := cluster.NewNode(t, cluster.On(network))
	node.Env = []string{"LITE_DATASTORE_ENDPOINT=" + store.Endpoint}
	written := ledger{}
	keeps(t, node, written)
	gone(t, node, store, written, 15*time.Second)
	another(t, network, store)
}

// TestLong runs the databases of Debian.
func TestLong(t *testing.T) {
	cluster.Long(t)
	for _, c := range []struct {
		name   string
		server func(t testing.TB, n *cluster.Network) *stores.Server
		wrong  []wrong
	}{
		{"PostgreSQL", stores.PostgreSQL, []wrong{
			{"password", "", func(endpoint string) string { return strings.Replace(endpoint, "s3cr3t", "s3cr3t2", 1) },
				"correct user and password in datastore-endpoint"},
			{"no database", "", func(endpoint string) string { return strings.Replace(endpoint, "/k8s", "/k9s", 1) },
				`run CREATE DATABASE "k9s" OWNER "lite" as a superuser`},
			{"TLS", "", func(endpoint string) string {
				return strings.Replace(endpoint, "sslmode=disable", "sslmode=require", 1)
			},
				"configure TLS in PostgreSQL"},
			{"no tables", "ALTER DATABASE k8s OWNER TO store", nil, `the user may not create tables; run ALTER DATABASE "k8s" OWNER TO "lite"`},
			{"read-only", "ALTER DATABASE k8s OWNER TO lite; ALTER ROLE lite SET default_transaction_read_only = on", nil,
				"the user's transactions are read-only; run ALTER ROLE"},
			{"", "ALTER ROLE lite RESET default_transaction_read_only", nil, ""},
		}},
		{"MariaDB", func(t testing.TB, n *cluster.Network) *stores.Server { return stores.MariaDB(t, n) }, []wrong{
			{"password", "", func(endpoint string) string { return strings.Replace(endpoint, "s3cr3t", "s3cr3t2", 1) },
				"correct user and password in datastore-endpoint"},
			{"no database", "", func(endpoint string) string { return strings.Replace(endpoint, "/k8s", "/k9s", 1) },
				"run CREATE DATABASE IF NOT EXISTS `k9s`"},
			{"TLS", "", func(endpoint string) string { return endpoint + "?tls=true" }, "configure TLS in the database"},
			{"Galera", "SET GLOBAL auto_increment_increment = 3", nil, "auto_increment_increment is 3"},
			{"read-only", "SET GLOBAL auto_increment_increment = 1; REVOKE ALL ON k8s.* FROM lite@'%'; GRANT SELECT ON k8s.* TO lite@'%'", nil,
				"GRANT ALL ON `k8s`.* TO 'lite'@'%'"},
			{"", "GRANT ALL ON k8s.* TO lite@'%'", nil, ""},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			network := cluster.NewNetwork(t)
			store := c.server(t, network)
			node := cluster.NewNode(t, cluster.On(network))
			for _, w := range c.wrong {
				t.Run("wrong/"+w.name, func(t *testing.T) { w.try(t, node, store) })
			}
			node.Env = []string{"LITE_LOG_LEVEL=debug", "LITE_DATASTORE_ENDPOINT=" + store.Endpoint}
			written := ledger{}
			keeps(t, node, written)
			gone(t, node, store, written, time.Minute)
			hidden(t, node, store)
			another(t, network, store)
		})
	}
}

// wrong is a mistake of an administrator's, and what lite says about it.
type wrong struct {
	name, sql string
	endpoint  func(string) string
	want      string
}

func (w wrong) try(t *testing.T, node *cluster.Node, store *stores.Server) {
	if w.sql != "" {
		store.SQL(t, w.sql)
	}
	if w.want == "" {
		return
	}
	endpoint := store.Endpoint
	if w.endpoint != nil {
		endpoint = w.endpoint(endpoint)
	}
	node.Env = []string{"LITE_DATASTORE_ENDPOINT=" + endpoint}
	refused(t, node, w.want)
}

// gone ends a store for a while, under a running lite: that says so, and goes on when the store is back.
func gone(t *testing.T, node *cluster.Node, store *stores.Server, written ledger, d time.Duration) {
	t.Helper()
	pod := node.Kubectl(t, "get", "pod", "still", "-o", "jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID}")
	pid := node.PID(t)
	began := time.Now()
	store.Kill(t)
	cluster.Eventually(t, d, func() error {
		status, _ := node.Command(t.Context(), "lite", "status").CombinedOutput()
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "datastore ") && strings.Contains(line, "failed") && strings.Contains(line, store.IP) {
				return nil
			}
		}
		return fmt.Errorf("lite status:\n%s", status)
	})
	time.Sleep(time.Until(began.Add(d))) // it is not there for so long
	store.Start(t)
	node.WaitReady(t)
	if now := node.PID(t); now != pid {
		t.Errorf("lite was process %d and is %d", pid, now)
	}
	if now := node.Kubectl(t, "get", "pod", "still", "-o", "jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID}"); now != pod {
		t.Errorf("the pod was %s, and is %s", pod, now)
	}
	written.check(t, node)
	written.write(t, node, 20)
	cluster.Eventually(t, time.Minute, func() error {
		events, err := node.Client(t).CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=DatastoreUnavailable"})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Type == corev1.EventTypeWarning && e.InvolvedObject.Name == node.Name {
				return nil
			}
		}
		return fmt.Errorf("no event tells of the outage: %v", events.Items)
	})
	// What happens now is watched: the scheduler and the kubelet hear of a new pod.
	node.Kubectl(t, "run", "later", "--image=lite.test/busybox:1", "--command", "--", "sleep", "100000")
	node.Kubectl(t, "wait", "--for=condition=Ready", "--timeout=120s", "pod/later")
}

// hidden looks for the password where people look, with the endpoint on the command line.
func hidden(t *testing.T, node *cluster.Node, store *stores.Server) {
	t.Helper()
	node.Stop(t)
	node.Env = []string{"LITE_LOG_LEVEL=debug"}
	node.Start(t, "--datastore-endpoint="+store.Endpoint)
	for name, text := range map[string]string{
		"log":          node.Log(),
		"status":       node.Output(t, "lite", "status"),
		"config print": node.Output(t, "lite", "config", "print"),
		"ps":           strings.Join(strings.Split(node.Output(t, "cat", fmt.Sprintf("/proc/%d/cmdline", node.PID(t))), "\x00"), " "),
	} {
		if strings.Contains(text, "s3cr3t") {
			at := strings.Index(text, "s3cr3t")
			t.Errorf("%s shows the password: %q", name, text[max(0, at-200):at+20])
		}
	}
}

// another is a second cluster on the same store, which is refused.
func another(t *testing.T, network *cluster.Network, store *stores.Server) {
	t.Helper()
	other := cluster.NewNode(t, cluster.On(network))
	other.Env = []string{"LITE_DATASTORE_ENDPOINT=" + store.Endpoint}
	refused(t, other, "belongs to another cluster")
}

// TestLongThreeServers: several servers on one database form a cluster that survives the loss of one, without etcd.
func TestLongThreeServers(t *testing.T) {
	cluster.Long(t)
	var store *stores.Server
	c := cluster.New(t, cluster.Servers(3), cluster.Prepare(func(n *cluster.Node) {
		if store == nil {
			store = stores.PostgreSQL(t, n.Network())
		}
		n.Env = []string{"LITE_DATASTORE_ENDPOINT=" + store.Endpoint}
	}))
	written := ledger{}
	for _, server := range c.Servers {
		written.write(t, server, 20)
	}
	for _, server := range c.Servers {
		written.check(t, server)
	}
	for _, lost := range c.Servers[:2] {
		lost.Kill(t)
		rest := c.Servers[2]
		name := "after-" + lost.Name
		// Only what leads makes pods of a Deployment.
		rest.Kubectl(t, "create", "deployment", name, "--image=lite.test/busybox:1", "--", "sleep", "100000")
		cluster.Eventually(t, 2*time.Minute, func() error {
			if made := rest.Kubectl(t, "get", "deployment", name, "-o", "jsonpath={.status.replicas}"); made != "1" {
				return fmt.Errorf("%s pods", made)
			}
			return nil
		})
		lost.Start(t)
		written.check(t, lost)
	}
}
