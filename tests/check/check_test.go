// Package check shows that `lite check` finds what stands in the way of a node, on
// hosts where it was put there, and nothing on those where it was not.
package check

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lite.io/lite/pkg/check"
	"lite.io/lite/pkg/check/cis"
	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// look runs lite check on a host and wants an exit code.
func look(t *testing.T, n *cluster.Node, code int, args ...string) check.Report {
	t.Helper()
	return lookAs(t, n, 0, code, args...)
}

func lookAs(t *testing.T, n *cluster.Node, uid uint32, code int, args ...string) check.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := n.Command(ctx, "lite", append([]string{"check", "-o", "json"}, args...)...)
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, err := cmd.Output()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		t.Errorf("lite check %v: %v, want exit code %d\n%s", args, err, code, out)
	}
	var r check.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("lite check %v: %v\n%s", args, err, out)
	}
	return r
}

// want looks for a line of a report.
func want(t *testing.T, r check.Report, name string, status check.Status, words ...string) check.Result {
	t.Helper()
	for _, c := range r.Checks {
		if c.Name != name || c.Status != status {
			continue
		}
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(c.Found+" "+c.Remedy, w) }) {
			return c
		}
	}
	t.Errorf("no line %s: %s with %q in\n%s", name, status, words, text(r))
	return check.Result{}
}

func text(r check.Report) string {
	var b strings.Builder
	for _, c := range r.Checks {
		b.WriteString(string(c.Status) + " " + c.Name + ": " + c.Found + " → " + c.Remedy + "\n")
	}
	return b.String()
}

// noFailure: what is warned of is the test bed's machine.
func noFailure(t *testing.T, r check.Report) {
	t.Helper()
	for _, c := range r.Checks {
		if c.Status == check.Fail {
			t.Errorf("%s: %s", c.Name, c.Found)
		}
	}
}

// inotify puts files in the place of the limits, which are the machine's: no host may
// change those.
func inotify(t *testing.T, n *cluster.Node) {
	t.Helper()
	n.Output(t, "sh", "-ec", `for f in max_user_instances max_user_watches; do
		echo 1000000 >/run/$f
		mount --bind /run/$f /proc/sys/fs/inotify/$f
	done`)
}

