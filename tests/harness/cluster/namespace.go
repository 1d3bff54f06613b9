package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Namespace is a namespace of the cluster, made for one test.
type Namespace struct {
	Name string
	Node *Node
}

// Namespace makes a namespace and begins to delete it when the test ends. The
// labels are written key=value.
func (n *Node) Namespace(t testing.TB, labels ...string) *Namespace {
	t.Helper()
	_, name, _ := strings.Cut(t.Name(), "/")
	if name == "" {
		name = t.Name()
	}
	name = strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name)), "-")
	ns := &Namespace{Name: name, Node: n}
	n.Kubectl(t, "create", "namespace", name)
	if len(labels) > 0 {
		n.Kubectl(t, append([]string{"label", "namespace", name}, labels...)...)
	}
	// A pod is refused until its namespace has a service account.
	Eventually(t, time.Minute, func() error {
		out, err := ns.KubectlErr(t, "get", "serviceaccount", "default")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	t.Cleanup(func() {
		if t.Failed() {
			ns.dump(t)
		}
		ns.delete()
	})
	return ns
}

// Kubectl is [Node.Kubectl] in the namespace.
func (ns *Namespace) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return ns.Node.Kubectl(t, ns.within(args)...)
}

// KubectlStdin is [Node.KubectlStdin] in the namespace.
func (ns *Namespace) KubectlStdin(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	return ns.Node.KubectlStdin(t, stdin, ns.within(args)...)
}

// KubectlErr is [Node.KubectlErr] in the namespace.
func (ns *Namespace) KubectlErr(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return ns.Node.KubectlErr(t, ns.within(args)...)
}

// Apply applies manifests.
func (ns *Namespace) Apply(t testing.TB, manifests string) {
	t.Helper()
	ns.KubectlStdin(t, manifests, "apply", "-f", "-")
}

// ApplyErr applies manifests that may be refused; it returns what kubectl
// prints, errors included.
func (ns *Namespace) ApplyErr(t testing.TB, manifests string) (string, error) {
	t.Helper()
	stdout, stderr, err := ns.Node.kubectl(t, manifests, ns.within([]string{"apply", "-f", "-"})...)
	return stdout + stderr, err
}

// Field returns a field of an object, by JSONPath without braces: ".status.phase".
func (ns *Namespace) Field(t testing.TB, object, path string) string {
	t.Helper()
	return ns.Kubectl(t, "get", object, "-o", "jsonpath={"+path+"}")
}

// Containers are those of the pods that run, with their restarts: what is the same
// before and after was not touched.
func (ns *Namespace) Containers(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(ns.Kubectl(t, "get", "pods", "-o",
		`jsonpath={range .items[*].status.containerStatuses[*]}{.containerID} {.restartCount}{"\n"}{end}`)) {
		id, restarts, _ := strings.Cut(strings.TrimSpace(line), " ")
		all[id] = restarts
	}
	return all
}

// WaitFor waits for what `kubectl wait --for` knows, such as "condition=Ready".
func (ns *Namespace) WaitFor(t testing.TB, what string, objects ...string) {
	t.Helper()
	ns.Kubectl(t, append([]string{"wait", "--timeout=110s", "--for=" + what}, objects...)...)
}

// WaitRollout waits until a workload has reached what its manifest says.
func (ns *Namespace) WaitRollout(t testing.TB, workload string) {
	t.Helper()
	ns.Kubectl(t, "rollout", "status", "--timeout=110s", workload)
}

// Exec runs a command in a pod and returns what it prints.
func (ns *Namespace) Exec(t testing.TB, pod string, command ...string) string {
	t.Helper()
	return ns.Kubectl(t, append([]string{"exec", pod, "--"}, command...)...)
}

func (ns *Namespace) within(args []string) []string {
	return append([]string{"--namespace", ns.Name}, args...)
}

// dump logs what one wants to see of a namespace in which a test has failed.
func (ns *Namespace) dump(t testing.TB) {
	for _, args := range [][]string{{"get", "all", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"}} {
		out, _ := ns.Node.lastWords(ns.within(args)...)
		t.Logf("kubectl %s:\n%s", strings.Join(args, " "), tail(out, 40))
	}
}

func (ns *Namespace) delete() {
	_, _ = ns.Node.lastWords("delete", "namespace", ns.Name, "--wait=false")
}
