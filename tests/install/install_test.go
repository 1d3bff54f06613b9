// Package install shows that scripts/install.sh installs lite on machines of
// users, and that their init systems keep it running.
package install

import (
	"fmt"

	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

const (
	readyTimeout = 2 * time.Minute

	// fromRelease installs from the directory of a release that newMachine makes.
	fromRelease = "INSTALL_LITE_ARTIFACT=/root/release "
	installer   = "sh /root/release/install.sh "

	dropIn = "/etc/lite/config.yaml.d/50-install.yaml"
)

// newMachine makes a machine that has the directory of a release.
func newMachine(t *testing.T, init cluster.Init, options ...cluster.HostOption) *cluster.Machine {
	t.Helper()
	m := cluster.NewMachine(t, init, options...)
	m.Push(t, "../../scripts/install.sh", "/root/release/install.sh")
	m.PushLite(t, "/root/release/lite-linux-"+arch(t, m))
	m.Push(t, cluster.ImageTarball(t, "busybox"), "/root/release/images/busybox.tar")
	m.Sh(t, "cd /root/release && sha256sum install.sh lite-* images/* >SHA256SUMS")
	return m
}

func arch(t *testing.T, m *cluster.Machine) string {
	t.Helper()
	return map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[m.Sh(t, "uname -m")]
}

// TestServer is the life of a server with systemd: one machine, in this order.
func TestServer(t *testing.T) {
	t.Parallel()
	network := cluster.NewNetwork(t)
	m := newMachine(t, cluster.Systemd, cluster.On(network))
	const args = "--node-label=disk=ssd --tls-san lite.test"

	testCheckout(t, m)
	out := m.Sh(t, fromRelease+"LITE_TOKEN=abcdef.0123456789abcdef "+installer+args)
	if !strings.Contains(out, "the node is ready") {
		t.Errorf("the installer ended before the node was ready:\n%s", out)
	}
	testInstalled(t, m)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *cluster.Machine)
	}{
		{"again", func(t *testing.T, m *cluster.Machine) {
			testUnchanged(t, m, fromRelease+"LITE_TOKEN=abcdef.0123456789abcdef "+installer+args)
		}},
		{"again with nothing said", func(t *testing.T, m *cluster.Machine) { testUnchanged(t, m, fromRelease+installer) }},
		{"signed", testSigned},
		{"refused", testRefused},
		{"agent", testAgent},
		{"other arguments", testOtherArguments},
		{"killed", testKilled},
		{"hangs", testHangs},
		{"reboot", testReboot},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, m) }) {
			return
		}
	}
}

// testCheckout installs from a checkout in which lite was built, and starts nothing.
func testCheckout(t *testing.T, m *cluster.Machine) {
	const command = "cd /root/checkout && INSTALL_LITE_SKIP_START=true sh scripts/install.sh"
	m.Push(t, "../../go.mod", "/root/checkout/go.mod")
	m.Push(t, "../../scripts/install.sh", "/root/checkout/scripts/install.sh")
	if out, err := m.Run(command); err == nil || !strings.Contains(out, "run make build in the checkout first") {
		t.Errorf("nothing is built: %v\n%s", err, out)
	}
	m.PushLite(t, "/root/checkout/dist/lite")
	if out := m.Sh(t, command); !strings.Contains(out, "installed; not started") {
		t.Errorf("it says:\n%s", out)
	}
	if got := m.Sh(t, "stat -c %%a /etc/lite/install.pending"); got != "600" {
		t.Errorf("install.pending has the mode %s", got)
	}
	m.Sh(t, "cmp /usr/local/bin/lite /root/checkout/dist/lite && rm -r /root/checkout && systemctl is-enabled lite && ! systemctl is-active lite")
}

