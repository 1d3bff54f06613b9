package config

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/host/probe"
)

// loadAs is Load on a machine with the given files.
func loadAs(t *testing.T, role Role, args, env []string, h host) (*Config, error) {
	t.Helper()
	flags := Flags(role)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return load(role, flags, env, h)
}

// value is what Print shows for a key, with its source.
func value(t *testing.T, c *Config, key string) string {
	t.Helper()
	o, ok := lookup(key)
	if !ok {
		t.Fatalf("no option %s", key)
	}
	text, err := o.yaml(c)
	if err != nil {
		t.Fatal(err)
	}
	return text + " # " + c.sources[key]
}

func TestLoadReal(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte("node-name: a\nnode-ip: 192.0.2.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := Flags(Server)
	if err := flags.Parse([]string{"-c", file, "--data-dir", dir + "/data/"}); err != nil {
		t.Fatal(err)
	}
	c, err := Load(Server, flags, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != dir+"/data" || c.NodeName != "a" || c.ConfigFile != file {
		t.Errorf("got %+v", c)
	}
	if _, err := os.Stat(c.DataDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load made the data directory: %v", err)
	}
}

func TestDefaults(t *testing.T) {
	c, err := loadAs(t, Server, nil, nil, fakeHost(nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.WriteKubeconfigMode != 0o600 || c.LogLevel != slog.LevelInfo || c.HTTPSListenPort != 6443 ||
		c.BindAddress != netip.IPv4Unspecified() || c.AdvertiseAddress != netip.MustParseAddr("192.0.2.10") ||
		c.cluster.ClusterDNS != netip.MustParseAddr("10.43.0.10") || c.cluster.Disable != nil || c.ContainerRuntimeEndpoint != "" {
		t.Errorf("got %+v", c)
	}
	a, err := loadAs(t, Agent, nil, nil, fakeHost(nil))
	if err != nil {
		t.Fatal(err)
	}
	if a.cluster.Known() || a.cluster.ClusterDNS.IsValid() || a.HTTPSListenPort != 0 || a.WriteKubeconfig != "" || a.NodeName != "node-a" {
		t.Errorf("got %+v", a)
	}
}

func TestPrecedence(t *testing.T) {
	const main, first, second = "/etc/lite/config.yaml", "/etc/lite/config.yaml.d/10-a.yaml", "/etc/lite/config.yaml.d/20-b.yaml"
	for name, test := range map[string]struct {
		role  Role
		args  []string
		env   []string
		files map[string]string
		want  map[string]string // key -> value and source
	}{
		"default": {want: map[string]string{
			"cluster-domain": "cluster.local # default",
			"disable":        "[] # default",
			"node-name":      "node-a # default, the host name",
			"cluster-dns":    "10.43.0.10 # default, the 10th address of service-cidr",
			"data-dir":       "/var/lib/lite # default",
			"audit-log-path": "/var/log/lite/audit.log # default",
			"profile":        `"" # default`,
		}},
		"no audit log": {
			args: []string{"--audit-log-path="},
			want: map[string]string{"audit-log-path": `"" # flag --audit-log-path`},
		},
		"no audit log, by a word": {
			env:  []string{"LITE_AUDIT_LOG_PATH=none"},
			want: map[string]string{"audit-log-path": `"" # environment LITE_AUDIT_LOG_PATH`},
		},
		"a profile": {
			role: Agent,
			args: []string{"--profile=cis"},
			want: map[string]string{"profile": "cis # flag --profile"},
		},
		"config.yaml over default": {
			files: map[string]string{main: "# ours\ncluster-domain: file.test\n"},
			want:  map[string]string{"cluster-domain": "file.test # " + main + ":2"},
		},
		"drop-in over config.yaml": {
			files: map[string]string{main: "cluster-domain: file.test", first: "cluster-domain: a.test", "/etc/lite/config.yaml.d/30-c.yml": "cluster-domain: no", "/etc/lite/config.yaml.d/.x.yaml": "cluster-domain: no"},
			want:  map[string]string{"cluster-domain": "a.test # " + first + ":1"},
		},
		"nodes of a token": {
			files: map[string]string{main: "token-nodes-per-hour: 0"},
			want:  map[string]string{"token-nodes-per-hour": "0 # " + main + ":1"},
		},
		"later drop-in over earlier": {
			files: map[string]string{first: "cluster-domain: a.test", second: "cluster-domain: b.test"},
			want:  map[string]string{"cluster-domain": "b.test # " + second + ":1"},
		},
		"environment over drop-in": {
			env:   []string{"LITE_CLUSTER_DOMAIN=env.test", "LITE_LOG_FORMAT=", "LITE_UNKNOWN=x"},
			files: map[string]string{first: "cluster-domain: a.test"},
			want:  map[string]string{"cluster-domain": "env.test # environment LITE_CLUSTER_DOMAIN", "log-format": "text # default"},
		},
		"flag over environment": {
			args:  []string{"--cluster-domain=one.test", "--cluster-domain=flag.test"},
			env:   []string{"LITE_CLUSTER_DOMAIN=env.test"},
			files: map[string]string{main: "cluster-domain: file.test"},
			want:  map[string]string{"cluster-domain": "flag.test # flag --cluster-domain"},
		},
		"a list replaces": {
			files: map[string]string{main: "disable: [dns, metrics]", first: "disable: storage"},
			want:  map[string]string{"disable": "[storage] # " + first + ":1"},
		},
		"a list with + appends": {
			files: map[string]string{main: "disable: [dns]", first: "disable+:\n- metrics\n", second: "disable+: storage"},
			want:  map[string]string{"disable": "[dns, metrics, storage] # " + main + ":1, " + first + ":2, " + second + ":1"},
		},
		"+ with nothing before": {
			files: map[string]string{main: "disable+: dns"},
			want:  map[string]string{"disable": "[dns] # " + main + ":1"},
		},
		"a flag replaces a list, also by nothing": {
			args:  []string{"--tls-san=a.test, b.test", "--tls-san", "c.test", "--disable="},
			files: map[string]string{main: "tls-san: x.test\ndisable: dns"},
			want:  map[string]string{"tls-san": "[a.test, b.test, c.test] # flag --tls-san", "disable": "[] # flag --disable"},
		},
		"names of k3s's": {
			args: []string{"--disable=coredns,metrics,local-storage", "--disable", "servicelb"},
			want: map[string]string{"disable": "[dns, metrics, storage, loadbalancer] # flag --disable"},
		},
		"names of k3s's in files": {
			files: map[string]string{main: "disable: [metrics-server]", first: "disable+: coredns"},
			want:  map[string]string{"disable": "[metrics, dns] # " + main + ":1, " + first + ":1"},
		},
		"arguments keep commas and dashes go": {
			role: Agent,
			args: []string{"--kubelet-arg=--feature-gates=A=true,B=false", "--kubelet-arg=v=2"},
			env:  []string{"LITE_KUBE_PROXY_ARG=proxy-mode=nftables\nfeature-gates=A=true,B=true\n"},
			want: map[string]string{
				"kubelet-arg":    `["feature-gates=A=true,B=false", v=2] # flag --kubelet-arg`,
				"kube-proxy-arg": `[proxy-mode=nftables, "feature-gates=A=true,B=true"] # environment LITE_KUBE_PROXY_ARG`,
			},
		},
		"scalars are taken as written": {
			files: map[string]string{main: "https-listen-port: '8443'\nwrite-kubeconfig-mode: 0640\nnode-name: 1\nnode-label: [a=true]\n"},
			want: map[string]string{
				"https-listen-port": "8443 # " + main + ":1", "write-kubeconfig-mode": `"0640" # ` + main + ":2",
				"node-name": `"1" # ` + main + ":3", "node-label": "[a=true] # " + main + ":4",
			},
		},
		"an alias": {
			files: map[string]string{main: "write-kubeconfig: &x /a/b\naudit-log-path: *x\n"},
			want:  map[string]string{"audit-log-path": "/a/b # " + main + ":1"},
		},
		"the file by environment": {
			env:   []string{"LITE_CONFIG=/etc/other.yaml"},
			files: map[string]string{"/etc/other.yaml": "cluster-domain: o.test", main: "cluster-domain: file.test", "/etc/other.yaml.d/x.yaml": "log-level: debug"},
			want: map[string]string{"cluster-domain": "o.test # /etc/other.yaml:1", "log-level": "debug # /etc/other.yaml.d/x.yaml:1",
				"config": "/etc/other.yaml # environment LITE_CONFIG"},
		},
		"the file by flag": {
			args:  []string{"-c", "/etc/flag.yaml"},
			env:   []string{"LITE_CONFIG=/etc/other.yaml"},
			files: map[string]string{"/etc/flag.yaml": "---\n# nothing\n"},
			want:  map[string]string{"cluster-domain": "cluster.local # default", "config": "/etc/flag.yaml # flag --config"},
		},
		"drop-ins without a file": {
			files: map[string]string{first: "data-dir: /data//lite/", "/data/lite/node-name": "old-name\n"},
			want: map[string]string{"data-dir": "/data/lite # " + first + ":1",
				"node-name": "old-name # default, remembered in /data/lite/node-name"},
		},
		"a name that is set wins over one remembered": {
			args:  []string{"--node-name=new"},
			files: map[string]string{"/var/lib/lite/node-name": "old"},
			want:  map[string]string{"node-name": "new # flag --node-name"},
		},
		"endpoint": {
			args: []string{"--container-runtime-endpoint=/run//crio.sock"},
			want: map[string]string{"container-runtime-endpoint": "unix:///run/crio.sock # flag --container-runtime-endpoint"},
		},
		"dual stack": {
			args: []string{"--cluster-cidr=10.0.0.0/8,fd00:42::/48", "--service-cidr=172.16.0.0/12,fd00:43::/108",
				"--cluster-dns=fd00:43::a"},
			want: map[string]string{
				"node-ip":           "[192.0.2.10, '2001:db8::10'] # default, the address of eth0, eth1",
				"advertise-address": "192.0.2.10 # default, the first of node-ip",
				"cluster-dns":       "fd00:43::a # flag --cluster-dns",
			},
		},
		"IPv6 only": {
			args: []string{"--cluster-cidr=fd00:42::/56", "--service-cidr=fd00:43::/112", "--flannel-backend=none"},
			want: map[string]string{
				"node-ip":     "['2001:db8::10'] # default, the address of eth1",
				"cluster-dns": "fd00:43::a # default, the 10th address of service-cidr",
			},
		},
		"ports that nobody else has": {
			args: []string{"--https-listen-port=32000", "--kube-apiserver-arg=service-node-port-range=20000-21000"},
			want: map[string]string{"https-listen-port": "32000 # flag --https-listen-port"},
		},
		"node ports beside all others": {
			args: []string{"--kube-apiserver-arg=service-node-port-range=10352-32767"},
			want: map[string]string{"https-listen-port": "6443 # default"},
		},
		"parts that have changed places": {
			args: []string{"--kube-scheduler-arg=secure-port=10257", "--kube-controller-manager-arg=secure-port=10259", "--kubelet-arg=healthz-port=10248"},
			want: map[string]string{"https-listen-port": "6443 # default"},
		},
		"ranges of pods that another network has": {
			args: []string{"--kube-controller-manager-arg=allocate-node-cidrs=false", "--kube-controller-manager-arg=controllers=-nodeipam", "--disable=cni"},
			want: map[string]string{"https-listen-port": "6443 # default"},
		},
		"labels, taints and names that are right": {
			args: []string{"--node-label=example.com/a=b,node.kubernetes.io/x=y,topology.kubernetes.io/zone=z,plain=",
				"--node-taint=a=b:NoSchedule,a=b:NoExecute,c:PreferNoSchedule", "--tls-san=*.a.test,192.0.2.7,2001:db8::1"},
			want: map[string]string{
				"node-taint": `["a=b:NoSchedule", "a=b:NoExecute", "c:PreferNoSchedule"] # flag --node-taint`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			role := test.role
			if role == "" {
				role = Server
			}
			c, err := loadAs(t, role, test.args, test.env, fakeHost(test.files))
			if err != nil {
				t.Fatal(err)
			}
			for key, want := range test.want {
				if got := value(t, c, key); strings.ReplaceAll(got, "'", `"`) != strings.ReplaceAll(want, "'", `"`) {
					t.Errorf("%s: got %s, want %s", key, got, want)
				}
			}
		})
	}
}

func TestNodeIP(t *testing.T) {
	down := probe.Interface{Name: "eth9", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.99/24")}}
	for name, test := range map[string]struct {
		ifaces []probe.Interface
		routes []probe.Route
		want   string // address, or part of the error
	}{
		"default route":             {[]probe.Interface{nic("aaa0", "198.51.100.1/24"), nic("eth0", "192.0.2.10/24", "192.0.2.11/24")}, defaultRoutes(), "192.0.2.10"},
		"default route, no address": {[]probe.Interface{nic("eth0"), nic("eth5", "198.51.100.1/24")}, defaultRoutes(), "198.51.100.1"},
		"no default route":          {[]probe.Interface{nic("lo", "127.0.0.1/8", "10.1.1.1/32"), nic("cni0", "10.42.0.1/24"), down, nic("eth0", "169.254.1.1/16", "192.0.2.10/24")}, nil, "192.0.2.10"},
		"IPv6 only host":            {[]probe.Interface{nic("eth0", "2001:db8::10/64")}, nil, "2001:db8::10"},
		"no network":                {[]probe.Interface{nic("lo", "127.0.0.1/8"), down}, nil, "192.0.2.1"},
	} {
		t.Run(name, func(t *testing.T) {
			h := fakeHost(nil)
			h.networks = networks(test.ifaces, test.routes...)
			c, err := loadAs(t, Agent, nil, nil, h)
			switch {
			case err != nil && !strings.Contains(err.Error(), test.want):
				t.Errorf("got error %v, want %s", err, test.want)
			case err == nil && (len(c.NodeIP) != 1 || c.NodeIP[0].String() != test.want):
				t.Errorf("got %v, want %s", c.NodeIP, test.want)
			}
		})
	}
}

func TestHostFailures(t *testing.T) {
	h := fakeHost(nil)
	h.hostname = func() (string, error) { return "", errors.New("no name") }
	h.networks = noNetworks
	_, err := loadAs(t, Agent, nil, nil, h)
	want := "node-name \"\" (default, the host name): no name; set node-name\n" +
		"node-ip \"\" (default): no interfaces; set node-ip"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	h = fakeHost(nil)
	h.hostname = func() (string, error) { return "my_host", nil }
	if _, err := loadAs(t, Agent, nil, nil, h); err == nil || !strings.HasPrefix(err.Error(), `node-name "my_host" (default, the host name): is not valid: `) {
		t.Errorf("got %v", err)
	}
}

// Who may not read the data directory learns all the rest.
func TestNodeNameThatOnlyRootMaySee(t *testing.T) {
	h := fakeHost(nil)
	h.readRegular = func(file string) ([]byte, error) {
		if file == "/var/lib/lite/node-name" {
			return nil, fs.ErrPermission
		}
		return nil, fs.ErrNotExist
	}
	c, err := loadAs(t, Server, nil, nil, h)
	if err != nil {
		t.Fatal(err)
	}
	want := "node-a # default, the host name; only root can see whether /var/lib/lite/node-name has another"
	if got := value(t, c, "node-name"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Reading a FIFO would wait forever, and a device may have no end.
func TestOnlyFilesAreRead(t *testing.T) {
	const main, dropIn = "/etc/lite/config.yaml", "/etc/lite/config.yaml.d/10.yaml"
	for name, test := range map[string]struct {
		file string // with the mark of fakeHost
		args []string
		want string
	}{
		"a FIFO":             {main + "|", nil, `config "` + main + `" (default): is not a regular file; replace it with a file`},
		"a FIFO that is set": {"/x.yaml|", []string{"-c", "/x.yaml"}, `config "/x.yaml" (flag --config): is not a regular file; replace it with a file`},
		"a directory":        {main + "/", nil, `config "` + main + `" (default): is not a regular file; `},
		"a socket":           {main + "@", nil, `config "` + main + `" (default): is not a regular file; `},
		"a drop-in":          {dropIn + "|", nil, `config "` + dropIn + `" (default): is not a regular file; `},
		"node-name":          {"/var/lib/lite/node-name|", nil, `node-name "" (default, remembered in /var/lib/lite/node-name): is not a regular file; set node-name`},
	} {
		t.Run(name, func(t *testing.T) {
			h := fakeHost(map[string]string{test.file: ""})
			_, err := loadAs(t, Server, test.args, nil, h)
			checkLines(t, err, []string{test.want})
		})
	}
}

func TestErrors(t *testing.T) {
	const main = "/etc/lite/config.yaml"
	for name, test := range map[string]struct {
		role Role
		args []string
		env  []string
		yaml string
		want []string // the start of each line
	}{
		"missing file":            {args: []string{"-c", "/none.yaml"}, want: []string{`config "/none.yaml" (flag --config): does not exist; specify a file that can be read`}},
		"empty file name":         {args: []string{"-c", ""}, want: []string{`config "" (flag --config): is empty; `}},
		"unknown key":             {yaml: "\ndata-dri: /x", want: []string{`data-dri "/x" (` + main + `:2): is not a known option; did you mean data-dir?`}},
		"unknown key with +":      {yaml: "disabled+: [dns]", want: []string{`disabled+ "" (` + main + `:1): is not a known option; did you mean disable?`}},
		"no key of an agent":      {role: Agent, yaml: "nodeip: 192.0.2.1", want: []string{`nodeip "192.0.2.1" (` + main + `:1): is not a known option; did you mean node-ip?`}},
		"config in file":          {yaml: "config: x", want: []string{`config "x" (` + main + `:1): cannot be set in a file; use --config or LITE_CONFIG`}},
		"duplicate key":           {yaml: "disable: dns\ndisable: cni", want: []string{`disable "cni" (` + main + `:2): is set twice (first on line 1); keep one of the two`}},
		"replaced and appended":   {yaml: "disable: dns\ndisable+: cni", want: []string{`disable+ "cni" (` + main + `:2): is set twice (first on line 1); `}},
		"appended scalar":         {yaml: "data-dir+: /x", want: []string{`data-dir+ "/x" (` + main + `:1): is not a list, so nothing can be appended; remove the +`}},
		"list for scalar":         {yaml: "data-dir: [/x]", want: []string{`data-dir "" (` + main + `:1): takes a single value, not a list; `}},
		"map for scalar":          {yaml: "data-dir: {a: b}", want: []string{`data-dir "" (` + main + `:1): is a map or a list where text is expected; `}},
		"map for list":            {yaml: "disable: {a: b}", want: []string{`disable "" (` + main + `:1): is a map or a list where text is expected; `}},
		"list in list":            {yaml: "disable:\n- [dns]", want: []string{`disable "" (` + main + `:2): is a map or a list where text is expected; `}},
		"no value":                {yaml: "data-dir:\n", want: []string{`data-dir "" (` + main + `:1): has no value; give it one, or remove the key`}},
		"key that is not text":    {yaml: "? [a]\n: b", want: []string{`config "" (` + main + `:1): has a key that is not text; `}},
		"not a map":               {yaml: "- a", want: []string{`config "/etc/lite/config.yaml" (` + main + `:1): is not a map; `}},
		"not YAML":                {yaml: "a: b: c", want: []string{`config "/etc/lite/config.yaml" (` + main + `): yaml: `}},
		"two documents":           {yaml: "data-dir: /a\n---\ndata-dir: /b", want: []string{`config "/etc/lite/config.yaml" (` + main + `): line 2: a second YAML document begins; correct the YAML`}},
		"not YAML, second":        {yaml: "data-dir: /a\n---\na: b: c", want: []string{`config "/etc/lite/config.yaml" (` + main + `): yaml: `}},
		"server key of an agent":  {role: Agent, yaml: "https-listen-port: 7443", want: []string{`https-listen-port "7443" (` + main + `:1): is for servers only, and this node is an agent; set it where only servers read it`}},
		"server name of an agent": {role: Agent, env: []string{"LITE_TLS_SAN=a.test"}, want: []string{`tls-san "a.test" (environment LITE_TLS_SAN): is for servers only, and this node is an agent; `}},
		"server by http":          {role: Agent, args: []string{"--server=http://192.0.2.1"}, want: []string{`server "http://192.0.2.1" (flag --server): is not an https URL; write it like https://192.0.2.1:6443`}},
		"server with a path":      {role: Agent, args: []string{"--server=https://192.0.2.1:6443/api"}, want: []string{`server "https://192.0.2.1:6443/api" (flag --server): must be host:port; write it like https://192.0.2.1:6443`}},
		"server with a query":     {role: Agent, args: []string{"--server=https://192.0.2.1?a=b"}, want: []string{`server "https://192.0.2.1?a=b" (flag --server): must be host:port; `}},
		"server with a password":  {role: Agent, args: []string{"--server=https://me:hush/a@b@192.0.2.1"}, want: []string{`server "https://xxxxx@192.0.2.1" (flag --server): `}},
		"the same, no scheme":     {role: Agent, args: []string{"--server=me:hush@192.0.2.1"}, want: []string{`server "xxxxx@192.0.2.1" (flag --server): must be host:port; `}},
		"server at port 0":        {role: Agent, args: []string{"--server=https://192.0.2.1:0"}, want: []string{`server "https://192.0.2.1:0" (flag --server): has an invalid port; `}},
		"token and its file":      {args: []string{"--token=abcdefgh", "--token-file=/f"}, want: []string{`token-file "/f" (flag --token-file): cannot be combined with token; set only one of them`}},
		"many at once": {
			args: []string{"--log-level=loud", "--tls-san=a_b,c_d"}, env: []string{"LITE_NODE_IP=x"}, yaml: "wrong: 1\nhttps-listen-port: many",
			want: []string{
				`wrong "1" (` + main + `:1): is not a known option; `,
				`log-level "loud" (flag --log-level): is not supported; use one of debug, info, warn, error`,
				`node-ip "x" (environment LITE_NODE_IP): is not an IP address; `,
				`https-listen-port "many" (` + main + `:2): is not a port; use a number from 1 to 65535`,
				`tls-san "a_b" (flag --tls-san): is neither a DNS name nor an IP address; `,
				`tls-san "c_d" (flag --tls-san): is neither a DNS name nor an IP address; `,
			}},
		"nodes, negative":       {args: []string{"--token-nodes-per-hour=-1"}, want: []string{`token-nodes-per-hour "-1" (flag --token-nodes-per-hour): is not a count; `}},
		"nodes, a fraction":     {args: []string{"--token-nodes-per-hour=1.5"}, want: []string{`token-nodes-per-hour "1.5" (flag --token-nodes-per-hour): is not a count; `}},
		"nodes, a word":         {args: []string{"--token-nodes-per-hour=many"}, want: []string{`token-nodes-per-hour "many" (flag --token-nodes-per-hour): is not a count; `}},
		"relative data-dir":     {args: []string{"--data-dir=data"}, want: []string{`data-dir "data" (flag --data-dir): is not an absolute path; `}},
		"relative storage":      {args: []string{"--default-local-storage-path=data"}, want: []string{`default-local-storage-path "data" (flag --default-local-storage-path): is not an absolute path; `}},
		"root storage":          {args: []string{"--default-local-storage-path=/x/.."}, want: []string{`default-local-storage-path "/x/.." (flag --default-local-storage-path): is the root directory; `}},
		"root data-dir":         {args: []string{"--data-dir=/x/.."}, want: []string{`data-dir "/x/.." (flag --data-dir): is the root directory; `}},
		"data-dir of an option": {args: []string{"--data-dir=/a:b"}, want: []string{`data-dir "/a:b" (flag --data-dir): contains a character that mount options do not allow; `}},
		"log that is no path":   {args: []string{"--audit-log-path=off"}, want: []string{`audit-log-path "off" (flag --audit-log-path): is not an absolute path; `}},
		"unknown profile":       {args: []string{"--profile=CIS"}, want: []string{`profile "CIS" (flag --profile): is not supported; use one of cis`}},
		"path of two lines":     {args: []string{"--audit-log-path=/a\nb"}, want: []string{`audit-log-path "/a\nb" (flag --audit-log-path): contains control characters; `}},
		"log-format":            {args: []string{"--log-format=xml"}, want: []string{`log-format "xml" (flag --log-format): is not supported; use one of text, json`}},
		"node-name":             {args: []string{"--node-name=Node_1"}, want: []string{`node-name "Node_1" (flag --node-name): is not valid: a lowercase RFC 1123 subdomain`}},
		"long node-name":        {args: []string{"--node-name=" + strings.Repeat("a", 64)}, want: []string{`node-name "` + strings.Repeat("a", 64) + `" (flag --node-name): is longer than 63 characters; `}},
		"loopback node-ip":      {args: []string{"--node-ip=127.0.0.1"}, want: []string{`node-ip "127.0.0.1" (flag --node-ip): is unspecified, loopback, link-local or multicast; `}},
		"node-ip with zone":     {args: []string{"--node-ip=fe80::1%eth0"}, want: []string{`node-ip "fe80::1%eth0" (flag --node-ip): has a zone; remove %eth0`}},
		"mapped node-ip":        {args: []string{"--node-ip=::ffff:192.0.2.1"}, want: []string{`node-ip "::ffff:192.0.2.1" (flag --node-ip): is an IPv4 address in IPv6 form; write 192.0.2.1`}},
		"two node-ips":          {args: []string{"--node-ip=192.0.2.1,192.0.2.2"}, want: []string{`node-ip "192.0.2.1,192.0.2.2" (flag --node-ip): has more than one value of an IP family; `}},
		"no node-ip":            {yaml: "node-ip: []", want: []string{`node-ip "" (` + main + `:1): is an empty list; `}},
		"advertise any":         {args: []string{"--advertise-address=0.0.0.0"}, want: []string{`advertise-address "0.0.0.0" (flag --advertise-address): is unspecified, `}},
		"advertise family":      {args: []string{"--advertise-address=2001:db8::1"}, want: []string{`advertise-address "2001:db8::1" (flag --advertise-address): does not belong to the first IP family of service-cidr; use an IPv4 address, `}},
		"port 0":                {args: []string{"--https-listen-port=0"}, want: []string{`https-listen-port "0" (flag --https-listen-port): is not a port; `}},
		"the kubelet's port":    {args: []string{"--https-listen-port=10250"}, want: []string{`https-listen-port "10250" (flag --https-listen-port): is a port that the kubelet listens on; use another port, like 6443`}},
		"a port of etcd":        {yaml: "https-listen-port: 2380", want: []string{`https-listen-port "2380" (` + main + `:1): is a port that etcd listens on; `}},
		"a node port":           {args: []string{"--https-listen-port=30000"}, want: []string{`https-listen-port "30000" (flag --https-listen-port): is in the range 30000-32767, from which Services get their node ports; `}},
		"the last node port":    {args: []string{"--https-listen-port=32767"}, want: []string{`https-listen-port "32767" (flag --https-listen-port): is in the range 30000-32767, `}},
		"a node port of theirs": {args: []string{"--https-listen-port=8443", "--kube-apiserver-arg=service-node-port-range=8000-9000"}, want: []string{`https-listen-port "8443" (flag --https-listen-port): is in the range 8000-9000, from which Services get their node ports; use another port, like 6443`,
			`kube-apiserver-arg "service-node-port-range=8000-9000" (flag --kube-apiserver-arg): gives Services ports that nodes listen on: 8472 (the pod network); use a range without them, like 8473-9000`}},
		"node ports below 1024":        {args: []string{"--kube-apiserver-arg=service-node-port-range=80-32767"}, want: []string{`kube-apiserver-arg "service-node-port-range=80-32767" (flag --kube-apiserver-arg): gives Services ports that nodes listen on: 2379 (etcd), 2380 (etcd), 6443 (the API server), 6444 (the load balancer to the API), 8472 (the pod network), 9153 (DNS), 10053 (DNS), 10248 (the kubelet), 10249 (kube-proxy), 10250 (the kubelet), 10256 (kube-proxy), 10257 (the controller manager), 10259 (the scheduler), 10349 (the metrics API), 10350 (containerd), 10351 (containerd); use a range without them, like 10352-32767`}},
		"one node port, the kubelet's": {args: []string{"--kube-apiserver-arg=service_node_port_range=10250-10250"}, want: []string{`kube-apiserver-arg "service_node_port_range=10250-10250" (flag --kube-apiserver-arg): gives Services ports that nodes listen on: 10250 (the kubelet); use a range without them, like 30000-32767`}},
		"a port that was moved": {args: []string{"--kubelet-arg=port=31000", "--kube-proxy-arg=metrics-bind-address=0.0.0.0:20000", "--kube-apiserver-arg=service-node-port-range=20000-32767", "--https-listen-port=31001"}, want: []string{
			`https-listen-port "31001" (flag --https-listen-port): is in the range 20000-32767, `,
			`kube-apiserver-arg "service-node-port-range=20000-32767" (flag --kube-apiserver-arg): gives Services ports that nodes listen on: 20000 (kube-proxy), 31000 (the kubelet); use a range without them, like 20001-30999`}},
		"moved to the kubelet's":   {args: []string{"--kube-proxy-arg=healthz-bind-address=0.0.0.0:10250"}, want: []string{`kube-proxy-arg "healthz-bind-address=0.0.0.0:10250" (flag --kube-proxy-arg): is a port that the kubelet listens on; use another port`}},
		"moved to etcd's":          {args: []string{"--kube-scheduler-arg=secure-port=2379"}, want: []string{`kube-scheduler-arg "secure-port=2379" (flag --kube-scheduler-arg): is a port that etcd listens on; `}},
		"moved within the kubelet": {args: []string{"--kubelet-arg=healthz-port=10250"}, want: []string{`kubelet-arg "healthz-port=10250" (flag --kubelet-arg): is a port that the kubelet listens on; `}},
		"the API server on DNS's":  {args: []string{"--https-listen-port=9153"}, want: []string{`https-listen-port "9153" (flag --https-listen-port): is a port that DNS listens on; `}},

		"no ranges of pods":       {args: []string{"--kube-controller-manager-arg=allocate-node-cidrs=false"}, want: []string{`kube-controller-manager-arg "allocate-node-cidrs=false" (flag --kube-controller-manager-arg): no node would get a pod CIDR; remove it, or set disable: cni`}},
		"nobody who gives ranges": {args: []string{"--kube-controller-manager-arg=controllers=*,-node-ipam-controller", "--kube-controller-manager-arg=controllers=-cronjob"}, want: []string{`kube-controller-manager-arg "controllers=*,-node-ipam-controller" (flag --kube-controller-manager-arg): no node would`}},
		"the same by its alias":   {args: []string{"--kube-controller-manager-arg=controllers=-nodeipam"}, want: []string{`kube-controller-manager-arg "controllers=-nodeipam" (flag --kube-controller-manager-arg): no node would`}},

		"not a CIDR":              {args: []string{"--cluster-cidr=10.42.0.0"}, want: []string{`cluster-cidr "10.42.0.0" (flag --cluster-cidr): is not a CIDR; `}},
		"host bits":               {args: []string{"--cluster-cidr=10.42.1.0/16"}, want: []string{`cluster-cidr "10.42.1.0/16" (flag --cluster-cidr): has host bits set; write 10.42.0.0/16`}},
		"mapped CIDR":             {args: []string{"--cluster-cidr=::ffff:10.0.0.0/104"}, want: []string{`cluster-cidr "::ffff:10.0.0.0/104" (flag --cluster-cidr): is `}},
		"loopback CIDR":           {args: []string{"--cluster-cidr=127.0.0.0/16"}, want: []string{`cluster-cidr "127.0.0.0/16" (flag --cluster-cidr): is unspecified, loopback`}},
		"small cluster-cidr":      {args: []string{"--cluster-cidr=10.42.0.0/25"}, want: []string{`cluster-cidr "10.42.0.0/25" (flag --cluster-cidr): is too small for the /24 of one node; use a mask from /8 to /24`}},
		"large cluster-cidr":      {args: []string{"--cluster-cidr=fd00::/40"}, want: []string{`cluster-cidr "fd00::/40" (flag --cluster-cidr): contains more than 65536 ranges of /64; use a mask from /48 to /64`}},
		"large service-cidr":      {args: []string{"--service-cidr=10.0.0.0/8"}, want: []string{`service-cidr "10.0.0.0/8" (flag --service-cidr): is larger than the /12 that kube-apiserver allows; use a mask from /12 to /28`}},
		"large IPv6 service":      {args: []string{"--service-cidr=fd00::/64"}, want: []string{`service-cidr "fd00::/64" (flag --service-cidr): is larger than the /108 that kube-apiserver allows; `}},
		"small service-cidr":      {args: []string{"--service-cidr=10.43.0.0/29"}, want: []string{`service-cidr "10.43.0.0/29" (flag --service-cidr): has fewer than 16 addresses; `}},
		"service in pods":         {args: []string{"--service-cidr=10.42.128.0/20"}, want: []string{`service-cidr "10.42.128.0/20" (flag --service-cidr): overlaps cluster-cidr 10.42.0.0/16; `}},
		"node in pods":            {args: []string{"--node-ip=10.42.0.9"}, want: []string{`cluster-cidr "10.42.0.0/16" (default): contains node-ip 10.42.0.9; `}},
		"node in services":        {args: []string{"--node-ip=10.43.0.9"}, want: []string{`service-cidr "10.43.0.0/16" (default): contains node-ip 10.43.0.9; `}},
		"two of a family":         {args: []string{"--cluster-cidr=10.1.0.0/16,10.2.0.0/16"}, want: []string{`cluster-cidr "10.1.0.0/16,10.2.0.0/16" (flag --cluster-cidr): has more than one value of an IP family; `}},
		"families differ":         {args: []string{"--cluster-cidr=10.1.0.0/16,fd00::/56"}, want: []string{`service-cidr "10.43.0.0/16" (default): does not have the same IP families as cluster-cidr; give it IPv4, then IPv6`}},
		"overlay of IPv6 alone":   {args: []string{"--cluster-cidr=fd00:42::/56", "--service-cidr=fd00:43::/112"}, want: []string{`flannel-backend "vxlan" (default): carries packets between nodes over IPv4, but cluster-cidr has only IPv6; `}},
		"host-gw of two families": {args: []string{"--cluster-cidr=10.1.0.0/16,fd00:42::/56", "--service-cidr=10.2.0.0/16,fd00:43::/112", "--flannel-backend=host-gw"}, want: []string{`flannel-backend "host-gw" (flag --flannel-backend): carries only IPv4, but cluster-cidr has two IP families; use vxlan`}},
		"dns outside":             {args: []string{"--cluster-dns=10.96.0.10"}, want: []string{`cluster-dns "10.96.0.10" (flag --cluster-dns): is not in service-cidr; use an address like 10.43.0.10`}},
		"dns is kubernetes":       {args: []string{"--cluster-dns=10.43.0.1"}, want: []string{`cluster-dns "10.43.0.1" (flag --cluster-dns): is the address of the kubernetes service; `}},
		"vip of pods":             {args: []string{"--cluster-vip=10.42.0.9"}, want: []string{`cluster-vip "10.42.0.9" (flag --cluster-vip): is in cluster-cidr 10.42.0.0/16; `}},
		"vip of the node":         {args: []string{"--cluster-vip=192.0.2.10"}, want: []string{`cluster-vip "192.0.2.10" (flag --cluster-vip): is the address of this node (node-ip); `}},
		"vip that stays":          {args: []string{"--cluster-vip=192.0.2.99", "--advertise-address=192.0.2.99"}, want: []string{`advertise-address "192.0.2.99" (flag --advertise-address): is cluster-vip, which moves to another server; `}},
		"vip of nobody":           {args: []string{"--cluster-vip=127.0.0.1"}, want: []string{`cluster-vip "127.0.0.1" (flag --cluster-vip): is unspecified, loopback, link-local or multicast; `}},
		"vip of IPv6":             {args: []string{"--cluster-vip=fd00::99"}, want: []string{`bind-address "0.0.0.0" (default): keeps the API server from listening on cluster-vip; `}},
		"vip without listener":    {args: []string{"--cluster-vip=192.0.2.99", "--bind-address=192.0.2.10"}, want: []string{`bind-address "192.0.2.10" (flag --bind-address): keeps the API server from listening on cluster-vip; `}},
		"cluster-domain":          {args: []string{"--cluster-domain=a..b"}, want: []string{`cluster-domain "a..b" (flag --cluster-domain): is not valid: `}},
		"san with port":           {args: []string{"--tls-san=a.test:6443"}, want: []string{`tls-san "a.test:6443" (flag --tls-san): is neither a DNS name nor an IP address; `}},
		"mode":                    {args: []string{"--write-kubeconfig-mode=rw"}, want: []string{`write-kubeconfig-mode "rw" (flag --write-kubeconfig-mode): is not an octal file mode; `}},
		"writable by others":      {args: []string{"--write-kubeconfig-mode=0666"}, want: []string{`write-kubeconfig-mode "0666" (flag --write-kubeconfig-mode): lets users other than the owner write; use 0644`}},
		"disable":                 {args: []string{"--disable=dns,traefik"}, want: []string{`disable "traefik" (flag --disable): is not supported; use one of dns, metrics, storage, loadbalancer, networkpolicy, kube-proxy, cni`}},
		"disable, of k3s's":       {args: []string{"--disable=coredns", "--disable=runtimes"}, want: []string{`disable "runtimes" (flag --disable): is not supported; use one of dns, metrics, `}},
		"disable, a component":    {yaml: "disable: [network]", want: []string{`disable "network" (` + main + `:1): is not supported; use one of dns, metrics, `}},
		"endpoint":                {args: []string{"--container-runtime-endpoint=tcp://x"}, want: []string{`container-runtime-endpoint "tcp://x" (flag --container-runtime-endpoint): is not a socket; `}},
		"empty endpoint":          {args: []string{"--container-runtime-endpoint=unix://"}, want: []string{`container-runtime-endpoint "unix://" (flag --container-runtime-endpoint): is not a socket; `}},
		"policy without log":      {args: []string{"--audit-policy-file=/p.yaml", "--audit-log-path=none"}, want: []string{`audit-policy-file "/p.yaml" (flag --audit-policy-file): has no effect without an audit log; set audit-log-path`}},
		"argument without key":    {args: []string{"--etcd-arg=--=x"}, want: []string{`etcd-arg "--=x" (flag --etcd-arg): does not name an argument; write key=value`}},
		"argument without =":      {args: []string{"--kubelet-arg=--v"}, want: []string{`kubelet-arg "--v" (flag --kubelet-arg): has no value; write v=value`}},
		"label without =":         {args: []string{"--node-label=a"}, want: []string{`node-label "a" (flag --node-label): has no =; write key=value`}},
		"label value":             {args: []string{"--node-label=a=b c"}, want: []string{`node-label "a=b c" (flag --node-label): is not valid: `}},
		"label of lite's":         {args: []string{"--node-label=lite.io/lb=true"}, want: []string{`node-label "lite.io/lb=true" (flag --node-label): is a label that a node must not set on itself; set it with kubectl label node`}},
		"reserved label":          {args: []string{"--node-label=node-role.kubernetes.io/worker=true"}, want: []string{`node-label "node-role.kubernetes.io/worker=true" (flag --node-label): is a label that a node must not set on itself; set it with kubectl label node, or use a prefix like kubelet.kubernetes.io/ or node.kubernetes.io/`}},
		"taint effect":            {args: []string{"--node-taint=a=b:Never"}, want: []string{`node-taint "a=b:Never" (flag --node-taint): has the effect "Never"; `}},
		"taint without effect":    {args: []string{"--node-taint=a=b"}, want: []string{`node-taint "a=b" (flag --node-taint): has the effect ""; `}},
		"taint key":               {args: []string{"--node-taint==b:NoExecute"}, want: []string{`node-taint "=b:NoExecute" (flag --node-taint): is not valid: `}},
		"taint twice":             {args: []string{"--node-taint=a=b:NoExecute,a=c:NoExecute"}, want: []string{`node-taint "a=c:NoExecute" (flag --node-taint): repeats the key and effect of another taint; `}},
	} {
		t.Run(name, func(t *testing.T) {
			role := test.role
			if role == "" {
				role = Server
			}
			_, err := loadAs(t, role, test.args, test.env, fakeHost(map[string]string{main: test.yaml}))
			checkLines(t, err, test.want)
			if e := new(Error); !errors.As(err, &e) || e.Key == "" || e.Source == "" || e.Problem == "" || e.Remedy == "" {
				t.Errorf("got an error that is not complete: %#v", e)
			}
		})
	}
}

// checkLines wants one error for each start of a line.
func checkLines(t *testing.T, err error, want []string) {
	t.Helper()
	var got []string
	if err != nil {
		got = strings.Split(err.Error(), "\n")
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		args   []string
		files  map[string]string
		ifaces []probe.Interface
		host   func(*host)
		want   []string
	}{
		"all is well": {
			files: map[string]string{"/var/lib/": "", "/etc/lite/config.yaml": "log-level: info", "/run/crio.sock@": "", "/p.yaml": ""},
			args:  []string{"--container-runtime-endpoint=/run/crio.sock", "--audit-policy-file=/p.yaml", "--audit-log-path=/var/log/audit.log"},
		},
		"a file in the way": {
			files: map[string]string{"/var": "", "/etc/lite/kubeconfig.yaml/": ""},
			want: []string{`data-dir "/var/lib/lite" (default): cannot be used: `,
				`write-kubeconfig "/etc/lite/kubeconfig.yaml" (default): is a directory; specify a file`,
				`audit-log-path "/var/log/lite/audit.log" (default): cannot be used: /var is not a directory; `},
		},
		"the data directory is a file": {
			files: map[string]string{"/var/lib/lite/node-name": "n", "/data": ""}, args: []string{"--write-kubeconfig=/data/k"},
			want: []string{`write-kubeconfig "/data/k" (flag --write-kubeconfig): cannot be used: `},
		},
		"read only": {
			host: func(h *host) { h.writable = func(string) error { return fs.ErrPermission } },
			want: []string{`data-dir "/var/lib/lite" (default): cannot be used: write to /: permission denied; choose a writable path`,
				`write-kubeconfig "/etc/lite/kubeconfig.yaml" (default): cannot be used: `,
				`audit-log-path "/var/log/lite/audit.log" (default): cannot be used: `},
		},
		"files that are missing": {
			args: []string{"--private-registry=/r.yaml", "--container-runtime-endpoint=/run/x.sock", "--audit-log-path=/a", "--audit-policy-file=/p"},
			want: []string{`private-registry "/r.yaml" (flag --private-registry): does not exist; create it, or specify another`,
				`audit-policy-file "/p" (flag --audit-policy-file): does not exist; `,
				`container-runtime-endpoint "/run/x.sock" (flag --container-runtime-endpoint): does not exist; `},
		},
		"files of arguments": {
			files: map[string]string{"/dir/": "", "/a.yaml": ""},
			args: []string{"--kube-apiserver-arg=authentication-config=/no.yaml", "--kube-apiserver-arg=authorization_config=/dir", "--kubelet-arg=config=/no", "--kubelet-arg=config=/a.yaml",
				"--kube-proxy-arg=config=/none"},
			want: []string{`kube-apiserver-arg "authentication-config=/no.yaml" (flag --kube-apiserver-arg): the file does not exist; create it, or specify another`,
				`kube-apiserver-arg "authorization_config=/dir" (flag --kube-apiserver-arg): is not a file; specify a file`,
				`kube-proxy-arg "config=/none" (flag --kube-proxy-arg): the file does not exist; `},
		},
		"the kubelet's port, moved": {
			args: []string{"--kubelet-arg=port=10300"},
			host: func(h *host) {
				h.listen = func(addr string) error {
					if addr != ":10300" {
						return nil
					}
					return &net.AddrError{Err: "taken", Addr: addr}
				}
			},
			want: []string{`kubelet-arg "port=10300" (flag --kubelet-arg): address :10300: taken; stop the program that listens there (ss -ltnp sport = :10300 shows it)`},
		},
		"files that are others": {
			files: map[string]string{"/r.yaml/": "", "/p.yaml|": "", "/run/x.sock": ""},
			args:  []string{"--private-registry=/r.yaml", "--container-runtime-endpoint=/run/x.sock", "--audit-log-path=/a", "--audit-policy-file=/p.yaml"},
			want: []string{`private-registry "/r.yaml" (flag --private-registry): is not a file; specify a file`,
				`audit-policy-file "/p.yaml" (flag --audit-policy-file): is not a file; specify a file`,
				`container-runtime-endpoint "/run/x.sock" (flag --container-runtime-endpoint): is not a socket; specify a socket`},
		},
		"ports that are taken": {
			host: func(h *host) { h.listen = func(addr string) error { return &net.AddrError{Err: "taken", Addr: addr} } },
			want: []string{`https-listen-port "6443" (default): address 0.0.0.0:6443: taken; stop the program that listens there (ss -ltnp sport = :6443 shows it), or choose another port or bind-address`,
				`kubelet-arg "port=10250" (default): address :10250: taken; stop the program that listens there (ss -ltnp sport = :10250 shows it)`},
		},
		"networks that overlap": {
			ifaces: []probe.Interface{nic("tun0", "10.42.7.1/24"), nic("eth0", "192.0.2.10/24"), nic("eth1", "10.43.0.9/8")}, args: []string{"--node-ip=192.0.2.10"},
			want: []string{`cluster-cidr "10.42.0.0/16" (default): overlaps 10.42.7.0/24, which the host reaches through tun0; choose a range that the host does not use`,
				`service-cidr "10.43.0.0/16" (default): overlaps 10.0.0.0/8, which the host reaches through eth1; `},
		},
		"routes that overlap": {
			host: func(h *host) {
				half := via("tun0", "0.0.0.0/1", 0) // of all, as VPNs set it
				h.networks = networks(defaultInterfaces(), append(defaultRoutes(), half, via("tun0", "10.43.0.0/20", 0))...)
			},
			want: []string{`service-cidr "10.43.0.0/16" (default): overlaps 10.43.0.0/20, which the host reaches through tun0; `},
		},
		"networks of a cluster": {
			ifaces: []probe.Interface{nic("eth0", "192.0.2.10/24"), nic("cni0", "10.42.0.1/24"), nic("flannel.1", "10.42.0.0/32"),
				nic("lite-wg", "10.42.0.3/32"), nic("kube-ipvs0", "10.43.0.1/32"), nic("veth12", "10.42.0.4/32")},
		},
		"networks of another CNI": {
			ifaces: []probe.Interface{nic("eth0", "192.0.2.10/24"), nic("cali1", "10.42.0.1/24")}, args: []string{"--disable=cni"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := fakeHost(test.files)
			if test.ifaces != nil {
				h.networks = networks(test.ifaces, defaultRoutes()...)
			}
			if test.host != nil {
				test.host(&h)
			}
			c, err := loadAs(t, Server, append(test.args, "--node-name=n"), nil, h)
			if err != nil {
				t.Fatal(err)
			}
			checkLines(t, c.check(h), test.want)
		})
	}
}

func TestCheckWithoutNetworks(t *testing.T) {
	h := fakeHost(nil)
	c, err := loadAs(t, Server, nil, nil, h)
	if err != nil {
		t.Fatal(err)
	}
	h.networks = noNetworks
	checkLines(t, c.check(h), []string{`cluster-cidr "10.42.0.0/16" (default): cannot be compared with the host's networks: no interfaces; `})
	a, err := loadAs(t, Agent, nil, nil, fakeHost(nil))
	if err != nil {
		t.Fatal(err)
	}
	checkLines(t, a.check(h), nil)
}

// Whatever a file contains, reading it ends, each error is complete and has one line, and
// its settings can all be parsed.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"", "data-dir: /x\n", "disable: [dns, cni]\ndisable+: x", "a: &a [*a]\n*a : b", "? {a: b}\n: c", "<<: {data-dir: /x}",
		"write-kubeconfig-mode: 0600 # mode", "kubelet-arg: |\n  a=b\n  c=d\n", "--- \n...\n---\n", "\"a\\nb\": \"c\\r\\nd\"",
		"node-ip: !!binary aGk=", "tls-san: ~", "\ufeffdata-dir: /x",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, role := range []Role{Server, Agent} {
			h := fakeHost(map[string]string{"/etc/lite/config.yaml": string(data)})
			c, err := load(role, Flags(role), nil, h)
			if err == nil {
				err = c.Print(&strings.Builder{}, cluster.Facts{})
			}
			joined, ok := err.(interface{ Unwrap() []error })
			if err != nil && !ok {
				t.Fatalf("got another error: %v", err)
			}
			if err == nil {
				continue
			}
			for _, err := range joined.Unwrap() {
				e, ok := err.(*Error)
				if !ok || e.Source == "" || e.Problem == "" || e.Remedy == "" || strings.ContainsAny(e.Error(), "\r\n") {
					t.Errorf("got %#v", err)
				}
			}
		}
	})
}
