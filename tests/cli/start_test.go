package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// attempt is a start that is to fail.
type attempt struct {
	// before is a command of the shell that comes before.
	before string
	uid    uint32
	env    []string
	args   []string
	// want are words that the one line must have; upper and lower case are alike.
	want []string
	// below is the directory that must not change; the data directory if empty.
	below string
}

// check makes the attempt.
func (a attempt) check(t *testing.T, n *cluster.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	below := a.below
	if below == "" {
		below = cluster.DataDir
	}
	before := tree(t, n.Path(below))
	line := append([]string{"lite", "server"}, a.args...)
	if a.before != "" {
		line = append([]string{"sh", "-c", a.before + `; exec "$0" "$@"`}, line...)
	}
	lite := n.Command(ctx, line[0], line[1:]...)
	lite.Env = append(lite.Env, a.env...)
	if a.uid != 0 {
		lite.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.uid}}
	}
	var stderr bytes.Buffer
	lite.Stderr = &stderr
	err := lite.Run()
	if lite.ProcessState == nil {
		t.Fatal(err)
	}
	if code := lite.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	message := strings.TrimSpace(stderr.String())
	if message == "" || strings.Contains(message, "\n") {
		t.Errorf("want one line, got:\n%s", message)
	}
	for _, want := range a.want {
		if !strings.Contains(strings.ToLower(message), strings.ToLower(want)) {
			t.Errorf("the message does not say %q:\n%s", want, message)
		}
	}
	after := tree(t, n.Path(below))
	for path, content := range before {
		if after[path] != content {
			t.Errorf("%s has changed from %s to %s", path, content, after[path])
		}
	}
	for path := range after {
		if before[path] == "" {
			t.Errorf("%s is new", path)
		}
	}
}

// tree returns the mode and the hash of all files at and below a path.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root) + "/"
		files[name] = info.Mode().String()
		if entry.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files[name] += fmt.Sprintf(" %d bytes %x", len(content), sha256.Sum256(content))
		}
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return files
}

