package layout

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Other roots are another layout, of which nothing is where the usual one has it but what Kubernetes prescribes.
func TestOtherRoots(t *testing.T) {
	l := New(Roots{Data: "/d", Run: "/r", Config: "/c"})
	for got, want := range map[string]string{
		l.Data.Lock():                        "/d/lite.lock",
		l.Data.Server().Kubeconfig("admin"):  "/d/server/kubeconfig/admin.conf",
		l.Data.Agent().Kubelet().Client():    "/d/agent/kubelet/pki/kubelet-client-current.pem",
		l.Data.Helpers("*").Netfilter():      "/d/bundle/*/netfilter",
		l.Run.Containerd().Socket():          "/r/containerd/containerd.sock",
		l.Run.Containerd().Runtime("kata"):   "/r/containerd/runtime-kata",
		l.Config.Install():                   "/c/config.yaml.d/50-install.yaml",
		Staged("/usr/local/bin/lite"):        "/usr/local/bin/.lite.upgrade",
		l.Host.Kubelet:                       "/var/lib/kubelet",
		Default().Data.Agent().Images():      "/var/lib/lite/agent/images",
		Default().Run.Socket():               "/run/lite/lite.sock",
		Default().Config.Kubeconfig():        "/etc/lite/kubeconfig.yaml",
		Default().Host.SystemdUnit:           "/etc/systemd/system/lite.service",
		string(Data("/d").Agent().Kubelet()): "/d/agent/kubelet",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	host := []string{}
	for i := range reflect.TypeFor[Host]().NumField() {
		host = append(host, reflect.ValueOf(l.Host).Field(i).String(), filepath.Dir(l.Host.AuditLog))
	}
	for _, f := range l.Files() {
		if !strings.HasPrefix(f.Path, "/d") && !strings.HasPrefix(f.Path, "/r") && !strings.HasPrefix(f.Path, "/c") && !slices.Contains(host, f.Path) {
			t.Errorf("%s is below no root", f.Path)
		}
	}
}

// What a method calls is in the table of files, or a directory of one of them, or in a directory whose inside is
// one package's alone.
func TestFilesAreAll(t *testing.T) {
	l := New(Roots{Data: "/d", Run: "/r", Config: "/c"})
	known := func(p string) bool {
		return slices.ContainsFunc(l.Files(), func(f File) bool {
			return f.Path == p || strings.HasPrefix(f.Path, p+"/") || strings.HasPrefix(p, f.Path+"/")
		})
	}
	notMade := []string{l.Data.Server().Authentication(), l.Run.Containerd().Runtimes(), l.Data.Agent().Kubelet().FlexVolumes()}
	found := 0
	for _, at := range []any{l.Data, l.Data.Server(), l.Data.Agent(), l.Data.Agent().Kubelet(), l.Data.Agent().Containerd(), l.Run, l.Run.Containerd(), l.Config} {
		v := reflect.ValueOf(at)
		for i := range v.NumMethod() {
			m := v.Method(i)
			if m.Type().NumIn() > 0 || m.Type().NumOut() != 1 || m.Type().Out(0).Kind() != reflect.String {
				continue
			}
			found++
			if p := m.Call(nil)[0].String(); !known(p) && !slices.Contains(notMade, p) {
				t.Errorf("%s, which %s.%s calls, is not among Files", p, v.Type(), v.Type().Method(i).Name)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d methods", found)
	}
	// Names in a data directory are those that something has.
	for _, f := range l.Files() {
		name, below := strings.CutPrefix(f.Path, "/d/")
		if name, _, _ = strings.Cut(name, "/"); below && !slices.Contains(l.Data.Names(), name) {
			t.Errorf("%s is not among the names in a data directory", name)
		}
	}
	for _, name := range l.Data.Names() {
		if !slices.ContainsFunc(l.Files(), func(f File) bool { return strings.HasPrefix(f.Path+"/", "/d/"+name+"/") }) {
			t.Errorf("nothing is called %s", name)
		}
	}
}

// documented is what the tables of docs/files.md say of a path: its mode, "" where they say none.
func documented(t *testing.T) map[string]string {
	t.Helper()
	quoted, octal := regexp.MustCompile("`([^`]+)`"), regexp.MustCompile(`^0[0-7]{3}`)
	modes := map[string]string{}
	inFiles := false
	for line := range strings.Lines(page(t, "files.md")) {
		cells := strings.Split(line, "|")
		switch {
		case len(cells) < 4:
			continue
		case !strings.Contains(cells[1], "`"):
			inFiles = inFiles && strings.HasPrefix(cells[1], "-") || strings.HasPrefix(strings.TrimSpace(cells[1]), "Path")
			continue
		case !inFiles:
			continue
		}
		dir := "/var/lib/lite"
		all := strings.Split(cells[2], ",")
		for i, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			name := strings.NewReplacer("<data-dir>", "/var/lib/lite").Replace(m[1])
			if !path.IsAbs(name) {
				name = dir + "/" + name
			}
			dir = path.Dir(strings.TrimSuffix(name, "/"))
			modes[path.Clean(name)] = octal.FindString(strings.TrimSpace(all[min(i, len(all)-1)]))
		}
	}
	return modes
}

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestFilesAreDocumented(t *testing.T) {
	docs := documented(t)
	files := Default().Files()
	for _, f := range files {
		mode, ok := docs[f.Path]
		switch want := fmt.Sprintf("%04o", uint32(f.Mode)); {
		case !ok:
			t.Errorf("docs/files.md does not name %s", f.Path)
		case f.Mode != 0 && mode != want:
			t.Errorf("docs/files.md gives %s the mode %q, want %s", f.Path, mode, want)
		}
	}
	// What installers, users and the parts of others make, and what lies in a directory that is one package's alone.
	others := regexp.MustCompile(`^<bin-dir>|/<bin-dir>|^/usr/share/|^/etc/(runlevels|logrotate\.d)/|\.d/50-lite\.conf$|cri-containerd-\.scope\.d$|multi-user\.target\.wants|/pki/|/bundle/\.lock$|/pvc-|\.ttrpc$|install\.(tmp|pending)$|audit-….log.gz$`)
	for p := range docs {
		if !others.MatchString(p) && p != "/var/lib/lite/.lite.upgrade" && !slices.ContainsFunc(files, func(f File) bool { return f.Path == p }) {
			t.Errorf("docs/files.md names %s, which is not in the layout", p)
		}
	}
	if len(docs) < 60 || fs.FileMode(0o711) != modeOf(files, Default().Run) {
		t.Errorf("there are %d paths", len(docs))
	}
}

func modeOf(files []File, r Run) fs.FileMode {
	i := slices.IndexFunc(files, func(f File) bool { return f.Path == string(r) })
	return files[i].Mode
}

// The tables of ports say what is in the table here, and no more.
func TestPortsAreDocumented(t *testing.T) {
	if text := strconv.Itoa(APIPort); text != APIPortText {
		t.Errorf("the API's port is %s and %s", text, APIPortText)
	}
	rows := portRows(t, "security.md")
	for _, p := range Ports() {
		row, ok := rows[fmt.Sprintf("%d/%s", p.Number, p.Protocol)]
		if !ok {
			t.Errorf("docs/security.md does not name %d/%s of %s", p.Number, p.Protocol, p.Who)
		} else if local := strings.HasPrefix(row, "127.0.0.1"); local != (p.At == OnLoopback) && !p.Asked {
			t.Errorf("docs/security.md has %d of %s at %s", p.Number, p.Who, row)
		}
	}
	known := func(row string) bool {
		return slices.ContainsFunc(Ports(), func(p Port) bool { return fmt.Sprintf("%d/%s", p.Number, p.Protocol) == row })
	}
	for row := range rows {
		if !known(row) {
			t.Errorf("docs/security.md names %s, which nobody listens on", row)
		}
	}
	between := portRows(t, "nodes.md")
	for row := range between {
		if !known(row) {
			t.Errorf("docs/nodes.md names %s, which nobody listens on", row)
		}
	}
	for _, p := range Ports() {
		// Those that other machines reach. The health of kube-proxy is for balancers outside the cluster.
		needed := p.At == Everywhere && !p.Asked && p.Number != ProxyHealthPort
		if _, ok := between[fmt.Sprintf("%d/%s", p.Number, p.Protocol)]; ok != needed {
			t.Errorf("docs/nodes.md on %d/%s of %s: %v", p.Number, p.Protocol, p.Who, ok)
		}
	}
	if want := fmt.Sprintf("| %d–%d |", NodePortFirst, NodePortFirst+NodePorts-1); !strings.Contains(page(t, "security.md"), want) {
		t.Errorf("docs/security.md does not have %s", want)
	}
}

// portRows is the rows of a table of ports, by port and protocol, and what follows.
func portRows(t *testing.T, name string) map[string]string {
	t.Helper()
	_, section, _ := strings.Cut(page(t, name), "\n## Ports\n")
	section, _, _ = strings.Cut(section, "\n## ")
	number := regexp.MustCompile(`\d{4,5}(?:/\w+)?`)
	rows := map[string]string{}
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || strings.Contains(cells[1], "–") {
			continue
		}
		for _, n := range number.FindAllString(cells[1], -1) {
			if !strings.Contains(n, "/") {
				n += "/tcp"
			}
			rows[n] = strings.TrimSpace(cells[2])
			if strings.Contains(cells[1], "also udp") {
				rows[strings.TrimSuffix(n, "tcp")+"udp"] = rows[n]
			}
		}
	}
	return rows
}

// The policy that keeps pods from the ports of the cluster has all that a pod could take.
func TestHostPortsAreRefused(t *testing.T) {
	text := object(t, "hostports.yaml")
	_, rule, _ := strings.Cut(text, "expression: >-")
	rule, message, _ := strings.Cut(rule, "message: >-")
	for _, p := range Ports() {
		number := strconv.Itoa(p.Number)
		if p.Number == APIPort {
			number = "${API_PORT}"
		}
		_, list, _ := strings.Cut(rule, "'"+strings.ToUpper(p.Protocol)+"': [")
		list, _, _ = strings.Cut(list, "]")
		if !slices.Contains(strings.Split(list, ", "), number) {
			t.Errorf("the rule does not have %d/%s of %s", p.Number, p.Protocol, p.Who)
		}
		if !strings.Contains(message, number) {
			t.Errorf("the message does not have %d of %s", p.Number, p.Who)
		}
	}
}

func object(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "manifests", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Objects are written as YAML, and call things by the same names.
func TestObjectsCallThingsTheSame(t *testing.T) {
	for file, names := range map[string][]string{
		"nodes.yaml":              {PolicyOfNodes, Domain + "/", StorageLabel, OverlayAnnotation, StoragePathAnnotation},
		"hostports.yaml":          {PolicyOfHostPorts},
		"namespaces.yaml":         {KeepEditsAnnotation},
		"join.yaml":               append(AllTokenGroups(), ClusterFacts),
		"batteries/dns.yaml":      {DNSService, strconv.Itoa(DNSMetricsPort)},
		"batteries/storage.yaml":  {Provisioner, StorageLabel},
		"batteries/metrics.yaml":  {MetricsUser},
		"../docs/uninstall.md":    append(append(Chains(), Devices()[:2]...), Bridge, PolicyTable, ProxyTable, PortmapTable, PortmapChains, PodCgroup, PodSlice, strconv.Itoa(RouteProtocol), Default().Data.Agent().Containerd().Root()[len("/var/lib/lite/"):], Default().Run.Before(), Default().Config.Fixes(), Default().Config.Installed(), Default().Run.Containerd().Socket(), Default().Host.CNI, Default().Host.Kubelet, Default().Host.PodLogs, Default().Host.OpenRCLog),
		"../docs/files.md":        append(append(Chains(), Devices()...), Bridge, PolicyTable, ProxyTable, PortmapTable, strconv.Itoa(RouteProtocol)),
		"../docs/security.md":     {ProvenAnnotation},
		"../docs/loadbalancer.md": {BalancerClass, BalancerLabel, AllowSSHAnnotation},
	} {
		text := object(t, file)
		for _, name := range names {
			if !strings.Contains(text, name) {
				t.Errorf("%s does not have %s", file, name)
			}
		}
	}
}
