package upgrade

import (
	"fmt"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// TestCluster upgrades a server and then an agent, under pods on both, and takes
// the server back: the agent works on with a store that is an earlier one.
func TestCluster(t *testing.T) {
	t.Parallel()
	artifact := nextBinary(t)
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		install(t, n).put(t, artifact, "/var/lib/next")
	}))
	server, agent := bed{c.Server()}, bed{c.Agents[0]}
	old, _ := server.versions(t)
	ns := server.Namespace(t)
	pin := func(pod, node string) {
		t.Helper()
		ns.Kubectl(t, "run", pod, "--image=lite.test/busybox:1", "--overrides",
			`{"spec":{"nodeName":"`+node+`","terminationGracePeriodSeconds":0}}`, "--command", "--", "sleep", "3600")
	}
	running := func(pod string) {
		t.Helper()
		cluster.Eventually(t, timeout, func() error {
			if phase := ns.Field(t, "pod/"+pod, ".status.phase"); phase != "Running" {
				return fmt.Errorf("pod %s is %s", pod, phase)
			}
			return nil
		})
	}
	roles := server.Kubectl(t, "get", "nodes", "-L", "node-role.kubernetes.io/control-plane", "--no-headers")
	for line := range strings.Lines(roles) {
		words := strings.Fields(line) // name, status, roles, age, version, value
		if want := map[string]string{server.Name: "control-plane", agent.Name: "<none>"}[words[0]]; words[2] != want {
			t.Errorf("the role of %s is %s, want %s", words[0], words[2], want)
		}
	}
	pin("on-server", server.Name)
	pin("on-agent", agent.Name)
	running("on-server")
	running("on-agent")
	before := ns.Containers(t)

	t.Run("agent newer than the server", func(t *testing.T) {
		newer := agent.pose(t, "/var/lib/newer", func(p *pose) { p.Version.Kubernetes = minors(p.Version.Kubernetes, 1) })
		agent.refused(t, []string{"upgrade", "--artifact", newer}, "must not be newer", "upgrade all servers first")
		agent.is(t, old)
	})
	// A bundle with images, as it is carried to machines without a network.
	server.put(t, cluster.ImageTarball(t, "busybox"), "/var/lib/more.tar")
	server.must(t, "bundle", "create", "--binary", "/var/lib/next", "--image-file", "/var/lib/more.tar", "--output", "/var/lib/bundle.tar")
	server.must(t, "upgrade", "--artifact", "/var/lib/bundle.tar")
	server.is(t, next)
	archives := func() string {
		return server.Output(t, "find", cluster.DataDir+"/agent/images", "-name", "more-*.tar")
	}
	if archives() == "" {
		t.Error("the images of the bundle are not where they are imported from")
	}
	agent.must(t, "upgrade", "--artifact", "/var/lib/next")
	agent.is(t, next)
	agent.clean(t)
	server.WaitReady(t)
	same(t, ns, before)

	pin("later", agent.Name)
	running("later")
	server.must(t, "rollback", "--yes")
	server.is(t, old)
	if left := archives(); left != "" {
		t.Errorf("the images of the bundle were left: %s", left)
	}
	server.WaitReady(t)
	// The agent has seen later revisions than the store had.
	cluster.Eventually(t, timeout, func() error {
		out, err := agent.Command(t.Context(), "lite", "crictl", "pods", "--name", "^later$", "-q").Output()
		if err != nil || len(out) > 0 {
			return fmt.Errorf("the agent runs a pod still that is not in the cluster: %s, %w", out, err)
		}
		return nil
	})
	pin("again", agent.Name)
	running("again")
	ns.Kubectl(t, "delete", "pod", "again")
	same(t, ns, before)
	agent.must(t, "rollback", "--yes")
	agent.is(t, old)
	same(t, ns, before)
}
