// Package install shows that scripts/install.sh installs lite on machines of
// users, with an init system that keeps it running.
package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

const (
	readyTimeout = 2 * time.Minute
	script       = "/root/install.sh"
)

// newMachine makes a machine with the installer on it, and lite in a directory as
// it is served from.
func newMachine(t *testing.T, init cluster.Init, options ...cluster.HostOption) *cluster.Machine {
	t.Helper()
	m := cluster.NewMachine(t, init, options...)
	m.Push(t, "../../scripts/install.sh", script)
	m.PushImages(t)
	m.PushLite(t, "/root/release/lite-linux-"+arch(t, m))
	m.Sh(t, "cd /root/release && sha256sum lite-* >SHA256SUMS")
	return m
}

func arch(t *testing.T, m *cluster.Machine) string {
	t.Helper()
	return map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[m.Sh(t, "uname -m")]
}

const fromRelease = "INSTALL_LITE_ARTIFACT=/root/release "

// TestSystemd is the life of a server on a machine with systemd.
func TestSystemd(t *testing.T) {
	m := newMachine(t, cluster.Systemd)
	t.Log(m.Sh(t, fromRelease+"sh "+script+" --node-label=a=b"))
	m.Sh(t, "lite kubectl wait --for=condition=Ready node --all --timeout=60s")
	m.Sh(t, "kubectl get nodes -l a=b -o name | grep node/")
	t.Log(m.Sh(t, "cat /etc/lite/installed; cat /etc/lite/config.yaml.d/*; systemctl status lite; ls -la /etc/lite"))
	t.Log(m.Sh(t, fromRelease+"sh "+script+" --node-label=a=b"))
	_ = os.Stdout
	_ = filepath.Join
	_ = strings.Join
}
