package uninstall

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
	"lite.io/lite/tests/harness/trace"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// soon is for what is to happen on a running cluster; the machine is busy.
const soon = 90 * time.Second

// program is where these tests install lite: the harness mounts its own, and what
// is mounted cannot be removed.
const program = "/var/lib/program/lite"

// suite is what the tests share: a server and an agent, on machines with
// neighbours, as they were before lite.
type suite struct {
	*cluster.Cluster
	server, agent       *cluster.Node
	serverWas, agentWas trace.Snapshot
	ns                  *cluster.Namespace
}

// TestUninstall runs in one cluster, in this order.
func TestUninstall(t *testing.T) {
	t.Parallel()
	network := cluster.NewNetwork(t)
	s := &suite{Cluster: &cluster.Cluster{Network: network}}
	s.server = cluster.NewNode(t, cluster.On(network))
	s.serverWas = prepare(t, s.server)
	install(t, s.server)
	s.server.Start(t)
	s.Servers = append(s.Servers, s.server)
	s.agent = cluster.NewNode(t, cluster.On(network))
	s.agent.Role = "agent"
	s.agentWas = prepare(t, s.agent)
	install(t, s.agent)
	s.agent.WriteFile(t, cluster.TokenFile, s.server.ReadFile(t, cluster.DataDir+"/server/token"))
	s.agent.Start(t, "--token-file", cluster.TokenFile)
	s.ns = s.server.Namespace(t)
	t.Log("deploying")
	s.deploy(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Refused", s.testRefused},
		{"Locked", s.testLocked},
		{"Agent", s.testAgent},
		{"Killall", s.testKillall},
		{"KeepData", s.testKeepData},
		{"Uninstall", s.testUninstall},
	} {
		if !t.Run(test.name, test.run) {
			t.FailNow() // what follows builds on it
		}
	}
}

// prepare makes a machine that lite is not alone on, and looks at it.
func prepare(t *testing.T, n *cluster.Node) trace.Snapshot {
	t.Helper()
	trace.OwnSettings(t, n.Host)
	n.Output(t, "sh", "-c", neighbours)
	c := n.Command(context.Background(), "sh", "-c", foreignProcesses)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go c.Wait()
	cluster.Eventually(t, soon, func() error {
		_, err := os.Stat(n.Path("/run/foreign.started"))
		return err
	})
	was := trace.Take(t, n.Host)
	was.Forget(cluster.DataDir) // images, from the harness
	return was
}

// neighbours are what others have on the machine.
const neighbours = `set -e
ip link add user0 type bridge
ip addr add 198.51.100.1/24 dev user0
ip link set user0 up
ip link add veth01234567 type veth peer name userpeer
ip link set veth01234567 master user0
ip link set veth01234567 up
ip link set userpeer up
ip netns add neighbour
ip route add 203.0.113.0/24 dev user0 proto 75
ip rule add from 198.51.100.7 table 100
nft add table inet user
nft 'add chain inet user c { type filter hook forward priority 5; }'
nft add rule inet user c ip saddr 198.51.100.9 counter drop
iptables-nft -N USER
iptables-nft -A USER -s 198.51.100.0/24 -m comment --comment "say \"KUBE-SERVICES\" -j LITE-FORWARD" -j RETURN
iptables-nft -A FORWARD -s 198.51.100.0/24 -j USER
iptables-nft -t nat -A POSTROUTING -s 198.51.100.0/24 ! -o user0 -j MASQUERADE
ip6tables-nft -A INPUT -s 2001:db8::/32 -j DROP
iptables-legacy -A FORWARD -s 198.51.100.3 -j DROP
mkdir -p /opt/cni/bin /var/lib/cni/networks/other /var/lib/cni/results /var/log/containers /var/lib/kubelet
echo plugin > /opt/cni/bin/custom
echo x > /var/lib/cni/networks/other/192.0.2.9
echo '{"kind":"cniCacheV1","containerId":"abc","networkName":"other"}' > /var/lib/cni/results/other-abc-eth0
echo mine > /var/log/containers/notes.txt
echo kubeadm > /var/lib/kubelet/config.yaml
mkdir -p /opt/foreign && cp /bin/dash /opt/foreign/containerd-shim-runc-v2
for c in $(ls -d /sys/fs/cgroup/pids /sys/fs/cgroup/memory 2>/dev/null || echo /sys/fs/cgroup); do mkdir $c/user; done
`

