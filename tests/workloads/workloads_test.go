// Package workloads shows that what users run on Kubernetes runs on lite, and
// that what they expect of its API holds.
package workloads

import (
	"context"
	"fmt"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// TestWorkloads runs everything on one cluster, each test in a namespace of
// its own. The machine's network outside of the cluster is c.Network.
func TestWorkloads(t *testing.T) {
	mirror := &mirror{}
	c := cluster.New(t, cluster.Prepare(func(n *cluster.Node) { mirror.serve(t, n) }))
	s := suite{cluster: c, mirror: mirror}

	// It disturbs discovery, which all others need, so it comes before them.
	t.Run("AggregatedAPIDown", func(t *testing.T) { s.testAggregatedAPIDown(t, c.Server().Namespace(t)) })

	for _, test := range []struct {
		name string
		run  func(*testing.T, *cluster.Namespace)
	}{
		{"CronJob", s.testCronJob}, // waits a minute, so it starts early
		{"Probes", s.testProbes},
		{"Deployment", s.testDeployment},
		{"Service", s.testService},
		{"StatefulSet", s.testStatefulSet},
		{"DaemonSet", s.testDaemonSet},
		{"Job", s.testJob},
		{"Volumes", s.testVolumes},
		{"InitAndSidecarContainers", s.testInitAndSidecar},
		{"EphemeralContainer", s.testEphemeralContainer},
		{"SharedProcessNamespace", s.testSharedProcessNamespace},
		{"HostPort", s.testHostPort},
		{"Logs", s.testLogs},
		{"Exec", s.testExec},
		{"Attach", s.testAttach},
		{"Copy", s.testCopy},
		{"PortForward", s.testPortForward},
		{"Describe", s.testDescribe},
		{"RBAC", s.testRBAC},
		{"AnonymousAccess", s.testAnonymousAccess},
		{"ResourceQuota", s.testResourceQuota},
		{"LimitRange", s.testLimitRange},
		{"PodSecurity", s.testPodSecurity},
		{"CustomResource", s.testCustomResource},
		{"SecretEncryption", s.testSecretEncryption},
		{"ImageTarball", s.testImageTarball},
		{"RegistryMirror", s.testRegistryMirror},
		{"RegistriesChange", s.testRegistriesChange},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			test.run(t, c.Server().Namespace(t))
		})
	}
}

// suite is what all tests share.
type suite struct {
	cluster *cluster.Cluster
	mirror  *mirror
}

// pod is a manifest of a pod with one container that runs a shell script.
func pod(name, script string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %[1]s}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sh, -c, %q]
`, name, script)
}

// server is a manifest of a pod that answers HTTP on port 8080; its paths are
// those of "agnhost netexec": /hostname, /clientip, /dial, /shell, …
func server(name string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %[1]s}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/agnhost:2
    args: [netexec, --http-port=8080]
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`, name)
}

// timeout is for whatever is to happen soon: generous, as the machine is busy.
const timeout = 90 * time.Second

// eventually is [cluster.Eventually] with that timeout.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	cluster.Eventually(t, timeout, f)
}

// within returns a context for one command that must not take longer.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
