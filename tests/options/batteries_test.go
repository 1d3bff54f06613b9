package options

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/tests/harness/cluster"
)

// batteries is all that a node is ready without; TestNoNetwork leaves out the others.
func batteries() []addon.Battery {
	return slices.DeleteFunc(addon.All(), func(b addon.Battery) bool { return b.Name == addon.KubeProxy || b.Name == addon.CNI })
}

// used is something for each of them.
const used = `
apiVersion: v1
kind: Pod
metadata: {name: user, labels: {app: user}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: lite.test/busybox:1, command: [sleep, "100000"], volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: lb}
spec: {type: LoadBalancer, selector: {app: user}, ports: [{port: 8088}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress]}
`

// TestWithoutBatteries switches all batteries off on a node that has used them.
// It is then as one that never had them: no socket, no rule and no object is left.
func TestWithoutBatteries(t *testing.T) {
	t.Parallel()
	n := cluster.New(t).Server()
	ns := n.Namespace(t)
	ns.Apply(t, used)
	ns.WaitFor(t, "condition=Ready", "pod/user")
	eventually(t, func() error { _, err := n.KubectlErr(t, "top", "node"); return err })
	ns.Kubectl(t, "delete", "pod/user", "pvc/data", "service/lb", "networkpolicy/deny")
	eventually(t, func() error {
		out, err := n.KubectlErr(t, "get", "persistentvolumes", "-o", "name")
		if err == nil && out != "" {
			err = fmt.Errorf("there still is %s", out)
		}
		return err
	})
	n.Stop(t)
	var names, aliases []string
	for _, b := range batteries() {
		names, aliases = append(names, string(b.Name)), append(aliases, cmp.Or(b.Alias, string(b.Name)))
	}
	n.Start(t, "--disable="+strings.Join(names, ","))
	never := cluster.NewNode(t)
	never.Start(t, "--disable="+strings.Join(aliases, ","))
	eventually(t, func() error {
		var still []error
		for _, b := range batteries() {
			still = append(still, has(t, n, b))
		}
		return errors.Join(still...)
	})
	for what, look := range map[string]func(*testing.T, *cluster.Node) string{
		"sockets": sockets, "rules": tables, "interfaces": links, "objects": objects, "parts": parts,
	} {
		eventually(t, func() error { // kube-proxy may not have written its rules yet
			if more, less := differences(look(t, n), look(t, never)); len(more)+len(less) > 0 {
				return fmt.Errorf("%s: there still are %q, and only without ever having had batteries %q", what, more, less)
			}
			return nil
		})
	}
	t.Logf("goroutines: %s, without ever having had batteries %s", goroutines(t, n), goroutines(t, never))
	never.Stop(t)
	n.Stop(t)
}

// has is an error that names what a node has of a battery, beside a component that takes back what was there.
func has(t *testing.T, n *cluster.Node, b addon.Battery) error {
	t.Helper()
	var found []string
	for line := range strings.Lines(n.Output(t, "lite", "status")) {
		if words := strings.Fields(line); len(words) > 0 && slices.Contains(slices.Concat(b.Server, b.Node), words[0]) && !slices.Contains(words, "disabled") {
			found = append(found, line)
		}
	}
	listens := n.Output(t, "ss", "-Hltun")
	for _, p := range b.Ports {
		if regexp.MustCompile(fmt.Sprintf(`:%d\s`, p)).MatchString(listens) {
			found = append(found, fmt.Sprintf("port %d", p))
		}
	}
	node := n.Kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata['labels','annotations']}")
	for _, mark := range b.Marks {
		if strings.Contains(node, `"`+mark+`"`) {
			found = append(found, mark)
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%s is disabled, and there still is %q", b.Name, found)
	}
	return nil
}

// sockets are the addresses and ports that lite listens on.
func sockets(t *testing.T, n *cluster.Node) string {
	t.Helper()
	return lines(strings.ReplaceAll(n.Output(t, "sh", "-c", "ss -Hltun | awk '{print $1, $5}' | grep -v ':[0-9]\\{5\\}$'"), n.IP, "HOST"))
}

// lines sorts the lines of a list; every namespace has the CA.
func lines(list string) string {
	var all []string
	for line := range strings.Lines(list) {
		all = append(all, strings.Join(strings.Fields(line), " "))
	}
	all = slices.DeleteFunc(all, func(line string) bool { return strings.Contains(line, "kube-root-ca.crt") })
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\n")
}

// differences are the lines of either list that the other has not.
func differences(a, b string) (onlyA, onlyB []string) {
	in := func(list string) func(string) bool {
		all := strings.Split(list, "\n")
		return func(line string) bool { return slices.Contains(all, line) }
	}
	return slices.DeleteFunc(strings.Split(a, "\n"), in(b)), slices.DeleteFunc(strings.Split(b, "\n"), in(a))
}

func tables(t *testing.T, n *cluster.Node) string {
	t.Helper()
	return lines(n.Output(t, "nft", "list", "tables"))
}

var pair = regexp.MustCompile(`veth\S+`)

func links(t *testing.T, n *cluster.Node) string {
	t.Helper()
	return pair.ReplaceAllString(n.Output(t, "sh", "-c", "ls /sys/class/net"), "veth")
}

func objects(t *testing.T, n *cluster.Node) string {
	t.Helper()
	return lines(n.Kubectl(t, "get", "-A", "-o", "custom-columns=:kind,:metadata.namespace,:metadata.name", "--no-headers",
		"services,configmaps,apiservices,storageclasses,clusterroles,clusterrolebindings,roles,rolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"))
}

func parts(t *testing.T, n *cluster.Node) string {
	t.Helper()
	return n.Output(t, "sh", "-c", "lite status | awk '{print $1}' | tail -n +3")
}

func goroutines(t *testing.T, n *cluster.Node) string {
	t.Helper()
	for line := range strings.Lines(n.Kubectl(t, "get", "--raw", "/metrics")) {
		if value, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