// testInstalled looks at what a first installation leaves.
func testInstalled(t *testing.T, m *cluster.Machine) {
	m.Sh(t, "kubectl wait --for=condition=Ready node/%s --timeout=60s", m.Name)
	m.Sh(t, "kubectl get nodes -l disk=ssd -o name | grep node/")
	m.Sh(t, `test "$(lite-uninstall.sh --help 2>&1)" = "$(lite uninstall --help 2>&1)"`)
	for _, path := range strings.Fields(m.Sh(t, "cat /etc/lite/installed")) {
		m.Sh(t, "test -e %s", path)
	}
	if got := m.Sh(t, "stat -c %%a %s; grep -c abcdef.0123456789abcdef %s", dropIn, dropIn); got != "600\n1" {
		t.Errorf("mode and token lines of %s: %q", dropIn, got)
	}
	if got := m.Sh(t, "cat /proc/%s/cmdline | tr '\\0' ' '", pid(t, m)); got != "/usr/local/bin/lite server" {
		t.Errorf("the command line is %q", got)
	}
	if got := m.Sh(t, "tr '\\0' '\\n' </proc/%s/environ | grep -c 'NOTIFY\\|TOKEN' || true", pid(t, m)); got != "1" {
		t.Errorf("%s variables of the process as it was started name the service manager or the token, want the first only", got)
	}
	if got := m.Sh(t, "stat -c %%a /etc/systemd/system/lite.service; systemctl show -p LimitCORESoft --value lite; grep '^Max core' /proc/%s/limits | awk '{ print $5 }'", pid(t, m)); got != "600\n0\n0" {
		t.Errorf("the service's mode, its limit of core files, and the process's: %q", got)
	}
	m.Eventually(t, readyTimeout, "lite crictl images | grep -q lite.test/busybox")
	if got := m.Sh(t, "systemctl show -p StatusText --value lite"); got != "Node "+m.Name+" is ready" {
		t.Errorf("the service says %q", got)
	}
}

// pid is the process of the service.
func pid(t *testing.T, m *cluster.Machine) string {
	t.Helper()
	return m.Sh(t, "systemctl show -p MainPID --value lite")
}

// state is all that an installation changes, and the running process. The records
// of the files are in it, so that a file that was replaced by its like shows.
func state(t *testing.T, m *cluster.Machine) string {
	t.Helper()
	return "process " + pid(t, m) + "\n" + m.Sh(t, `cat /etc/lite/installed
		stat -c '%%n %%i %%s %%a %%Y' $(cat /etc/lite/installed)
		ls -A /usr/local/bin /etc/lite /etc/lite/config.yaml.d /etc/systemd/system /var/lib/lite/agent/images /mnt`)
}

