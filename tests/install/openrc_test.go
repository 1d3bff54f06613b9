package install

import (
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
	"lite.io/lite/tests/harness/versions"
)

// TestOpenRC installs from a bundle, on a machine without network tools' help, and
// shows that OpenRC starts, stops and restarts lite, also for an upgrade and for
// its removal.
func TestOpenRC(t *testing.T) {
	t.Parallel()
	l := newLife(t, cluster.OpenRC)
	m := l.Machine
	m.Sh(t, `cd /root/release && gzip -1 lite-linux-* && sha256sum install.sh lite-* images/* >SHA256SUMS
		tar -cf /root/lite.tar install.sh lite-*.gz SHA256SUMS images && rm -r /root/release`)
	const command = "tar -xOf /root/lite.tar install.sh | INSTALL_LITE_ARTIFACT=/root/lite.tar sh -s - " + lifeArgs

	if out := m.Sh(t, "%s", command); !strings.Contains(out, "the node is ready") {
		t.Fatalf("it says:\n%s", out)
	}
	m.Sh(t, "kubectl wait --for=condition=Ready node/%s --timeout=60s", m.Name)
	m.Eventually(t, readyTimeout, "lite crictl images | grep -q lite.test/busybox")
	m.Sh(t, "rc-service lite status && rc-update show default | grep -w lite")
	m.Sh(t, "flock -n /etc/lite true") // nothing that it has started has its lock
	for _, path := range strings.Fields(m.Sh(t, "cat /etc/lite/installed")) {
		m.Sh(t, "test -e %s", path)
	}
	const process = "lite status -o json | sed -n 's/.*\"pid\": //p'"
	before := m.Sh(t, process)
	if out := m.Sh(t, "%s", command); !strings.Contains(out, "nothing has changed") || m.Sh(t, process) != before {
		t.Errorf("again:\n%s", out)
	}

	m.Sh(t, "kill -9 %s", strings.TrimSuffix(before, ","))
	m.Eventually(t, readyTimeout, "lite status && [ \"$(%s)\" != %s ]", process, before)
	before = m.Sh(t, process)
	m.Sh(t, "rc-service lite restart")
	m.Eventually(t, readyTimeout, "lite status && [ \"$(%s)\" != %s ]", process, before)
	m.Sh(t, "rc-service lite stop && ! lite status && ! pgrep -x lite")

	if out, err := m.Run(command + " --no-such-flag"); err == nil || !strings.Contains(out, "unknown flag") {
		t.Errorf("an unknown flag: %v\n%s", err, out)
	}

	m.Sh(t, "rc-service lite start")
	m.Eventually(t, readyTimeout, "lite status")
	l.deploy(t)
	l.testUpgrade(t)
	l.old = versions.Next
	l.pose(t, "/root/broken")
	l.testKilledUpgrade(t)
	l.testUninstall(t)

	m.Sh(t, "%s", command)
	m.Reboot(t)
	m.Eventually(t, readyTimeout, "lite status")
}