// foreignProcesses look like those of a node and are not: a shim of another
// containerd, and what only mentions our socket.
const foreignProcesses = `
/opt/foreign/containerd-shim-runc-v2 -c 'while :; do sleep 1000; done' -namespace k8s.io -address /run/containerd/containerd.sock &
sh -c 'while :; do sleep 1001; done' containerd-shim-runc-v2 -address /run/lite/containerd/containerd.sock &
touch /run/foreign.started
wait
`

// install does what an installer does.
func install(t *testing.T, n *cluster.Node) {
	t.Helper()
	binary := n.Path(program)
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(cluster.Binary(t), filepath.Join(n.Dir, "lib", "program", "lite")); err != nil {
		n.Output(t, "cp", "/usr/local/bin/lite", program)
	}
	files := []string{"/etc/bash_completion.d/lite", "/etc/systemd/system/lite.service", "/etc/lite/lite.env", "/usr/local/bin/lite-uninstall.sh"}
	for _, path := range files {
		n.WriteFile(t, path, "made by the installer\n")
	}
	n.Output(t, "ln", "-s", "lite", "/usr/local/bin/kubectl-of-lite")
	n.WriteFile(t, "/etc/lite/installed", strings.Join(append(files, program, "/var/lib/program", "/usr/local/bin/kubectl-of-lite"), "\n")+"\n")
	n.WriteFile(t, "/etc/lite/config.yaml", "node-label: [made-by=test]\n")
}

// lite runs lite on a node and returns what it says.
func lite(t *testing.T, n *cluster.Node, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := n.Command(ctx, program, args...).CombinedOutput()
	t.Logf("lite %s on %s: %v\n%s", strings.Join(args, " "), n.Name, err, out)
	return string(out), err
}