// TestBefore is a machine on which lite was never started: it passes, and each thing
// that is put in its way is found, and gone once it is taken away.
func TestBefore(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	inotify(t, n)
	before := n.Output(t, "find", "/var/lib", "/etc", "/run", "-newer", "/etc/hostname")
	r := look(t, n, 0)
	noFailure(t, r)
	for _, name := range []string{"user", "configuration", "memory", "kernel features", "swap", "overlayfs", "addresses", "ports", "name servers", "firewall", "others"} {
		want(t, r, name, check.Pass)
	}
	if !strings.Contains(text(r), " synced writes of 2300 bytes took ") { // how long is the machine's business
		t.Errorf("the disk was not measured:\n%s", text(r))
	}
	if r.Role != "server" || r.Node != n.Name {
		t.Errorf("looked at %s %s", r.Role, r.Node)
	}
	if after := n.Output(t, "find", "/var/lib", "/etc", "/run", "-newer", "/etc/hostname"); after != before {
		t.Errorf("lite check left something behind:\n%s", after)
	}

	sh := func(script string) { n.Output(t, "sh", "-c", script) }
	for _, c := range []struct {
		name, do, undo string
		args           []string
		line           string
		status         check.Status
		words          []string
	}{
		{"a route", "ip link add wan type dummy 2>/dev/null || ip link add wan type bridge; ip link set wan up; ip route add 10.42.5.0/24 dev wan", "ip link del wan", nil,
			"addresses", check.Fail, []string{"cluster-cidr", "10.42.5.0/24", "wan", "choose a range"}},
		{"docker's FORWARD", "iptables -P FORWARD DROP; iptables -N DOCKER-USER", "iptables -P FORWARD ACCEPT; iptables -X DOCKER-USER", nil,
			"firewall", check.Pass, []string{"drops forwarded packets (docker's): policy DROP", "lets its pods through"}},
		{"resolv.conf", "echo nameserver 127.0.0.1 >/etc/resolv.conf", "echo nameserver " + cluster.Gateway + " >/etc/resolv.conf", nil,
			"name servers", check.Warn, []string{"loopback", "127.0.0.1"}},
		{"a loop", "echo nameserver 10.43.0.10 >/etc/resolv.conf", "echo nameserver " + cluster.Gateway + " >/etc/resolv.conf", nil,
			"name servers", check.Fail, []string{"loop", "10.43.0.10"}},
		{"swap", "printf 'Filename Type Size Used Priority\\n/dev/sdz2 partition 2097152 0 -2\\n' >/run/swaps; mount --bind /run/swaps /proc/swaps", "umount /proc/swaps", nil,
			"swap", check.Warn, []string{"2 GiB on /dev/sdz2", "swapoff -a"}},
		{"k3s", "mkdir -p /var/lib/rancher/k3s /etc/rancher/k3s", "rm -r /var/lib/rancher /etc/rancher", nil,
			"others", check.Warn, []string{"k3s has left", "/var/lib/rancher/k3s", "k3s-uninstall.sh"}},
		{"a network that lies elsewhere", "mkdir -p /mnt/x; mount -t tmpfs -o noexec none /mnt/x", "umount /mnt/x", []string{"--data-dir", "/mnt/x/lite"},
			"file system", check.Fail, []string{"/mnt/x", "noexec"}},
		{"a wrong value", "mkdir -p /etc/lite; echo 'cluster-cidr: 10.42.0.0' >/etc/lite/config.yaml", "rm -r /etc/lite", nil,
			"configuration", check.Fail, []string{"cluster-cidr", "config.yaml:1"}},
		{"a wrong file of the kubelet", `mkdir -p /etc/lite; printf 'apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPodz: 1\n' >/etc/lite/kubelet.yaml`, "rm -r /etc/lite",
			[]string{"--kubelet-arg", "config=/etc/lite/kubelet.yaml"}, "configuration", check.Fail, []string{"config=/etc/lite/kubelet.yaml", `unknown field "maxPodz"`}},
		{"an agent's data where the configuration says", "mkdir -p /etc/lite /srv/lite/agent; echo 'data-dir: /srv/lite' >/etc/lite/config.yaml; echo '{}' >/srv/lite/agent/cluster.json", "rm -r /etc/lite /srv/lite", nil,
			"configuration", check.Pass, []string{"agent (/srv/lite contains one)"}},
		{"a VPN", "ip link add vpn type bridge; ip link set vpn up; ip route add 10.43.0.0/16 dev vpn table 52; ip rule add lookup 52 priority 5270", "ip rule del lookup 52; ip link del vpn", nil,
			"addresses", check.Warn, []string{"routing table 52", "10.43.0.0/16 to vpn"}},
		{"no server", "true", "true", []string{"--role", "agent", "--server", "https://" + n.IP + ":7777"},
			"server", check.Fail, []string{n.IP + ":7777", "connection refused"}},
	} {
		sh(c.do)
		code := 0
		if c.status == check.Fail {
			code = 1
		}
		want(t, look(t, n, code, c.args...), c.line, c.status, c.words...)
		sh(c.undo)
	}

	t.Run("a port", func(t *testing.T) {
		// The test's own process is none of the host's, so it has no name there.
		l, err := n.Listen("tcp", "127.0.0.1:2379")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		sleeper := n.Command(t.Context(), "busybox", "nc", "-l", "-p", "10250")
		if err := sleeper.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = sleeper.Process.Kill()
			_ = sleeper.Wait()
		}()
		cluster.Eventually(t, time.Minute, func() error {
			return n.Command(t.Context(), "grep", "-qi", ":280A .* 0A ", "/proc/net/tcp", "/proc/net/tcp6").Run()
		})
		r := look(t, n, 1)
		want(t, r, "ports", check.Fail, "2379/tcp, where etcd has to listen", "not visible from here", "stop it")
		want(t, r, "ports", check.Fail, "10250/tcp, where the kubelet has to listen, is in use by busybox (pid ")
	})
	noFailure(t, look(t, n, 0))

	t.Run("fix", func(t *testing.T) {
		n.Output(t, "sh", "-c", "echo 128 >/run/max_user_instances; echo 8192 >/run/max_user_watches")
		want(t, look(t, n, 0), "inotify", check.Warn, "128 instances")
		r := look(t, n, 0, "--fix")
		want(t, r, "inotify", check.Pass, "1024 instances")
		if len(r.Fixed) != 1 || r.Fixed[0].Error != "" || !strings.Contains(r.Fixed[0].Undo, "/etc/sysctl.d/90-lite.conf") {
			t.Errorf("fixed %+v", r.Fixed)
		}
		for _, path := range []string{"/etc/sysctl.d/90-lite.conf", "/etc/lite/fixes"} {
			if text := n.Output(t, "cat", path); !strings.Contains(text, "max_user_instances") {
				t.Errorf("%s: %s", path, text)
			}
		}
		again := look(t, n, 0, "--fix")
		if len(again.Fixed) != 0 {
			t.Errorf("a second time: %+v", again.Fixed)
		}
		want(t, again, "node", check.Skip, "is not running yet") // nothing was installed

		n.Output(t, "lite", "uninstall", "--yes")
		n.Output(t, "sh", "-ec", "! [ -e /etc/sysctl.d/90-lite.conf ]; ! [ -e /etc/lite ]; grep -x 128 /run/max_user_instances; grep -x 8192 /run/max_user_watches")
	})
}

