package documents

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
	"lite.io/lite/tests/harness/versions"
)

// TestMachines follows the documents on machines with systemd, as who has a checkout or
// a bundle: word for word, but for what they leave open, such as <server>.
func TestMachines(t *testing.T) {
	t.Parallel()
	all := read(t)
	network := cluster.NewNetwork(t)
	server := &newcomer{Machine: cluster.NewMachine(t, cluster.Systemd, cluster.On(network))}
	second := &newcomer{Machine: cluster.NewMachine(t, cluster.Systemd, cluster.On(network))}
	next := versions.Build(t)
	for _, step := range []struct {
		name string
		run  func(t *testing.T, walk func(*newcomer))
	}{
		{"install", func(t *testing.T, walk func(*newcomer)) {
			server.checkout(t)
			walk(server)
			server.PushImages(t)
			if out := server.Sh(t, "lite config print"); !strings.Contains(out, "disable: [loadbalancer]") {
				t.Errorf("the server was told to do without load balancing:\n%s", out)
			}
			server.Sh(t, "kubectl wait --for=condition=Ready node/%s --timeout=60s", server.Name)
		}},
		{"bundle", func(t *testing.T, walk func(*newcomer)) {
			server.Eventually(t, timeout, "lite ctr images tag --force lite.test/busybox:1 registry.example.com/team/app:1.2")
			server.Push(t, cluster.ImageTarball(t, "agnhost"), "/root/more.tar")
			walk(server)
		}},
		{"offline", func(t *testing.T, walk func(*newcomer)) {
			bundle := server.Sh(t, "ls /root/lite-*.tar")
			second.Push(t, server.Path(bundle), bundle)
			second.values = strings.NewReplacer("lite-<version>-linux-<arch>.tar", filepath.Base(bundle))
			walk(second)
			second.Eventually(t, timeout, "lite crictl images | grep registry.example.com/team/app")
			second.Sh(t, "lite-uninstall.sh --yes && ! command -v lite && ! [ -e /var/lib/lite ] && rm -r /root/*")
		}},
		{"agent", func(t *testing.T, walk func(*newcomer)) {
			second.checkout(t)
			second.values = strings.NewReplacer("<server>", server.IP, "<token>", server.Sh(t, "lite token create"))
			walk(second)
			server.Sh(t, "kubectl wait --for=condition=Ready node/%s --timeout=60s", second.Name)
		}},
		{"upgrade", func(t *testing.T, walk func(*newcomer)) {
			server.Push(t, next, "/root/next")
			const bundle = "lite-next.tar"
			server.Sh(t, "cd /root && lite bundle create --binary next -o %s", bundle)
			server.values = strings.NewReplacer("lite-<version>-linux-<arch>.tar", bundle)
			walk(server)
			if out := server.Sh(t, "lite version"); !strings.Contains(out, versions.Next) {
				t.Errorf("after the upgrade it is %s", out)
			}
		}},
	} {
		walk := func(t *testing.T) {
			step.run(t, func(n *newcomer) {
				ran := Follow(all, t.Name(), func(at, command string) {
					if n.values != nil {
						command = n.values.Replace(command)
					}
					t.Logf("%s: %s\n%s", at, command, n.Sh(t, "cd /root\n%s", command))
				})
				if ran == 0 {
					t.Error("no document has commands for this step")
				}
			})
		}
		if !t.Run(step.name, walk) {
			return // the next goes on where this one ends
		}
	}
	t.Run("files", server.testFiles)
}

const timeout = 2 * time.Minute

// newcomer has nothing but the documents.
type newcomer struct {
	*cluster.Machine
	values *strings.Replacer // for what the documents leave open
}

// checkout puts into a machine what the installer takes from a checkout.
func (n *newcomer) checkout(t *testing.T) {
	t.Helper()
	for _, name := range []string{"go.mod", "scripts/install.sh"} {
		n.Push(t, repository+"/"+name, "/root/"+name)
	}
	n.PushLite(t, "/root/dist/lite")
}