func must(t *testing.T, n *cluster.Node, args ...string) string {
	t.Helper()
	out, err := lite(t, n, args...)
	if err != nil {
		t.Fatalf("lite %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// deploy runs 30 pods with all that pods make on a machine.
func (s *suite) deploy(t *testing.T) {
	s.server.WriteFile(t, "/srv/data/file", "of the machine\n")
	s.ns.Apply(t, workload)
	s.ns.WaitRollout(t, "deployment/many")
	s.ns.WaitRollout(t, "statefulset/claims")
	s.ns.WaitRollout(t, "daemonset/everywhere")
	s.ns.Kubectl(t, "create", "job", "now", "--from=cronjob/often")
	s.ns.WaitFor(t, "jsonpath={.status.ready}=1", "job/now")
	s.ns.Exec(t, "claims-0", "sh", "-c", "echo kept > /data/file; echo scratch > /scratch/file")
	s.ns.Exec(t, "claims-0", "sh", "-c", "nohup sleep 5000 >/dev/null 2>&1 &")
	cluster.Eventually(t, soon, func() error {
		for _, n := range []*cluster.Node{s.server, s.agent} {
			if rules := n.Output(t, "nft", "list", "ruleset"); !strings.Contains(rules, "lite-policy") || !strings.Contains(rules, "dport 8088") {
				return fmt.Errorf("policy or host port is not in force on %s", n.Name)
			}
		}
		return nil
	})
	// What somebody adds between our rules.
	s.server.Output(t, "iptables-nft", "-I", "FORWARD", "1", "-s", "198.51.100.77", "-j", "ACCEPT")
	s.server.Output(t, "iptables-nft", "-A", "FORWARD", "-s", "198.51.100.78", "-j", "ACCEPT")
}

const workload = `
apiVersion: v1
kind: Secret
metadata: {name: secret}
stringData: {key: value}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: config}
data: {key: value}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 24
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      containers:
      - name: c
        image: lite.test/busybox:1
        command: [sleep, inf]
        volumeMounts:
        - {name: scratch, mountPath: /scratch}
        - {name: scratch, mountPath: /part, subPath: a/b}
        - {name: memory, mountPath: /memory}
        - {name: secret, mountPath: /secret}
        - {name: config, mountPath: /config/key, subPath: key}
        - {name: host, mountPath: /host}
      volumes:
      - {name: scratch, emptyDir: {}}
      - {name: memory, emptyDir: {medium: Memory}}
      - {name: secret, secret: {secretName: secret}}
      - {name: config, configMap: {name: config}}
      - {name: host, hostPath: {path: /srv}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: claims}
spec:
  replicas: 2
  serviceName: claims
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: claims}}
  template:
    metadata: {labels: {app: claims}}
    spec:
      nodeSelector: {kubernetes.io/hostname: host1}
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: lite.test/busybox:1
        command: [sh, -c, 'trap "echo ended >> /data/ended; exit" TERM; while :; do sleep 1; done']
        volumeMounts: [{name: data, mountPath: /data}, {name: scratch, mountPath: /scratch}]
      volumes: [{name: scratch, emptyDir: {}}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata:
      labels: {app: everywhere}
      annotations: {kubernetes.io/egress-bandwidth: 10M, kubernetes.io/ingress-bandwidth: 10M}
    spec:
      hostPID: true
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: lite.test/busybox:1
        command: [httpd, -f, -p, "80"]
        ports: [{containerPort: 80, hostPort: 8088}, {containerPort: 81, hostPort: 8089, protocol: UDP}]
        securityContext: {privileged: true}
---
apiVersion: v1
kind: Service
metadata: {name: everywhere}
spec: {type: LoadBalancer, selector: {app: everywhere}, ports: [{port: 8123, targetPort: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: many}}, policyTypes: [Ingress, Egress]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: often}
spec:
  schedule: "*/2 * * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: lite.test/busybox:1, command: [sleep, "100"]}]
`

// testRefused: it asks, and refuses what cannot be meant; nothing is touched.
func (s *suite) testRefused(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"uninstall"}, "is not a terminal; pass --yes"},
		{[]string{"uninstall", "--yes", "--data-dir", "/home"}, "is a directory of the machine"},
		{[]string{"uninstall", "--yes", "--data-dir", "/"}, "data-dir"},
		{[]string{"killall", "--grace-period", "-1s"}, "must not be negative"},
		{[]string{"killall", "now"}, "unknown command"},
	} {
		if out, err := lite(t, s.server, test.args...); err == nil || !strings.Contains(out, test.want) {
			t.Errorf("lite %s: %v, %s; want %q", strings.Join(test.args, " "), err, out, test.want)
		}
	}
	if !s.server.Running() {
		t.Error("lite was stopped")
	}
}

// testLocked: one at a time changes what is installed; what is started by the one that
// does may go on.
func (s *suite) testLocked(t *testing.T) {
	end := s.locked(t, "/etc/lite")
	var all sync.WaitGroup
	for _, args := range [][]string{
		{"uninstall", "--yes"}, {"killall"}, {"upgrade", "--artifact", program}, {"config", "write", "server"}, {"check", "--fix"},
	} {
		all.Go(func() {
			out, err := lite(t, s.server, args...)
			if err == nil || !strings.Contains(out, "Waiting for sh (pid") || !strings.Contains(out, "is changing the installation (it has locked /etc/lite); wait until it ends") {
				t.Errorf("lite %s beside an installation: %v, %s", strings.Join(args, " "), err, out)
			}
		})
	}
	all.Wait()
	if !s.server.Running() {
		t.Error("lite was stopped")
	}
	end()
	s.server.Output(t, "sh", "-c", "exec 9</etc/lite; flock 9; "+program+" config write server --file /etc/lite/config.yaml.d/written.yaml && rm -r /etc/lite/config.yaml.d")
}