// TestFirewalls is a server behind each kind of firewall: an agent cannot reach it,
// lite check says why, --fix lets it in, and what that did can be taken back.
func TestFirewalls(t *testing.T) {
	t.Parallel()
	net := cluster.NewNetwork(t)
	root, skip := firewallRoot(t)
	options := []cluster.HostOption{cluster.On(net)}
	if skip == "" {
		options = append(options, cluster.Install(root, "/firewalls"))
	}
	server := cluster.NewNode(t, options...)
	if skip == "" {
		server.Output(t, "cp", "-a", "/firewalls/.", "/")
	}
	inotify(t, server)
	t.Run("cis, not started", func(t *testing.T) {
		r := judge(t, server)
		entry(t, r, "1.2.15", cis.Unknown, "lite is not running", "start lite")
		entry(t, r, "1.1.21", cis.Unknown, "there is no such file yet")
		entry(t, r, "1.1.1", cis.Inapplicable, "no static pod")
	})
	server.Start(t)
	noFailure(t, look(t, server, 0))
	t.Run("cis", func(t *testing.T) { judged(t, server) })
	// There is no agent yet, so this pod is on the server.
	web := server.Namespace(t)
	web.Kubectl(t, "run", "web", "--image=lite.test/busybox:1", "--", "httpd", "-f", "-p", "8080")
	web.WaitFor(t, "condition=Ready", "pod/web")
	pod := web.Field(t, "pod/web", ".status.podIP") + ":8080"
	t.Run("cis, with a pod", func(t *testing.T) {
		for _, e := range judge(t, server).Entries {
			if e.Status == cis.Fail || e.Status == cis.Unknown {
				t.Errorf("%s is %s: %s", e.Number, e.Status, e.Seen)
			}
		}
	})
	token := strings.TrimSpace(server.Output(t, "lite", "token", "create"))
	agent := cluster.NewNode(t, cluster.On(net))
	agent.Role = "agent"

	t.Run("running", func(t *testing.T) {
		r := look(t, server, 0)
		want(t, r, "node", check.Pass, "server "+server.Name+" is running", "components are ready")
		want(t, r, "ports", check.Pass, "lite itself uses")
		want(t, r, "certificates", check.Pass)
		r = lookAs(t, server, 65534, 0)
		want(t, r, "user", check.Skip, "not root")
		want(t, r, "configuration", check.Skip, "only root can read /etc/lite/config.yaml")
		server.Output(t, "sh", "-ec", "chmod 755 /etc/lite; mkdir -m 755 /etc/lite/config.yaml.d; echo 'node-label: [a=b]' >/etc/lite/config.yaml.d/50-install.yaml; chmod 600 /etc/lite/config.yaml.d/*")
		want(t, lookAs(t, server, 65534, 0), "configuration", check.Skip, "only root can read /etc/lite/config.yaml.d/50-install.yaml")
		server.Output(t, "sh", "-ec", "rm -r /etc/lite/config.yaml.d; chmod 700 /etc/lite")
		want(t, r, "memory", check.Pass)
	})

	t.Run("ufw", func(t *testing.T) {
		if skip != "" {
			t.Skip(skip)
		}
		server.Output(t, "ufw", "--force", "enable")
		defer server.Output(t, "ufw", "--force", "disable")
		agent.Launch(t, "--token", token)
		closed(t, agent, server.IP+":6443")
		did := fixes(t, server, agent, "ufw")
		agent.WaitReady(t)
		// What other nodes' pods send comes through the tunnel.
		cluster.Eventually(t, time.Minute, func() error { return reach(agent, "10.42.0.1:10250", pod) })
		undo(t, server, agent, did)
	})
	if skip != "" {
		agent.Start(t, "--token", token)
	}

	t.Run("agent", func(t *testing.T) {
		r := look(t, agent, 0)
		want(t, r, "configuration", check.Pass, "agent (it runs) "+agent.Name, "pods [10.42.0.0/16]", "vxlan")
		want(t, r, "node", check.Pass, "agent "+agent.Name)
		want(t, r, "server", check.Pass)
		want(t, r, "ports", check.Pass, "lite itself uses")
	})
	t.Run("cis, agent", func(t *testing.T) {
		asGolden(t, agent, judge(t, agent), "cis-agent")
		const file = cluster.DataDir + "/agent/kubelet.conf"
		agent.Output(t, "chmod", "644", file)
		entry(t, judge(t, agent), "4.1.5", cis.Fail, file+" has mode 0644", "chmod 600 "+file)
		agent.Output(t, "chmod", "600", file)
	})

	t.Run("firewalld", func(t *testing.T) {
		if skip != "" {
			t.Skip(skip)
		}
		server.Output(t, "sh", "-c", "grep -q ^messagebus: /etc/passwd || { echo messagebus:x:999:999::/:/bin/false >>/etc/passwd; echo messagebus:x:999: >>/etc/group; }; mkdir -p /run/dbus; dbus-daemon --system --fork")
		daemon := server.Command(t.Context(), "/usr/sbin/firewalld", "--nofork", "--nopid")
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = daemon.Process.Signal(syscall.SIGTERM)
			_ = daemon.Wait()
		}()
		cluster.Eventually(t, time.Minute, func() error { return server.Command(t.Context(), "firewall-cmd", "--state").Run() })
		closed(t, agent, server.IP+":6443")
		closed(t, agent, "10.42.0.1:10250")
		closed(t, agent, pod)
		did := fixes(t, server, agent, "firewalld")
		cluster.Eventually(t, time.Minute, func() error { return reach(agent, "10.42.0.1:10250", pod) })
		undo(t, server, agent, did)
	})

	for name, script := range map[string][2]string{
		"iptables": {"iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; iptables -P INPUT DROP", "iptables -P INPUT ACCEPT"},
		"nftables": {"nft -f - <<X\ntable inet user { chain in { type filter hook input priority 0; policy drop; iif lo accept; ct state established,related accept; }; chain through { type filter hook forward priority 0; policy drop; }; }\nX\n", "nft delete table inet user"},
	} {
		t.Run(name, func(t *testing.T) {
			server.Output(t, "sh", "-c", script[0])
			defer server.Output(t, "sh", "-c", script[1])
			closed(t, agent, server.IP+":6443")
			did := fixes(t, server, agent, name)
			cluster.Eventually(t, time.Minute, func() error { return reach(agent, "10.42.0.1:10250", pod) })
			undo(t, server, agent, did)
		})
	}

	// What somebody has opened in words of their own is understood: the packets get
	// through, and check says so.
	for name, script := range map[string][2]string{
		"opened by iptables": {`iptables -N mine; iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
			iptables -A INPUT -j mine; iptables -A mine -p tcp -m multiport --dports 22,6443,10250:10256 -j ACCEPT
			iptables -A mine ! -s 192.0.2.0/24 -p udp -m multiport --dports 8472 -m comment --comment 'nodes -j DROP' -j ACCEPT
			iptables -A mine -i cni0 -j ACCEPT; iptables -A mine -i lite-+ -j ACCEPT; iptables -A mine -p tcp --dport 1:1023 -j REJECT
			iptables -P INPUT DROP`,
			`iptables -P INPUT ACCEPT; iptables -D INPUT -j mine; iptables -F mine; iptables -X mine`},
		"opened by nftables": {`nft -f - <<X
table inet user {
	set nodes { type ipv4_addr; flags interval; elements = { 10.99.0.0/25, 10.99.0.128/25 } }
	map ports { type inet_service : verdict; elements = { 22 : drop, 6443 : accept } }
	chain nodes { tcp dport 10250-10256 accept; udp dport { 53, 8472 } accept; }
	chain in {
		type filter hook input priority 0; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iif lo accept
		ip saddr @nodes jump nodes
		tcp dport vmap @ports
		iifname { "cni0", "lite-vxlan" } counter accept
	}
}
X
`, "nft delete table inet user"},
	} {
		t.Run(name, func(t *testing.T) {
			server.Output(t, "sh", "-c", script[0])
			defer server.Output(t, "sh", "-c", script[1])
			want(t, look(t, server, 0), "firewall", check.Pass, strings.TrimPrefix(name, "opened by "), "allows what a node needs")
			if err := reach(agent, server.IP+":6443", "10.42.0.1:10250", pod); err != nil {
				t.Error(err)
			}
		})
	}

	t.Run("uninstall", func(t *testing.T) {
		if skip != "" {
			t.Skip(skip)
		}
		server.Output(t, "ufw", "--force", "enable")
		defer server.Output(t, "ufw", "--force", "disable")
		look(t, server, 0, "--fix")
		if added := server.Output(t, "ufw", "show", "added"); !strings.Contains(added, "lite: API server") {
			t.Errorf("--fix has added\n%s", added)
		}
		server.Output(t, "lite", "uninstall", "--yes")
		if added := server.Output(t, "ufw", "show", "added"); strings.Contains(added, "6443") || strings.Contains(added, "lite") || strings.Contains(added, "10.4") {
			t.Errorf("uninstalling has left\n%s", added)
		}
	})
}

