package nodes

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/util/keyutil"

	"lite.io/lite/tests/harness/cluster"
)

// A node's identity serves for what the node has to do, and for nothing that is
// another's.
func (s *suite) testCredentials(t *testing.T) {
	mine, other := s.cluster.Agents[0], s.cluster.Agents[1]
	for _, n := range []*cluster.Node{mine, other} {
		s.ns.Apply(t, withSecret(n.Name))
	}
	s.ns.WaitFor(t, "condition=Ready", "pod/reader-"+mine.Name, "pod/reader-"+other.Name)
	standing := strings.TrimSpace(s.ns.Node.Kubectl(t, "-n", "kube-system", "get", "secrets",
		"--field-selector", "type=bootstrap.kubernetes.io/token", "-o", "name"))
	if !strings.HasPrefix(standing, "secret/bootstrap-token-") {
		t.Fatalf("bootstrap tokens: %q", standing)
	}
	standing = strings.Fields(standing)[0]
	ns := "--namespace=" + s.ns.Name

	for _, args := range []string{
		"get secret secret-" + mine.Name + " " + ns,
		"get node " + other.Name,
		"annotate node " + mine.Name + " example.com/mine=1",
		"get configmap lite-cluster -n kube-system",
		"get services -A",
	} {
		if out, err := s.asNode(t, mine, args); err != nil {
			t.Errorf("%s may not %s: %s", mine.Name, args, out)
		}
	}
	for _, args := range []string{
		"get secret secret-" + other.Name + " " + ns,
		"get secrets " + ns,
		"get secrets -A",
		"get " + standing + " -n kube-system",
		"get secrets -n kube-system",
		"get configmaps -n kube-system",
		"annotate node " + other.Name + " example.com/other=1",
		"label node " + other.Name + " a=b",
		"label node " + mine.Name + " node-restriction.kubernetes.io/a=b",
		"taint node " + mine.Name + " a=b:NoSchedule",
		"delete node " + other.Name,
		"delete node " + mine.Name,
		"delete pod " + s.pods[2].name + " " + ns,
		"exec " + s.pods[2].name + " " + ns + " -- hostname",
		"exec " + s.pods[1].name + " " + ns + " -- hostname",
		"delete lease " + other.Name + " -n kube-node-lease",
		"annotate lease " + other.Name + " a=b -n kube-node-lease",
		"annotate configmap lite-cluster a=b -n kube-system",
		"annotate configmap cluster-info a=b -n kube-public",
		"create token default " + ns,
		"create namespace of-a-node",
		"run intruder --image=lite.test/busybox:1 " + ns,
		"get nodes --as=system:admin",
		"get nodes --as=a --as-group=system:masters",
		"get clusterroles",
		"get --raw /api/v1/nodes/" + other.Name + "/proxy/stats/summary",
	} {
		out, err := s.asNode(t, mine, args)
		if err == nil {
			t.Errorf("%s may %s:\n%s", mine.Name, args, out)
		} else if !strings.Contains(strings.ToLower(out), "forbidden") && !strings.Contains(out, "is not allowed") {
			t.Errorf("%s: %s: %s", mine.Name, args, out)
		}
	}
	// Pods may not learn the identity of their node from the kubelet either.
	if got, err := cluster.Get(s.pods[1], "http://"+mine.IP+":10255/pods"); err == nil {
		t.Errorf("the read-only port of the kubelet answers: %.100s", got)
	}
}

// asNode runs kubectl with the identity of a node.
func (s *suite) asNode(t *testing.T, n *cluster.Node, args string) (string, error) {
	t.Helper()
	return n.KubectlErr(t, append([]string{"--kubeconfig", cluster.DataDir + "/agent/kubelet.conf"}, strings.Fields(args)...)...)
}

// withSecret is a pod on a node with a Secret of its own.
func withSecret(node string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: secret-%[1]s}
stringData: {word: hidden}
---
apiVersion: v1
kind: Pod
metadata: {name: reader-%[1]s}
spec:
  nodeName: %[1]s
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sleep, "3600"]
    env: [{name: WORD, valueFrom: {secretKeyRef: {name: secret-%[1]s, key: word}}}]
`, node)
}

// No private key of the server is on an agent, nor a token, and the keys that are
// there are the node's own.
func (s *suite) testKeys(t *testing.T) {
	server := keys(t, s.nodes[0].Path(cluster.DataDir+"/server"))
	if len(server) < 10 {
		t.Fatalf("found only %d keys on the server", len(server))
	}
	token := strings.TrimSpace(s.nodes[0].ReadFile(t, cluster.DataDir+"/server/token"))
	_, secret, _ := strings.Cut(token[:strings.IndexByte(token, '@')], ".")
	for _, n := range s.cluster.Agents {
		mine := keys(t, n.Path(cluster.DataDir))
		if len(mine) == 0 {
			t.Errorf("found no key on %s", n.Name)
		}
		for public, file := range mine {
			if of, ok := server[public]; ok {
				t.Errorf("%s of %s has the key of %s", file, n.Name, of)
			}
		}
		for _, dir := range []string{cluster.DataDir + "/agent", "/run/lite"} {
			if out, err := n.Command(t.Context(), "grep", "-rlsI", "--exclude-dir=containerd", secret, dir).Output(); err == nil {
				t.Errorf("on %s the token is in %s", n.Name, out)
			}
		}
	}
}

// keys returns the private keys in the files below a directory, by their public
// halves. The store of containerd has but images in it.
func keys(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "containerd" || entry.Name() == "bundle"):
			return filepath.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		info, err := entry.Info()
		if err != nil || info.Size() > 1<<20 {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
			if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
				continue
			}
			key, err := keyutil.ParsePrivateKeyPEM(pem.EncodeToMemory(block))
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			public, err := x509.MarshalPKIXPublicKey(key.(crypto.Signer).Public())
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			found[string(public)] = strings.TrimPrefix(path, root)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