// testAgent: an agent that was killed leaves no trace on its machine.
func (s *suite) testAgent(t *testing.T) {
	s.agent.Kill(t)
	// This one the administrator wants as lite has it.
	s.agent.WriteFile(t, "/etc/sysctl.d/99-admin.conf", "vm.overcommit_memory = 1\n")
	told := must(t, s.agent, "uninstall", "--yes", "--grace-period=0")
	if got := s.agent.ReadFile(t, "/proc/sys/vm/overcommit_memory"); strings.TrimSpace(got) != "1" || !strings.Contains(told, "vm.overcommit_memory = 1, which the machine's configuration sets") {
		t.Errorf("vm.overcommit_memory is %s, and sysctl.d says 1: %s", got, told)
	}
	s.agent.Output(t, "sh", "-c", "rm /etc/sysctl.d/99-admin.conf; printf 7 >/proc/sys/vm/overcommit_memory")
	if want := "lite kubectl delete node " + s.agent.Name; !strings.Contains(told, want) {
		t.Errorf("it does not say that the Node object stays: %s", told)
	}
	trace.Compare(t, s.agentWas, trace.Take(t, s.agent.Host))
	s.server.Kubectl(t, "delete", "node", s.agent.Name)

	// Another distribution comes, and somebody uninstalls lite once more.
	const others = "/var/lib/kubelet/pods/uid/volumes/data /var/log/pods/pod/log /var/lib/lite/server/mine"
	s.agent.Output(t, "sh", "-c", "for f in "+others+"; do mkdir -p ${f%/*}; echo x > $f; done")
	out, err := s.agent.Command(t.Context(), "lite", "uninstall", "--yes", "--data-dir", "/var/lib/other").CombinedOutput()
	if err != nil {
		t.Errorf("uninstall where lite is not: %v, %s", err, out)
	}
	s.agent.Output(t, "sh", "-c", "for f in "+others+"; do [ -e $f ] || { echo $f is gone >&2; exit 1; }; done")
}

// testKillall: everything is stopped, nothing is lost.
func (s *suite) testKillall(t *testing.T) {
	// Of another's container, in the table that ours are in too.
	s.server.Output(t, "nft", "add", "rule", "ip", "cni_hostport", "hostports", "tcp", "dport", "7777", "dnat", "to", "192.0.2.9:80", "comment", `"foreign"`)
	// An upgrade has died here before it stopped lite: that one does not start again.
	s.server.WriteFile(t, journal, abandoned)
	must(t, s.server, "killall")
	if s.server.Running() {
		t.Fatal("lite still runs")
	}
	is := trace.Take(t, s.server.Host)
	for line := range is {
		kind, _, _ := strings.Cut(line, ":")
		switch kind {
		case "mount", "link", "address", "route", "ip rule", "namespace", "process", "cgroup", "iptables", "socket":
			if !s.serverWas[line] && !strings.Contains(line, "198.51.100.7") {
				t.Errorf("after killall: %s", line)
			}
		}
	}
	rules := s.server.Output(t, "nft", "list", "table", "ip", "cni_hostport")
	if !strings.Contains(rules, "dport 7777") || strings.Contains(rules, "8088") {
		t.Errorf("rules of host ports after killall:\n%s", rules)
	}
	s.server.Output(t, "nft", "delete", "table", "ip", "cni_hostport")
	if out, err := lite(t, s.server, "killall"); err != nil {
		t.Errorf("killall a second time: %v, %s", err, out)
	}
	s.back(t)
	if got := s.ns.Exec(t, "claims-0", "cat", "/data/ended"); got != "ended\n" {
		t.Errorf("the container was not asked to end: %q", got)
	}
}

// abandoned is the journal of an upgrade that somebody has killed.
const (
	journal   = cluster.DataDir + "/upgrade.json"
	abandoned = `{"state": "prepared", "from": "v0.1.0", "to": "v0.2.0", "role": "server", "binary": "/var/lib/program/lite"}`
)

