package nodes

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// The agent is stopped, and killed. Its pods run on and answer; then it takes
// them over, and needs no token for that.
func (s *suite) testAgentStops(t *testing.T) {
	agent, p := s.cluster.Agents[0], s.pods[1]
	before := s.containers(t)
	url := "http://" + p.IP + ":8080/hostname"
	agent.Output(t, "rm", cluster.TokenFile)
	for name, end := range map[string]func(){
		"SIGTERM": func() { agent.Stop(t) },
		"SIGKILL": func() { agent.Kill(t) },
	} {
		end()
		for _, from := range []cluster.Dialer{s.pods[0], s.pods[2], agent} {
			if got, err := cluster.Get(from, url); err != nil || got != p.name {
				t.Errorf("after %s: %q, %v", name, got, err)
			}
		}
		agent.Start(t)
		reach(t, "after the start", s.pods[2], url, p.name)
		soon(t, func() error { return s.nodesReady(t) })
		if after := s.containers(t); after != before {
			t.Errorf("after %s the containers are\n%s\nthey were\n%s", name, after, before)
		}
	}
}

// containers lists the pods that are to stay, with their containers and how often
// each was started.
func (s *suite) containers(t *testing.T) string {
	t.Helper()
	return s.ns.Kubectl(t, "get", "pods", "-l", "app in (web,host,single,patient)", "-o",
		"jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}\n{end}")
}

func (s *suite) nodesReady(t *testing.T) error {
	got := s.ns.Node.Kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}")
	if got != strings.TrimSpace(strings.Repeat("True ", len(s.nodes))) {
		return fmt.Errorf("the nodes are ready: %s", got)
	}
	return nil
}

// The server is stopped, and killed. The agents go on without it, and work with
// it again when it is back, by themselves.
func (s *suite) testServerStops(t *testing.T) {
	server := s.cluster.Server()
	var pids []int
	for _, n := range s.cluster.Agents {
		pids = append(pids, n.PID(t))
	}
	before := s.containers(t)
	for _, end := range []func(){func() { server.Stop(t) }, func() { server.Kill(t) }} {
		end()
		reach(t, "while the server is down", s.pods[1], "http://"+s.pods[2].IP+":8080/hostname", s.pods[2].name)
		server.Start(t)
		for i, n := range s.cluster.Agents {
			cluster.Eventually(t, 30*time.Second, func() error { return uses(t, n, server) })
			if n.PID(t) != pids[i] {
				t.Errorf("lite on %s has been started again", n.Name)
			}
		}
		soon(t, func() error { return s.nodesReady(t) })
		if after := s.containers(t); after != before {
			t.Errorf("the containers are\n%s\nthey were\n%s", after, before)
		}
	}
	// What is new gets to the agents.
	s.ns.Apply(t, withSecret(s.nodes[1].Name))
	s.ns.Kubectl(t, "delete", "pod", s.pods[1].name)
	s.ns.WaitRollout(t, "daemonset/web")
	s.findPods(t)
	reach(t, "a new pod", s.pods[2], "http://"+s.pods[1].IP+":8080/hostname", s.pods[1].name)
}

// uses asks an agent whether all is well there and it works with a server.
func uses(t *testing.T, agent, server *cluster.Node) error {
	t.Helper()
	inUse := regexp.MustCompile(regexp.QuoteMeta(server.IP+":6443") + ` +healthy +\S+ +yes`)
	out, err := agent.Command(t.Context(), "lite", "status").CombinedOutput()
	if err != nil || !inUse.Match(out) {
		return fmt.Errorf("lite status on %s: %v\n%s", agent.Name, err, out)
	}
	return nil
}
