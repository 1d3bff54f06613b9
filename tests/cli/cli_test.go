// Package cli shows that the commands of lite do on a node what their names say, and
// that a start which cannot succeed says so in one clear line, ends with exit code 1
// and changes nothing, and that it succeeds once the cause is put right.
package cli

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// TestFirstStart has one node for what comes before its first start and after it.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	t.Run("WithoutServer", func(t *testing.T) { testWithoutServer(t, n) })
	t.Run("Refused", func(t *testing.T) { testRefused(t, n) })
	n.Start(t)
	t.Run("WithServer", func(t *testing.T) { testWithServer(t, n) })
	n.Stop(t)
}

// testWithoutServer has the commands that need no server, and what the others
// say when there is none.
func testWithoutServer(t *testing.T, n *cluster.Node) {
	t.Run("version", func(t *testing.T) {
		got := strings.ToLower(n.Output(t, "lite", "version"))
		for _, want := range []string{"lite", "kubernetes", "etcd", "containerd", "runc"} {
			if !regexp.MustCompile(want + `\W+v?\d+\.\d+|` + want + `\W+.*v\d`).MatchString(got) {
				t.Errorf("no version of %s in:\n%s", want, got)
			}
		}
	})
	t.Run("help", func(t *testing.T) {
		got := n.Output(t, "lite", "--help")
		for _, verb := range []string{"server", "kubectl", "crictl", "ctr", "config", "status", "completion", "version"} {
			if !strings.Contains(got, verb) {
				t.Errorf("help does not mention %s:\n%s", verb, got)
			}
		}
	})
	t.Run("unknown verb", func(t *testing.T) { fails(t, n, []string{"lite", "dance"}, "dance") })
	t.Run("config print", func(t *testing.T) {
		n.WriteFile(t, "/etc/lite/config.yaml", "node-label: [a=b]\nlog-level: warn\n")
		n.WriteFile(t, "/etc/lite/config.yaml.d/10.yaml", "node-label+: [c=d]\nlog-level: debug\n")
		defer os.RemoveAll(n.Path("/etc/lite"))
		got := n.Output(t, "lite", "config", "print")
		for _, want := range []string{
			`(?m)^node-label: .*a=b.*c=d`,
			`(?m)^log-level: .*debug.*10\.yaml`,
			`(?m)^data-dir: .*/var/lib/lite.*default`,
		} {
			if !regexp.MustCompile(want).MatchString(got) {
				t.Errorf("no line %s in:\n%s", want, got)
			}
		}
	})
	t.Run("completion", func(t *testing.T) {
		n.Output(t, "bash", "-c", "set -e; lite completion bash >/tmp/completion; bash -n /tmp/completion; source /tmp/completion; complete -p lite")
	})
	t.Run("status", func(t *testing.T) { fails(t, n, []string{"lite", "status"}, "not running") })
	t.Run("kubectl", func(t *testing.T) {
		n.Output(t, "ln", "-s", "/usr/local/bin/lite", "/usr/local/bin/kubectl")
		if got := n.Output(t, "kubectl", "version", "--client"); !strings.Contains(got, "v1.37") {
			t.Errorf("kubectl version:\n%s", got)
		}
	})
	t.Run("nothing written", func(t *testing.T) {
		if entries, err := os.ReadDir(n.Path(cluster.DataDir)); err != nil || len(entries) != 1 {
			t.Errorf("the data directory holds more than the images: %v, %v", entries, err)
		}
	})
}

// fails runs a command that must fail with one line that has certain words.
func fails(t *testing.T, n *cluster.Node, command []string, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := n.Command(ctx, command[0], command[1:]...)
	var stderr strings.Builder
	c.Stderr = &stderr
	if err := c.Run(); err == nil {
		t.Errorf("%v succeeded", command)
	}
	if code := c.ProcessState.ExitCode(); code != 1 {
		t.Errorf("%v: exit code %d, want 1", command, code)
	}
	message := strings.TrimSpace(stderr.String())
	if message == "" || strings.Contains(message, "\n") {
		t.Errorf("%v: want one line, got:\n%s", command, message)
	}
	for _, word := range want {
		if !strings.Contains(message, word) {
			t.Errorf("%v: the message does not say %q:\n%s", command, word, message)
		}
	}
}