// testRefused has all that is seen before anything is touched.
func testRefused(t *testing.T, n *cluster.Node) {
	for name, a := range map[string]attempt{
		"not root": {uid: 65534, want: []string{"root"}},

		// It used to wait for ever.
		"few open files": {before: "ulimit -n 256", want: []string{"256 for each process", "LimitNOFILE=1048576"}},

		"unknown flag":           {args: []string{"--colour=blue"}, want: []string{"colour"}},
		"bad CIDR":               {args: []string{"--cluster-cidr=10.42.0.0/99"}, want: []string{"cluster-cidr", "10.42.0.0/99"}},
		"pods overlap services":  {args: []string{"--cluster-cidr=10.42.0.0/15"}, want: []string{"service-cidr", "10.43.0.0/16", "overlap"}},
		"pods overlap the host":  {args: []string{"--cluster-cidr=10.99.0.0/16"}, want: []string{"cluster-cidr", "10.99.0.0/16"}},
		"services overlap host":  {args: []string{"--service-cidr=10.99.0.0/16"}, want: []string{"service-cidr", "10.99.0.0/16"}},
		"node name":              {args: []string{"--node-name=Not_A_Label"}, want: []string{"node-name", "Not_A_Label"}},
		"variable":               {env: []string{"LITE_NODE_NAME=Not_A_Label"}, want: []string{"LITE_NODE_NAME", "Not_A_Label"}},
		"port out of range":      {args: []string{"--https-listen-port=70000"}, want: []string{"https-listen-port", "70000"}},
		"configuration file":     {args: []string{"--config=/no/such/file"}, want: []string{"/no/such/file"}},
		"unknown battery":        {args: []string{"--disable=lights"}, want: []string{"disable", "lights", "use one of dns, metrics, storage"}},
		"battery of k3s alone":   {args: []string{"--disable=coredns,traefik"}, want: []string{"disable \"traefik\"", "use one of dns, metrics, storage"}},
		"node ports":             {args: []string{"--kube-apiserver-arg=service-node-port-range=80-32767"}, want: []string{"kube-apiserver-arg", "80-32767", "2379 (etcd)", "10250 (the kubelet)", "10352-32767"}},
		"refused argument":       {args: []string{"--kube-apiserver-arg=secure-port=7443"}, want: []string{"secure-port=7443", "--https-listen-port"}},
		"arguments that exclude": {args: []string{"--kube-apiserver-arg=oidc-issuer-url=https://a.test"}, want: []string{"oidc-client-id"}},
		"file of an argument":    {args: []string{"--kubelet-arg=config=/no/such/file"}, want: []string{"kubelet-arg", "config=/no/such/file", "does not exist", "create it"}},
		"suites, no HTTP/2":      {args: []string{"--kubelet-arg=tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}, want: []string{"kubelet-arg", "tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "HTTP/2", "add TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}},
		"argument":               {args: []string{"--kube-apiserver-arg=no-such-flag=1"}, want: []string{"no-such-flag"}},
		"APIs turned off":        {args: []string{"--kube-apiserver-arg=runtime-config=api/ga=false,/v1=true"}, want: []string{"kube-apiserver-arg", "runtime-config=", "turns off", "leave stable APIs on"}},
		"one API turned off":     {args: []string{"--kube-apiserver-arg=runtime-config=node.k8s.io/v1=false"}, want: []string{"kube-apiserver-arg", "runtime-config=node.k8s.io/v1=false", "leave stable APIs on"}},
		"another API server":     {args: []string{"--kube-scheduler-arg=master=https://192.0.2.1:6443"}, want: []string{"kube-scheduler-arg", "master=https://192.0.2.1:6443", "remove the argument"}},
		"a quota of a byte":      {args: []string{"--etcd-arg=quota-backend-bytes=1"}, want: []string{"etcd-arg", "quota-backend-bytes=1", "use 67108864 or more"}},
		"a kubelet's own key":    {args: []string{"--kubelet-arg=tls-cert-file=/etc/other.crt"}, want: []string{"kubelet-arg", "tls-cert-file=/etc/other.crt", "logs and exec would not work", "remove the argument"}},
		"another name of a node": {args: []string{"--kubelet-arg=hostname-override=other"}, want: []string{"hostname-override=other", "--node-name"}},
		"no ranges of pods":      {args: []string{"--kube-controller-manager-arg=allocate-node-cidrs=false"}, want: []string{"allocate-node-cidrs=false", "no node would get a pod CIDR", "disable: cni"}},
		"data directory is file": {args: []string{"--data-dir=/etc/passwd"}, want: []string{"data-dir", "/etc/passwd"}},
		"unwritable directory":   {args: []string{"--data-dir=/proc/lite"}, want: []string{"data-dir", "/proc/lite"}},
	} {
		t.Run(name, func(t *testing.T) { a.check(t, n) })
	}

	t.Run("unknown key", func(t *testing.T) {
		n.WriteFile(t, "/etc/lite/config.yaml", "node-name: one\ncolour: blue\n")
		defer os.Remove(n.Path("/etc/lite/config.yaml"))
		attempt{want: []string{"colour", "/etc/lite/config.yaml"}}.check(t, n)
	})
	t.Run("drop-in", func(t *testing.T) {
		n.WriteFile(t, "/etc/lite/config.yaml.d/10-net.yaml", "cluster-cidr: [10.42.0.0/99]\n")
		defer os.RemoveAll(n.Path("/etc/lite/config.yaml.d"))
		attempt{want: []string{"cluster-cidr", "10.42.0.0/99", "10-net.yaml"}}.check(t, n)
	})
	for name, test := range map[string]struct {
		flag, text string
		want       []string
	}{
		"kubelet's file":   {"kubelet-arg=config", "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPodz: 1\n", []string{"kubelet-arg", `unknown field "maxPodz"`}},
		"what lite owns":   {"kubelet-arg=config", "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix:///run/crio.sock\n", []string{"containerRuntimeEndpoint", "--container-runtime-endpoint"}},
		"scheduler's file": {"kube-scheduler-arg=config", "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nleaderElection: {leaderElect: true}\n", []string{"leaderElection.leaderElect"}},
		"kube-proxy's":     {"kube-proxy-arg=config", "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: none\n", []string{"ProxyMode"}},
		"authentication":   {"kube-apiserver-arg=authentication-config", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymus: {}\n", []string{`unknown field "anonymus"`}},
		"authorization":    {"kube-apiserver-arg=authorization-config", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: []\n", []string{"authorizers"}},
	} {
		t.Run(name, func(t *testing.T) {
			const file = "/etc/lite/component.yaml"
			n.WriteFile(t, file, test.text)
			defer os.Remove(n.Path(file))
			attempt{args: []string{"--" + test.flag + "=" + file}, want: append(test.want, file)}.check(t, n)
		})
	}
	t.Run("port taken", func(t *testing.T) {
		listener, err := n.Listen("tcp", n.IP+":6443")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		attempt{want: []string{"6443", "in use"}}.check(t, n)
	})
	t.Run("disk full", func(t *testing.T) {
		n.Output(t, "mkdir", "/var/lib/small")
		n.Output(t, "mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "/var/lib/small")
		defer n.Output(t, "umount", "/var/lib/small")
		attempt{
			args: []string{"--data-dir=/var/lib/small/lite"}, below: "/var/lib/small",
			want: []string{"/var/lib/small", "100 MiB"},
		}.check(t, n)
	})
	t.Run("read-only disk", func(t *testing.T) {
		n.Output(t, "mkdir", "/var/lib/solid")
		n.Output(t, "mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/var/lib/solid")
		defer n.Output(t, "umount", "/var/lib/solid")
		attempt{
			args: []string{"--data-dir=/var/lib/solid/lite"}, below: "/var/lib/solid",
			want: []string{"data-dir", "/var/lib/solid", "read-only"},
		}.check(t, n)
	})
	// All parts used to get ready there, and no pod did.
	t.Run("disk without programs", func(t *testing.T) {
		n.Output(t, "mkdir", "/var/lib/quiet")
		n.Output(t, "mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", "/var/lib/quiet")
		defer n.Output(t, "umount", "/var/lib/quiet")
		attempt{
			args: []string{"--data-dir=/var/lib/quiet/lite"}, below: "/var/lib/quiet",
			want: []string{"data-dir", "/var/lib/quiet", "noexec", "mount it without noexec"},
		}.check(t, n)
	})
	t.Run("volumes on a read-only disk", func(t *testing.T) {
		n.Output(t, "mkdir", "-p", "/var/lib/kubelet")
		n.Output(t, "mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/var/lib/kubelet")
		defer n.Output(t, "umount", "/var/lib/kubelet")
		attempt{want: []string{"/var/lib/kubelet", "read-only", "mount it read-write"}}.check(t, n)
	})
	// The kubelet started no pod, and all parts were ready.
	t.Run("an unfinished line in resolv.conf", func(t *testing.T) {
		before := n.ReadFile(t, "/etc/resolv.conf")
		n.WriteFile(t, "/etc/resolv.conf", before+"nameserver\n")
		defer n.WriteFile(t, "/etc/resolv.conf", before)
		attempt{want: []string{"of /etc/resolv.conf is `nameserver` without an address", "complete or remove the line"}}.check(t, n)
	})
	// As in a container that was given no devices. The kubelet used to end the start.
	for name, log := range map[string]struct {
		make string
		want []string
	}{
		"no kernel log":               {"true", []string{"no such file or directory", "--device /dev/kmsg"}},
		"kernel log is a pipe":        {"mkfifo kmsg", []string{"it is a named pipe", "lxc.mount.entry"}},
		"kernel log cannot be opened": {"mknod kmsg c 251 251", []string{"cannot be read", "lxc.mount.entry"}},
	} {
		t.Run(name, func(t *testing.T) {
			n.Output(t, "sh", "-ec", "mkdir -p /var/lib/dev; mount -t tmpfs -o mode=755 dev /var/lib/dev; cd /var/lib/dev; "+
				"for d in null:3 zero:5 random:8 urandom:9; do mknod -m 666 ${d%:*} c 1 ${d#*:}; done; "+log.make+"; cd /; mount --bind /var/lib/dev /dev")
			defer n.Output(t, "umount", "-l", "/dev", "/var/lib/dev") // umount itself has /dev/null open
			attempt{want: append(log.want, "/dev/kmsg", "the kubelet does not start without it")}.check(t, n)
		})
	}
	for name, file := range map[string]struct {
		path, text string
		want       []string
	}{
		"registries":           {"/etc/lite/registries.yaml", "mirrors:\n  configs:\n    a.test: {}\n", []string{"/etc/lite/registries.yaml:2", "configs", "beginning of its line"}},
		"drop-in of Docker's":  {cluster.DataDir + "/agent/containerd/config.toml.d/docker.toml", "disabled_plugins = [\"cri\"]\n", []string{"docker.toml", "disabled_plugins", "remove it"}},
		"registries, a loop":   {"/etc/lite/registries.yaml", "mirrors: &m\n  <<: *m\n", []string{"/etc/lite/registries.yaml:2", "leads to itself", "replace the alias"}},
		"drop-in of a mixture": {cluster.DataDir + "/agent/containerd/config.toml.d/mixed.toml", "version = 3\n[plugins.cri.containerd.runtimes.kata]\nruntime_type = 'io.containerd.kata.v2'\n", []string{"mixed.toml", "plugins.cri", "version = 1"}},
		"drop-in too new":      {cluster.DataDir + "/agent/containerd/config.toml.d/new.toml", "version = 9\n", []string{"new.toml", "version = 9"}},
	} {
		t.Run(name, func(t *testing.T) {
			n.WriteFile(t, file.path, file.text)
			defer os.Remove(n.Path(file.path))
			attempt{want: file.want}.check(t, n)
		})
	}
	// containerd would wait for somebody to write, and so would the start.
	t.Run("pipe among devices", func(t *testing.T) {
		n.Output(t, "sh", "-c", "mkdir -p /etc/cdi && mkfifo /etc/cdi/gpu.yaml")
		defer n.Output(t, "rm", "-r", "/etc/cdi")
		attempt{want: []string{"/etc/cdi/gpu.yaml", "is a named pipe", "remove it"}}.check(t, n)
	})
	t.Run("missing kernel feature", func(t *testing.T) {
		const memory = "/sys/fs/cgroup/memory"
		if _, err := os.Stat(n.Path(memory)); err != nil {
			t.Skip("only version 1 of cgroups lets one controller be missing")
		}
		n.Output(t, "umount", memory)
		defer n.Output(t, "mount", "-t", "cgroup", "-o", "memory", "cgroup", memory)
		attempt{want: []string{"memory", "cgroup"}}.check(t, n)
	})
	t.Run("newer data directory", func(t *testing.T) {
		n.WriteFile(t, cluster.DataDir+"/version", "v99.0.0\n")
		defer os.Remove(n.Path(cluster.DataDir + "/version"))
		attempt{want: []string{"v99.0.0", cluster.DataDir}}.check(t, n)
	})
}

// TestLaterStart has what keeps a node that ran before from starting again. Put right,
// it starts, and has what was in its cluster.
func TestLaterStart(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	n.Start(t)
	n.Kubectl(t, "create", "configmap", "precious")
	n.Stop(t)
	t.Run("ChangedRanges", func(t *testing.T) { testChangedRanges(t, n) })
	t.Run("CorruptedLog", func(t *testing.T) { testCorruptedLog(t, n) })
}

// testCorruptedLog damages etcd's write-ahead log and takes it away: lite refuses to
// start rather than to begin anew, and with the log back everything is there.
func testCorruptedLog(t *testing.T, n *cluster.Node) {
	logs, err := filepath.Glob(n.Path(cluster.DataDir + "/server/*/member/wal/*.wal"))
	if err != nil || len(logs) == 0 {
		more, _ := filepath.Glob(n.Path(cluster.DataDir + "/server/*/*/member/wal/*.wal"))
		if logs = more; len(logs) == 0 {
			t.Fatalf("no write-ahead log found below %s/server", cluster.DataDir)
		}
	}
	slices.Sort(logs)
	good, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	middle := len(bytes.TrimRight(bad, "\x00")) / 2 // the rest is allocated, not written
	for i := range 64 {
		bad[middle+i] ^= 0xff
	}
	if err := os.WriteFile(logs[0], bad, 0o600); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join("/", strings.TrimPrefix(filepath.Dir(filepath.Dir(filepath.Dir(logs[0]))), n.Path("/")))
	attempt{
		args:  []string{"--log-level=error"}, // the start gets some way and tells of it
		below: below,
		want:  []string{"etcd", cluster.DataDir},
	}.check(t, n)

	if err := os.WriteFile(logs[0], good, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, gone := range map[string]struct {
		paths []string
		want  []string
	}{
		"log":                  {[]string{"etcd/member/wal"}, []string{"etcd", "/member/wal is damaged: it is missing", "nothing was changed", "restore a snapshot"}},
		"log, authority's key": {[]string{"etcd/member/wal", "pki/ca.key"}, []string{"pki/ca.key is gone", "restore"}},
		"log, encryption keys": {[]string{"etcd/member/wal", "encryption.yaml"}, []string{"the encryption key", "encryption.yaml", "is gone"}},
		"segments":             {[]string{"etcd/member/wal/" + filepath.Base(logs[0])}, []string{"etcd", "/member/wal is damaged", "nothing was changed"}},
	} {
		t.Run("without "+name, func(t *testing.T) {
			for _, path := range gone.paths {
				at := n.Path(cluster.DataDir + "/server/" + path)
				away := n.Path(cluster.DataDir) + "-" + filepath.Base(path)
				if err := os.Rename(at, away); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := os.Rename(away, at); err != nil {
						t.Error(err)
					}
				}()
			}
			attempt{args: []string{"--log-level=error"}, below: below, want: gone.want}.check(t, n)
		})
	}
	// etcd would end the process, where a file is mapped that is shorter than it says.
	database := filepath.Join(n.Path(below), "member", "snap", "db")
	whole, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(database, whole[:64<<10], 0o600); err != nil {
		t.Fatal(err)
	}
	attempt{args: []string{"--log-level=error"}, below: below, want: []string{"etcd", "/member/snap/db is damaged", "not readable to its end", "nothing was changed", "restore a snapshot"}}.check(t, n)
	if err := os.WriteFile(database, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	n.Start(t)
	n.Kubectl(t, "get", "configmap", "precious")
	n.Stop(t)
}