// pause has lite wait for an upgrade, until end is called, which is its death.
func (s *suite) pause(t *testing.T) (end func()) {
	t.Helper()
	s.server.WriteFile(t, journal, abandoned)
	s.server.WriteFile(t, cluster.DataDir+"/upgrade.lock", "")
	end = s.locked(t, cluster.DataDir+"/upgrade.lock")
	s.server.Output(t, "kill", strconv.Itoa(s.server.PID(t)))
	cluster.Eventually(t, soon, func() error {
		if !strings.Contains(s.server.Log(), "Waiting for the upgrade to start lite again") {
			return errors.New("lite does not wait for the upgrade")
		}
		return nil
	})
	return end
}

// locked has a shell lock a file, until end is called.
func (s *suite) locked(t *testing.T, path string) (end func()) {
	t.Helper()
	shell := s.server.Command(t.Context(), "sh", "-c", "exec 9<"+path+"; flock 9; echo has it; read end")
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "has it\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return func() {
		in.Close()
		_ = shell.Wait()
	}
}

// back starts lite, and looks whether all is there again.
func (s *suite) back(t *testing.T) {
	t.Helper()
	s.server.Start(t)
	cluster.Eventually(t, soon, func() error {
		got, err := s.ns.KubectlErr(t, "exec", "claims-0", "--", "cat", "/data/file", "/scratch/file")
		if err != nil || got != "kept\nscratch\n" {
			return fmt.Errorf("the volumes of claims-0: %v: %s", err, got)
		}
		return nil
	})
	s.ns.WaitRollout(t, "deployment/many")
	s.ns.WaitRollout(t, "statefulset/claims")
}

// testKeepData: the same cluster goes on after another installation.
func (s *suite) testKeepData(t *testing.T) {
	uid := s.ns.Field(t, "namespace/kube-system", ".metadata.uid")
	// It waits for an upgrade, which dies later.
	end := s.pause(t)
	out := must(t, s.server, "uninstall", "--keep-data", "--yes")
	end()
	if s.server.Running() {
		t.Fatal("a lite that has waited for an upgrade runs on")
	}
	if !strings.Contains(out, "--keep-data") {
		t.Errorf("it does not say what it keeps: %s", out)
	}
	for _, path := range []string{program, "/etc/systemd/system/lite.service", "/etc/lite/installed", "/run/lite"} {
		if _, err := os.Lstat(s.server.Path(path)); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	for _, path := range []string{"/etc/lite/config.yaml", "/etc/lite/lite.env"} {
		if _, err := os.Lstat(s.server.Path(path)); err != nil {
			t.Errorf("--keep-data keeps no %s", path)
		}
	}
	install(t, s.server)
	s.back(t)
	if now := s.ns.Field(t, "namespace/kube-system", ".metadata.uid"); now != uid {
		t.Errorf("another cluster: kube-system was %s and is %s", uid, now)
	}
}

// testUninstall: killed again and again, and then no trace.
func (s *suite) testUninstall(t *testing.T) {
	// What is the machine owner's is mounted in the data directory, and in a volume.
	volume := strings.TrimSpace(s.server.Output(t, "sh", "-c", "ls -d "+cluster.DataDir+"/storage/pvc-*claims-0"))
	mounts := []string{cluster.DataDir + "/mine", "/etc/lite/mine"}
	for _, dir := range append(mounts, volume+"/deep/mine") {
		s.server.Output(t, "sh", "-c", fmt.Sprintf("mkdir -p /srv/data/mine %s; echo precious > /srv/data/mine/file; mount --bind /srv/data/mine %s", dir, dir))
	}
	random := rand.New(rand.NewPCG(seed(t), 0))
	for range 8 {
		if _, err := os.Stat(s.server.Path(program)); err != nil {
			break // the last one got as far as to remove it
		}
		killAfter(t, s.server, 1+random.IntN(9))
	}
	last := program
	if _, err := os.Stat(s.server.Path(program)); err != nil {
		last = "/usr/local/bin/lite"
	}
	out, err := s.server.Command(t.Context(), last, "uninstall", "--yes").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("uninstall: %v", err)
	}
	for _, dir := range mounts {
		if got := s.server.ReadFile(t, dir+"/file"); got != "precious\n" {
			t.Errorf("what is mounted at %s: %q", dir, got)
		}
		s.server.Output(t, "umount", dir)
	}
	// What was mounted in a volume was mounted for its pod too, and went with that.
	if got := s.server.ReadFile(t, "/srv/data/mine/file"); got != "precious\n" {
		t.Errorf("what was mounted in a volume: %q", got)
	}
	if out, err := s.server.Command(t.Context(), "lite", "uninstall", "--yes").CombinedOutput(); err != nil { // goes on where mounts were
		t.Errorf("uninstall after unmounting: %v, %s", err, out)
	}
	s.server.Output(t, "iptables-nft", "-D", "FORWARD", "-s", "198.51.100.77", "-j", "ACCEPT")
	s.server.Output(t, "iptables-nft", "-D", "FORWARD", "-s", "198.51.100.78", "-j", "ACCEPT")
	if got := s.server.ReadFile(t, "/srv/data/file"); got != "of the machine\n" {
		t.Errorf("the machine's own file: %q", got)
	}
	if err := os.RemoveAll(s.server.Path("/srv/data")); err != nil {
		t.Error(err)
	}
	trace.Compare(t, s.serverWas, trace.Take(t, s.server.Host))
	out, err = s.server.Command(t.Context(), "lite", "uninstall", "--yes").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Nothing to do") {
		t.Errorf("uninstall once more: %v, %s", err, out)
	}
}