// testWithServer has the commands that ask a running server.
func testWithServer(t *testing.T, n *cluster.Node) {
	t.Run("status", func(t *testing.T) {
		got := n.Output(t, "lite", "status")
		var anything any
		out := n.Output(t, "lite", "status", "-o", "json")
		if err := json.Unmarshal([]byte(out), &anything); err != nil {
			t.Errorf("%v:\n%s", err, out)
		}
		for _, component := range []string{"etcd", "apiserver", "scheduler", "controller-manager", "kubelet", "kube-proxy", "containerd"} {
			if !strings.Contains(got, component) || !strings.Contains(out, component) {
				t.Errorf("%s is not in:\n%s\n%s", component, got, out)
			}
		}
	})
	t.Run("status is for root", func(t *testing.T) {
		c := n.Command(t.Context(), "lite", "status")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := c.CombinedOutput(); err == nil {
			t.Errorf("nobody may see:\n%s", out)
		}
	})
	t.Run("kubectl", func(t *testing.T) {
		if got := n.Kubectl(t, "get", "nodes"); !strings.Contains(got, n.Name) || !strings.Contains(got, "v1.37") {
			t.Errorf("get nodes:\n%s", got)
		}
		n.Output(t, "ln", "-sf", "/usr/local/bin/lite", "/usr/local/bin/kubectl")
		n.Output(t, "kubectl", "get", "--raw", "/readyz")
	})
	t.Run("aliases of kuberc", func(t *testing.T) {
		const kuberc = "/tmp/kuberc"
		n.WriteFile(t, kuberc, `apiVersion: kubectl.config.k8s.io/v1beta1
kind: Preference
aliases:
- {name: names, command: get, prependArgs: [configmap], options: [{name: output, default: name}]}
- {name: system, command: get, appendArgs: [configmap/kube-root-ca.crt], options: [{name: namespace, default: kube-system}]}
defaults:
- {command: get, options: [{name: show-labels, default: "true"}]}
`)
		for want, args := range map[string][]string{
			"configmap/kube-root-ca.crt\n": {"names", "kube-root-ca.crt"},
			"kube-root-ca.crt ":            {"system"},
			"kubernetes.io/metadata.name=": {"get", "namespace", "default"}, // a label
		} {
			for _, command := range [][]string{{"kubectl"}, {"lite", "kubectl"}} {
				call := slices.Concat(command, args, []string{"--kuberc", kuberc})
				if got := n.Output(t, call[0], call[1:]...); !strings.Contains(got, want) {
					t.Errorf("%v: %q is missing:\n%s", call, want, got)
				}
			}
		}
	})
	t.Run("crictl and ctr", func(t *testing.T) {
		for _, tool := range [][]string{{"lite", "crictl", "images"}, {"lite", "ctr", "images", "ls"}} {
			cluster.Eventually(t, time.Minute, func() error { // they are imported in the background
				out, err := n.Command(t.Context(), tool[0], tool[1:]...).CombinedOutput()
				if err == nil && !strings.Contains(string(out), "lite.test/busybox") {
					t.Logf("%v:\n%s", tool, out)
					return os.ErrNotExist
				}
				return err
			})
		}
		n.Output(t, "ln", "-s", "/usr/local/bin/lite", "/usr/local/bin/crictl")
		n.Output(t, "crictl", "ps")
	})
	t.Run("secrets are for root", func(t *testing.T) {
		secret := regexp.MustCompile(`\.key$|/kubeconfig|\.kubeconfig|encryption|\.conf$`)
		for _, root := range []string{cluster.DataDir + "/server", "/etc/lite"} {
			err := filepath.WalkDir(n.Path(root), func(path string, entry fs.DirEntry, err error) error {
				if err != nil || !entry.Type().IsRegular() || !secret.MatchString(path) {
					return err
				}
				info, err := entry.Info()
				if err == nil && info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s has mode %s", path, info.Mode())
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
}