// testUnchanged runs what must change nothing.
func testUnchanged(t *testing.T, m *cluster.Machine, command string) {
	before := state(t, m)
	if out := m.Sh(t, "%s", command); !strings.Contains(out, "nothing has changed") {
		t.Errorf("it says:\n%s", out)
	}
	if after := state(t, m); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// testSigned gives the installer the key of releases, which it remembers.
func testSigned(t *testing.T, m *cluster.Machine) {
	const key = "/etc/lite/release.pub"
	m.Sh(t, `cd /root && openssl ecparam -genkey -name prime256v1 -noout -out key.pem && { echo comment; openssl ec -in key.pem -pubout 2>/dev/null; } >public.pem
		openssl dgst -sha256 -sign key.pem -out release/SHA256SUMS.sig release/SHA256SUMS
		mkdir unsigned && cp release/SHA256SUMS release/lite-* unsigned`)
	before, process := state(t, m), pid(t, m)
	refused := func(command, want string) {
		t.Helper()
		was := state(t, m)
		if out, err := m.Run(command); err == nil || strings.Count(out, "error: ") != 1 || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		if now := state(t, m); now != was {
			t.Errorf("%s: before:\n%s\nafter:\n%s", command, was, now)
		}
	}
	refused("INSTALL_LITE_PUBLIC_KEY=/root/public.pem INSTALL_LITE_ARTIFACT=/root/unsigned "+installer, "is not signed, and must be, with the key in /root/public.pem")
	refused("INSTALL_LITE_PUBLIC_KEY=/root/key.pem "+fromRelease+installer, "is not a public key")

	out := m.Sh(t, "INSTALL_LITE_PUBLIC_KEY=/root/public.pem "+fromRelease+installer)
	if !strings.Contains(out, "the signature is valid") || pid(t, m) != process {
		t.Errorf("the service was restarted, or the signature not looked at:\n%s", out)
	}
	if got := m.Sh(t, "head -n 1 %s; stat -c %%a %s; grep -c %s /etc/lite/installed", key, key, key); got != "-----BEGIN PUBLIC KEY-----\n644\n1" {
		t.Errorf("the remembered key:\n%s", got)
	}
	testUnchanged(t, m, fromRelease+installer)
	refused("INSTALL_LITE_ARTIFACT=/root/unsigned "+installer, "INSTALL_LITE_PUBLIC_KEY=none to skip signatures")
	refused("INSTALL_LITE_SHA256=abc INSTALL_LITE_ARTIFACT=/root/unsigned/lite-linux-"+arch(t, m)+" "+installer, "INSTALL_LITE_PUBLIC_KEY=none to skip signatures")
	m.Sh(t, "mv /usr/bin/openssl /usr/bin/openssl.away")
	refused(fromRelease+installer, "there is no openssl to check that with: install it")
	m.Sh(t, "mv /usr/bin/openssl.away /usr/bin/openssl")

	m.Sh(t, "INSTALL_LITE_PUBLIC_KEY=none INSTALL_LITE_ARTIFACT=/root/unsigned "+installer)
	if after := state(t, m); after != before {
		t.Errorf("the key is forgotten; before:\n%s\nafter:\n%s", before, after)
	}
}

// testRefused runs what must fail, with one line that says why, and change nothing.
func testRefused(t *testing.T, m *cluster.Machine) {
	m.Sh(t, `mkdir -p /mnt/small /mnt/noexec && mount -t tmpfs -o size=20m tmpfs /mnt/small && mount -t tmpfs -o noexec tmpfs /mnt/noexec
		mkdir -p /root/bad /root/fake && printf '#!/bin/sh\n[ "$1" != -m ] || { echo riscv64; exit; }\nexec /bin/uname "$@"\n' >/root/fake/uname && chmod +x /root/fake/uname
		cp -r /root/release/. /root/bad && sed -i 's/^....\(.* lite-\)/0000\1/' /root/bad/SHA256SUMS
		gzip -1 -c /root/release/lite-linux-%[1]s >/root/lite.gz
		cp -rl /root/release/. /root/other && cd /root/other && rm SHA256SUMS && echo '"0000"' >lite-v1.provenance.json && sha256sum lite-* images/* >SHA256SUMS
		cp -rl /root/other/. /root/changed && cd /root/changed && rm lite-v1.provenance.json && sha256sum <lite-linux-%[1]s | sed 's/\(.*\) .*/"\1"/' >lite-v1.provenance.json`, arch(t, m))
	t.Cleanup(func() { m.Sh(t, "umount /mnt/small /mnt/noexec && rm -r /root/bad /root/other /root/changed") })
	sum := m.Sh(t, "sha256sum </root/lite.gz | cut -c 1-64")
	for _, c := range []struct{ name, command, want string }{
		{"wrong checksum", "INSTALL_LITE_ARTIFACT=/root/bad sh /root/bad/install.sh", "has the wrong checksum"},
		{"no checksum", "INSTALL_LITE_ARTIFACT=/root/lite.gz " + installer, "set INSTALL_LITE_SHA256"},
		{"wrong checksum given", "INSTALL_LITE_SHA256=abc INSTALL_LITE_ARTIFACT=/root/lite.gz " + installer, "has the wrong checksum"},
		{"wrong signature", "INSTALL_LITE_PUBLIC_KEY=/root/public.pem INSTALL_LITE_ARTIFACT=/root/bad " + installer, "is not signed with the key"},
		{"provenance of another program", "INSTALL_LITE_BIN_DIR=/opt/other INSTALL_LITE_ARTIFACT=/root/other " + installer, "lite-v1.provenance.json is about a program other than"},
		{"changed provenance", "INSTALL_LITE_BIN_DIR=/opt/other INSTALL_LITE_ARTIFACT=/root/changed " + installer, "lite-v1.provenance.json has the wrong checksum"},
		{"full disk", fromRelease + "INSTALL_LITE_BIN_DIR=/mnt/small " + installer, "/mnt/small has 20 MiB free and lite needs"},
		{"full disk while unpacking", "INSTALL_LITE_SHA256=" + sum + " INSTALL_LITE_ARTIFACT=/root/lite.gz INSTALL_LITE_BIN_DIR=/mnt/small " + installer, "cannot write to /mnt/small"},
		{"noexec", fromRelease + "INSTALL_LITE_BIN_DIR=/mnt/noexec " + installer, "does not allow programs to run"},
		{"not root", "setpriv --reuid=65534 --clear-groups sh <" + "/root/release/install.sh", "not root"},
		{"other processor", "PATH=/root/fake:$PATH " + fromRelease + installer, "this machine is riscv64"},
		{"unknown variable", "INSTALL_LITE_EXCE=server " + installer, "there is no variable INSTALL_LITE_EXCE"},
		{"switch", "INSTALL_LITE_SKIP_START=maybe " + installer, "must be true or false"},
		{"relative directory", "INSTALL_LITE_BIN_DIR=bin " + installer, "must be an absolute path"},
		{"open quote", "INSTALL_LITE_EXEC='server \"--disable' " + installer, "a quote that is not closed"},
		{"unknown word", fromRelease + installer + "sever", "'sever' is neither server nor agent"},
		{"unknown flag", fromRelease + installer + "server --no-such-flag", "unknown flag: --no-such-flag"},
		{"unknown lite variable", "LITE_TOKNE=a " + fromRelease + installer, "did you mean LITE_TOKEN"},
		{"wrong value", fromRelease + "INSTALL_LITE_EXEC='--disable nothing' " + installer, "disable \"nothing\" (flag --disable)"},
		{"wrong kubelet argument", fromRelease + installer + "--kubelet-arg=no-such=1", "unknown flag: --no-such"},
		{"agent on a server", fromRelease + "LITE_URL=https://192.0.2.1:6443 LITE_TOKEN=abcdef.0123456789abcdef " + installer, "contains a server"},
		{"agent without token", fromRelease + installer + "agent --data-dir /var/lib/other", "has not joined a cluster yet"},
		{"no artifact", "INSTALL_LITE_ARTIFACT=/root/none " + installer, "there is no /root/none"},
		{"no bundle", "INSTALL_LITE_ARTIFACT=/etc/passwd " + installer, "is neither a bundle nor a binary"},
		{"no base", "INSTALL_LITE_VERSION=v1.2.3 " + installer, "set INSTALL_LITE_BASE_URL"},
		{"no server", "INSTALL_LITE_VERSION=v1.2.3 INSTALL_LITE_BASE_URL=http://127.0.0.1:1 " + installer, "cannot download http://127.0.0.1:1/v1.2.3/SHA256SUMS"},
		{"no binary", "INSTALL_LITE_SKIP_DOWNLOAD=true INSTALL_LITE_BIN_DIR=/mnt/small " + installer, "there is no /mnt/small/lite"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := state(t, m)
			out, err := m.Run(c.command)
			if err == nil || strings.Count(out, "error: ") != 1 || !strings.Contains(out, c.want) {
				t.Errorf("%v\n%s", err, out)
			}
			if after := state(t, m); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// testAgent installs an agent as people do, from a file server on the network.
func testAgent(t *testing.T, server *cluster.Machine) {
	agent := cluster.NewMachine(t, cluster.Systemd, cluster.On(server.Network()))
	base := serve(t, agent)
	token := server.Sh(t, "cat /var/lib/lite/server/token")
	url := "https://" + server.IP + ":6443"

	// An older release, whose sums and signature are right, under the name of a newer one.
	out, err := agent.Run(fmt.Sprintf("curl -sfL %s/install.sh | INSTALL_LITE_ALLOW_HTTP=true INSTALL_LITE_BASE_URL=%s INSTALL_LITE_VERSION=v9.9.8 LITE_URL=%s LITE_TOKEN=%s sh -", base, base, url, token))
	if err == nil || !strings.Contains(out, "what is served as lite v9.9.8 is lite ") {
		t.Errorf("a replayed release: %v\n%s", err, out)
	}
	out = agent.Sh(t, "curl -sfL %s/install.sh | INSTALL_LITE_ALLOW_HTTP=true INSTALL_LITE_BASE_URL=%s LITE_URL=%s LITE_TOKEN=%s HTTPS_PROXY=http://proxy.test:3128 NO_PROXY=10.0.0.0/8 sh -s - --node-name second",
		base, base, url, token)
	for _, want := range []string{"lite-v1.cdx.json is about this program\n", "lite-v1.provenance.json is about this program, built from commit 0123456789abcdef\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the installer does not say %q:\n%s", want, out)
		}
	}
	server.Sh(t, "kubectl wait --for=condition=Ready node/second --timeout=60s")
	if got := agent.Sh(t, "cat /proc/%s/cmdline | tr '\\0' ' '", pid(t, agent)); got != "/usr/local/bin/lite agent" {
		t.Errorf("the command line is %q", got)
	}
	if got := agent.Sh(t, "tr '\\0' '\\n' </proc/%s/environ | grep PROXY | sort; stat -c %%a /etc/lite/lite.env", pid(t, agent)); got != "HTTPS_PROXY=http://proxy.test:3128\nNO_PROXY=10.0.0.0/8\n600" {
		t.Errorf("the service has the proxies %q", got)
	}
	// The newest of the channel is there already: nothing is downloaded but its name and sums.
	before := pid(t, agent)
	out = agent.Sh(t, "curl -sfL %s/install.sh | INSTALL_LITE_ALLOW_HTTP=true INSTALL_LITE_BASE_URL=%s INSTALL_LITE_CHANNEL=stable sh -", base, base)
	if strings.Contains(out, "downloading") || !strings.Contains(out, "nothing has changed") || pid(t, agent) != before {
		t.Errorf("again:\n%s", out)
	}
	out, err = agent.Run(fmt.Sprintf("curl -sfL %s/install.sh | INSTALL_LITE_ALLOW_HTTP=true INSTALL_LITE_BASE_URL=%s INSTALL_LITE_VERSION=v9.9.9 sh -", base, base))
	if err == nil || !strings.Contains(out, "cannot download "+base+"/v9.9.9/SHA256SUMS") {
		t.Errorf("a version that is not there: %v\n%s", err, out)
	}
	// Without its server an agent starts and waits; systemd must not give up on it.
	server.Sh(t, "systemctl stop lite")
	agent.Sh(t, "systemctl restart --no-block lite")
	agent.Eventually(t, readyTimeout, "systemctl show -p StatusText --value lite | grep -i 'waiting for'")
	server.Sh(t, "systemctl start lite")
	agent.Eventually(t, readyTimeout, "systemctl is-active lite")
	// It ends with this test, and no pod shall go there any more.
	server.Sh(t, "kubectl delete node second")
}

// serve serves a release in a channel as a plain file server does, and returns the
// base address. The version has the binary compressed only, and says of it where it is from. Under v9.9.8 the same files
// are served again.
func serve(t *testing.T, m *cluster.Machine) string {
	t.Helper()
	dir := t.TempDir()
	name := "lite-linux-" + arch(t, m)
	m.PushLite(t, "/root/"+name)
	version, _, _ := strings.Cut(strings.TrimPrefix(m.Sh(t, "/root/%s version", name), "lite "), " ")
	script := fmt.Sprintf(`cd %[1]s && mkdir -p channels '%[5]s' && ln -s '%[5]s' v9.9.8 && echo '%[5]s' >channels/stable && cp %[2]s install.sh
		cd v9.9.8 && gzip -1 -c %[3]s >%[4]s.gz 
		sum=$(sha256sum <%[3]s) && sum=${sum%%%% *} && echo "  \"sha256\": \"$sum\"" | tee lite-v1.cdx.json >lite-v1.provenance.json
		echo '  "gitCommit": "0123456789abcdef"' >>lite-v1.provenance.json && { sha256sum %[4]s.gz *.json; echo "$sum  %[4]s"; } >SHA256SUMS`,
		dir, absolute(t, "../../scripts/install.sh"), m.Path("/root/"+name), name, version)
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.Sh(t, "rm /root/%s", name)
	listener, err := m.Network().Listen("tcp", cluster.Gateway+":8080")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve(listener) }()
	return "http://" + cluster.Gateway + ":8080"
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// testOtherArguments changes what was said, which restarts the service; pods stay.
func testOtherArguments(t *testing.T, m *cluster.Machine) {
	m.Sh(t, "kubectl run stays --image=lite.test/busybox:1 --restart=Never -- sleep 1d && kubectl wait --for=condition=Ready pod/stays --timeout=60s")
	before := pid(t, m)
	m.Sh(t, fromRelease+"INSTALL_LITE_EXEC='server --tls-san \"lite.test\"' "+installer+"--kubelet-arg v=1")
	if pid(t, m) == before {
		t.Error("the service was not restarted")
	}
	if got := m.Sh(t, "grep -v '^#' %s", dropIn); got != "kubelet-arg: [v=1]\ntls-san: [lite.test]" {
		t.Errorf("%s holds:\n%s", dropIn, got)
	}
	if got := m.Sh(t, "kubectl get pod stays -o jsonpath='{.status.containerStatuses[0].restartCount}{.status.phase}'"); got != "0Running" {
		t.Errorf("the pod has restarts and phase %s", got)
	}
}

// testKilled shows that systemd starts lite again.
func testKilled(t *testing.T, m *cluster.Machine) {
	before := pid(t, m)
	m.Sh(t, "kill -9 %s", before)
	comesBack(t, m, before)
}

// comesBack waits for a process that is another and ready.
func comesBack(t *testing.T, m *cluster.Machine, before string) {
	t.Helper()
	m.Eventually(t, readyTimeout, `now=$(systemctl show -p MainPID --value lite); [ $now != 0 ] && [ $now != %s ] && systemctl is-active lite && lite status`, before)
}

// testHangs shows that the watchdog ends a process that hangs, and only such a one.
func testHangs(t *testing.T, m *cluster.Machine) {
	m.Sh(t, `mkdir -p /etc/systemd/system/lite.service.d && printf '[Service]\nWatchdogSec=4s\n' >/etc/systemd/system/lite.service.d/test.conf
		systemctl daemon-reload && systemctl restart lite`)
	before := pid(t, m)
	// The API is off and a Corefile is broken: that is no reason to end the process.
	m.Sh(t, "kubectl -n kube-system patch configmap coredns --type merge -p '{\"data\":{\"Corefile\":\"nonsense {\"}}'")
	m.Eventually(t, readyTimeout, `journalctl -u lite _PID=%s -o cat | grep -i corefile`, before)
	heard := m.Sh(t, "systemctl show -p WatchdogTimestampMonotonic --value lite")
	m.Eventually(t, readyTimeout, `[ $(systemctl show -p WatchdogTimestampMonotonic --value lite) -gt $((%s + 8000000)) ]`, heard)
	if pid(t, m) != before {
		t.Fatal("the watchdog has ended a process that was well")
	}
	m.Sh(t, "kubectl -n kube-system delete configmap coredns && kill -STOP %s", before)
	comesBack(t, m, before)
	m.Sh(t, "journalctl -u lite -o cat | grep 'Watchdog timeout'")
	m.Sh(t, "rm -r /etc/systemd/system/lite.service.d && systemctl daemon-reload")
}

// testReboot shows that the service comes up with the machine.
func testReboot(t *testing.T, m *cluster.Machine) {
	// The pod ignores SIGTERM. systemd ends it in order, instead of after all else.
	const ofContainers = "systemctl show -p %s --value $(systemctl list-units --plain --no-legend 'cri-containerd-*.scope' | cut -d ' ' -f 1) | grep . | sort -u"
	for property, want := range map[string]string{"TimeoutStopUSec": "30s", "Conflicts": "shutdown.target"} {
		if got := m.Sh(t, ofContainers, property); got != want {
			t.Errorf("containers have %s %q, want %s", property, got, want)
		}
	}
	m.Restart(t)
	m.Sh(t, "journalctl -b -1 -o cat | grep '^cri-containerd-.*Stopping timed out. Killing'")
	m.Eventually(t, readyTimeout, "systemctl is-active lite && lite status")
	m.Sh(t, "kubectl wait --for=condition=Ready node/%s --timeout=60s", m.Name)
}