// fixes wants check to say what a firewall keeps out, --fix to let it in, and a
// second time to change nothing.
func fixes(t *testing.T, server, agent *cluster.Node, name string) []check.Done {
	t.Helper()
	r := look(t, server, 1)
	f := want(t, r, "firewall", check.Fail, name, "6443/tcp (API server)", "8472/udp (pods of other nodes) from 10.99.0.0/24", "10250/tcp (kubelet)", "pods from 10.42.0.0/16")
	if !f.Fixable || len(f.Commands) == 0 {
		t.Errorf("says no commands: %+v", f)
	}
	r = look(t, server, 0, "--fix")
	want(t, r, "firewall", check.Pass, name, "allows what a node needs")
	for _, done := range r.Fixed {
		if done.Error != "" || done.Undo == "" {
			t.Errorf("%+v", done)
		}
	}
	if again := look(t, server, 0, "--fix"); len(again.Fixed) != 0 {
		t.Errorf("a second time: %+v", again.Fixed)
	}
	if err := reach(agent, server.IP+":6443"); err != nil {
		t.Error(err)
	}
	return r.Fixed
}

// undo runs the commands that --fix said take it back.
func undo(t *testing.T, server, agent *cluster.Node, did []check.Done) {
	t.Helper()
	for _, done := range did {
		server.Output(t, "sh", "-c", done.Undo)
	}
	closed(t, agent, server.IP+":6443")
	look(t, server, 1)
}

func reach(from *cluster.Node, addresses ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	for _, a := range addresses {
		conn, err := from.DialContext(ctx, "tcp", a)
		if err != nil {
			return err
		}
		conn.Close()
	}
	return nil
}

// closed wants an address not to answer.
func closed(t *testing.T, from *cluster.Node, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if conn, err := from.DialContext(ctx, "tcp", address); err == nil {
		conn.Close()
		t.Errorf("%s answers", address)
	}
}

// firewallRoot is where Debian's firewalls were unpacked, or why there are none.
func firewallRoot(t *testing.T) (root, skip string) {
	t.Helper()
	root, err := filepath.Abs("../../dist/test-firewalls/root")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(root); err != nil {
		return "", "ufw and firewalld are not there: scripts/test/firewalls could not fetch them"
	}
	return root, ""
}