// killAfter begins to uninstall, and kills that after some of its steps.
func killAfter(t *testing.T, n *cluster.Node, steps int) {
	t.Helper()
	c := n.Command(t.Context(), program, "uninstall", "--yes", "--grace-period=0")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	last := ""
	for lines := bufio.NewScanner(out); steps > 0 && lines.Scan(); steps-- {
		last = lines.Text()
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	t.Logf("killed after: %s", last)
	trace.CompleteSettings(t, n.Host)
}

// seed is LITE_TEST_SEED, or one that differs from run to run.
func seed(t *testing.T) uint64 {
	n, err := strconv.ParseUint(os.Getenv("LITE_TEST_SEED"), 10, 64)
	if err != nil {
		n = rand.Uint64()
	}
	t.Logf("LITE_TEST_SEED=%d repeats the moments", n)
	return n
}

// TestDataDir: a data directory somewhere else, behind a link, with files of
// others in it; and lite is stopped while it starts.
func TestDataDir(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	n.Output(t, "sh", "-c", "mkdir /var/lib/real && ln -s real /var/lib/link && echo mine > /var/lib/real/precious")
	was := trace.Take(t, n.Host)
	n.Start(t, "--data-dir", "/var/lib/link")
	n.Kill(t)
	// How it was started is on record.
	out, err := n.Command(t.Context(), "lite", "uninstall", "--yes").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "which is a link to") {
		t.Errorf("uninstall: %v, %s", err, out)
	}
	was.Forget(cluster.DataDir)
	is := trace.Take(t, n.Host)
	for _, s := range []trace.Snapshot{was, is} {
		for line := range s {
			if strings.HasPrefix(line, "setting: ") {
				delete(s, line) // TestUninstall compares them
			}
		}
	}
	trace.Compare(t, was, is)

	n.Launch(t)
	cluster.Eventually(t, soon, func() error {
		_, err := os.Stat(n.Path(cluster.DataDir + "/lite.lock"))
		return err
	})
	out, err = n.Command(t.Context(), "lite", "uninstall", "--yes").CombinedOutput()
	if err != nil {
		t.Errorf("uninstall while it starts: %v, %s", err, out)
	}
	if n.Running() {
		t.Error("lite runs on after uninstall")
	}
	for _, path := range []string{cluster.DataDir, "/etc/lite", "/run/lite"} {
		if _, err := os.Lstat(n.Path(path)); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
}
