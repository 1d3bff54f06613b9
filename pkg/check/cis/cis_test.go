package cis

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// bed is a node that a test changes before it is judged.
type bed struct {
	*Node
	t *testing.T
	// owners is whose files are that are not root's.
	owners map[string]uint32
}

const (
	strongSuites = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
	auditHead    = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
	encryption   = "kind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - secretbox: {keys: [{name: a, secret: c2VzYW1lLW9wZW4=}]}\n  - identity: {}\n"
	etcdDirName  = "/var/lib/lite/server/etcd"
	podDefault   = "kind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n  configuration: {defaults: {enforce: restricted}, exemptions: {namespaces: [kube-system]}}\n"
)

// hardened is a server that meets every entry that a server can meet on its own.
func hardened(t *testing.T) *bed {
	b := &bed{t: t, owners: map[string]uint32{}, Node: &Node{Layout: layout.Default(),
		Role: config.Server, Name: "node-a", Root: t.TempDir(), DataDir: "/var/lib/lite", Kubeconfig: "/etc/lite/kubeconfig.yaml",
		Stopped: "lite does not run", NoObjects: "the API server does not answer", Remedy: "start lite",
	}}
	b.Stat = func(path string) (File, error) {
		f, err := Stat(path)
		f.UID, f.GID = b.owners[strings.TrimPrefix(path, b.Root)], 0
		return f, err
	}
	for _, name := range []string{
		"/etc/lite/kubeconfig.yaml", "/etc/systemd/system/lite.service", "/var/lib/lite/agent/kubelet.conf", "/var/lib/lite/agent/cni/10-lite.conflist", "/run/lite/cni/lite/10.42.0.2",
		"/var/lib/lite/server/kubeconfig/admin.conf", "/var/lib/lite/server/kubeconfig/lite.conf", "/var/lib/lite/server/kubeconfig/scheduler.conf", "/var/lib/lite/server/kubeconfig/controller-manager.conf",
		"/var/lib/lite/server/pki/ca.crt", "/var/lib/lite/server/pki/ca.key", "/var/lib/lite/server/pki/etcd/ca.crt", "/var/lib/lite/server/pki/etcd/ca.key",
	} {
		b.write(name, "of "+name)
	}
	b.write("/var/lib/lite/server/encryption.yaml", encryption)
	b.write("/var/lib/lite/server/audit-policy.yaml", auditHead+"rules: [{level: Metadata}]\n")
	b.write("/var/lib/lite/server/admission.yaml", podDefault)
	if err := os.Mkdir(b.path(etcdDirName), 0o700); err != nil {
		t.Fatal(err)
	}
	b.Components = map[string]component.Settings{
		policyPart: {},
		apiserverPart: {Arguments: []string{
			"--anonymous-auth=false", "--authorization-mode=Node,RBAC", "--client-ca-file=/var/lib/lite/server/pki/ca.crt",
			"--enable-admission-plugins=NodeRestriction,EventRateLimit,DenyServiceExternalIPs,AlwaysPullImages,ImagePolicyWebhook",
			"--encryption-provider-config=/var/lib/lite/server/encryption.yaml", "--admission-control-config-file=/var/lib/lite/server/admission.yaml",
			"--etcd-cafile=a", "--etcd-certfile=a", "--etcd-keyfile=a", "--kubelet-certificate-authority=a", "--kubelet-client-certificate=a", "--kubelet-client-key=a",
			"--profiling=false", "--service-account-key-file=a", "--service-account-extend-token-expiration=false", "--tls-cert-file=a", "--tls-private-key-file=a", "--tls-cipher-suites=" + strongSuites,
			"--audit-log-path=/var/log/audit.log", "--audit-log-maxage=30", "--audit-log-maxbackup=10", "--audit-log-maxsize=100", "--audit-policy-file=/var/lib/lite/server/audit-policy.yaml",
		}},
		controllerPart: {Arguments: []string{"--bind-address=127.0.0.1", "--profiling=false", "--root-ca-file=a", "--service-account-private-key-file=a", "--use-service-account-credentials=true", "--terminated-pod-gc-threshold=500"}},
		schedulerPart:  {Arguments: []string{"--bind-address=127.0.0.1", "--profiling=false"}},
		etcdPart: {Arguments: []string{
			"--cert-file=a", "--key-file=a", "--client-cert-auth=true", "--peer-cert-file=a", "--peer-key-file=a", "--peer-client-cert-auth=true", "--trusted-ca-file=/var/lib/lite/server/pki/etcd/ca.crt",
		}},
		kubeletPart: {Arguments: []string{"--kubeconfig=/var/lib/lite/agent/kubelet.conf", "--hostname-override=node-a"}},
		proxyPart:   {Arguments: []string{"--kubeconfig=/var/lib/lite/agent/kubelet.conf"}, Configuration: json.RawMessage(`{"metricsBindAddress": "127.0.0.1:10249"}`)},
	}
	b.kubeletSays(`{"authentication": {"anonymous": {"enabled": false}, "x509": {"clientCAFile": "/var/lib/lite/server/pki/ca.crt"}}, "authorization": {"mode": "Webhook"},
		"streamingConnectionIdleTimeout": "4h", "makeIPTablesUtilChains": true, "eventRecordQPS": 50, "tlsCertFile": "a", "tlsPrivateKeyFile": "a",
		"tlsCipherSuites": ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"], "podPidsLimit": 4096, "seccompDefault": true}`)
	b.Objects = freshObjects(t)
	return b
}

// freshObjects is a cluster that holds nothing of users.
func freshObjects(t *testing.T) *Objects {
	byDefault, err := Given()
	if err != nil {
		t.Fatal(err)
	}
	o := &Objects{Access: byDefault}
	no := false
	for _, name := range []string{"default", "kube-system"} {
		o.Namespaces = append(o.Namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		o.ServiceAccounts = append(o.ServiceAccounts, corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "default"}, AutomountServiceAccountToken: &no})
		o.Policies = append(o.Policies, networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "none"}})
	}
	return o
}

func (b *bed) write(name, text string) {
	b.t.Helper()
	path := b.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) chmod(name string, mode os.FileMode) {
	b.t.Helper()
	if err := os.Chmod(b.path(name), mode); err != nil {
		b.t.Fatal(err)
	}
}

// link puts a file of a mode elsewhere and a link to it in its place.
func (b *bed) link(file, name string, mode os.FileMode) {
	b.t.Helper()
	b.write(file, "")
	b.chmod(file, mode)
	os.Remove(b.path(name))
	if err := os.Symlink(b.path(file), b.path(name)); err != nil {
		b.t.Fatal(err)
	}
}

// pipe replaces a file with a pipe, which blocks readers forever.
func (b *bed) pipe(name string) {
	b.t.Helper()
	if err := errors.Join(os.Remove(b.path(name)), syscall.Mkfifo(b.path(name), 0o600)); err != nil {
		b.t.Fatal(err)
	}
}

// elsewhere moves a directory and leaves a link to it.
func (b *bed) elsewhere(dir string) {
	b.t.Helper()
	if err := errors.Join(os.Rename(b.path(dir), b.path("/moved")), os.Symlink(b.path("/moved"), b.path(dir))); err != nil {
		b.t.Fatal(err)
	}
}

// with gives a component more arguments, as a user's come after lite's.
func (b *bed) with(part string, args ...string) {
	s := b.Components[part]
	s.Arguments = append(slices.Clone(s.Arguments), args...)
	b.Components[part] = s
}

// without takes arguments out.
func (b *bed) without(part string, names ...string) {
	s := b.Components[part]
	s.Arguments = slices.DeleteFunc(slices.Clone(s.Arguments), func(arg string) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		return slices.Contains(names, name)
	})
	b.Components[part] = s
}

// kubeletSays puts fields over those of the kubelet's configuration.
func (b *bed) kubeletSays(fields string) {
	b.t.Helper()
	s := b.Components[kubeletPart]
	all := map[string]any{}
	for _, text := range []string{string(s.Configuration), fields} {
		if text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			b.t.Fatal(err)
		}
	}
	s.Configuration, _ = json.Marshal(all)
	b.Components[kubeletPart] = s
}

// pod adds one in default.
func (b *bed) pod(name string, change func(*corev1.Pod)) {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{ServiceAccountName: "default", Containers: []corev1.Container{{Name: "c"}}}}
	change(&p)
	b.Objects.Pods = append(b.Objects.Pods, p)
}

// bind gives a user a role of some rules.
func (b *bed) bind(rules ...rbacv1.PolicyRule) {
	b.Objects.ClusterRoles = append(b.Objects.ClusterRoles, rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Rules: rules})
	b.Objects.ClusterRoleBindings = append(b.Objects.ClusterRoleBindings, rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "to-jane"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "more"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "jane"}},
	})
}

func rule(group, resource string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
}

func (b *bed) one(number string) Result {
	b.t.Helper()
	for _, e := range entries() {
		if e.number == number {
			return e.result(b.Node)
		}
	}
	b.t.Fatalf("%s was not judged", number)
	return Result{}
}

// TestTable compares the table with the benchmark: how many entries each section has,
// which a program is to judge, and which are of level 2.
func TestTable(t *testing.T) {
	sizes := map[string]int{"1.1": 21, "1.2": 30, "1.3": 7, "1.4": 2, "2": 7, "3.1": 3, "3.2": 2, "4.1": 10, "4.2": 14, "4.3": 1, "5.1": 13, "5.2": 12, "5.3": 2, "5.4": 2, "5.5": 1, "5.6": 4}
	manual := strings.Fields("1.1.9 1.1.10 1.1.20 1.1.21 1.2.1 1.2.3 1.2.9 1.2.11 1.2.20 1.2.27 1.2.28 1.2.29 1.3.1 2.7 4.1.3 4.1.4 4.1.7 4.1.8 4.2.4 4.2.5 4.2.7 4.2.8 4.2.9 4.2.11 4.2.12 4.2.13 4.2.14")
	second := strings.Fields("1.2.12 1.2.13 1.2.14 2.7 3.2.2 4.2.8 5.2.7 5.2.9 5.3.2 5.4.1 5.4.2 5.5.1 5.6.2 5.6.3 5.6.4")
	all := entries()
	if len(all) != 131 {
		t.Errorf("%d entries, the benchmark has 131", len(all))
	}
	next := map[string]int{}
	for _, e := range all {
		section := SectionOf(e.number)
		next[section]++
		if want := section + "." + strconv.Itoa(next[section]); e.number != want {
			t.Errorf("%s stands where %s belongs", e.number, want)
		}
		person := strings.HasPrefix(e.number, "3.") || strings.HasPrefix(e.number, "5.") || slices.Contains(manual, e.number)
		if (e.kind == Manual) != person {
			t.Errorf("%s is %s", e.number, e.kind)
		}
		if (e.level == 2) != slices.Contains(second, e.number) {
			t.Errorf("%s is of level %d", e.number, e.level)
		}
		unmendable := e.number == "4.2.7" || e.number == "5.2.10" || strings.HasPrefix(e.number, "1.1.") && e.reason == inProcess
		if e.title == "" || e.reason == "" || (e.remedy == "") != unmendable {
			t.Errorf("%s lacks its title, reason or remedy: %+v", e.number, e)
		}
	}
	for section, size := range sizes {
		if next[section] != size {
			t.Errorf("section %s has %d entries, want %d", section, next[section], size)
		}
		if !slices.ContainsFunc(Sections, func(s Section) bool { return s.Number == section }) {
			t.Errorf("section %s has no title", section)
		}
	}
}

// A server that was hardened passes all that a program can judge, and nothing fails.
func TestHardened(t *testing.T) {
	b := hardened(t)
	r := Judge(b.Node)
	inapplicable := strings.Fields("1.1.1 1.1.2 1.1.3 1.1.4 1.1.5 1.1.6 1.1.7 1.1.8 1.1.12 4.1.9 4.1.10 4.2.10 4.2.11 5.2.10")
	person := strings.Fields("1.2.20 3.1.1 3.1.2 3.1.3 4.2.7 5.1.6 5.1.7 5.4.1 5.4.2 5.6.1 5.6.2 5.6.3 5.6.4")
	for _, e := range r.Entries {
		want := Pass
		switch {
		case slices.Contains(inapplicable, e.Number):
			want = Inapplicable
		case slices.Contains(person, e.Number):
			want = Decide
		}
		if e.Status != want {
			t.Errorf("%s %s is %s, want %s: %s", e.Number, e.Title, e.Status, want, e.Seen)
		}
		if e.Seen == "" || strings.Contains(e.Seen, "sesame") || strings.Contains(e.Seen, "c2VzYW1l") {
			t.Errorf("%s: seen %q", e.Number, e.Seen)
		}
		if (e.Status == Pass) != (e.Reason == "") {
			t.Errorf("%s: %s for the reason %q", e.Number, e.Status, e.Reason)
		}
	}
	if r.Failed() || len(r.Entries) != 131 || r.Totals[Pass] != 131-len(inapplicable)-len(person) {
		t.Errorf("totals %v", r.Totals)
	}
}

// example is a change to a node that is hardened, and what comes of an entry by it.
type example struct {
	number string
	name   string
	do     func(*bed)
	status Status
	seen   string // this is in what was seen or in the remedy
}

// cases is what makes entries fail, or leaves them to a person, or lets them pass in
// another way.
var cases = []example{
	{"1.1.9", "a description that others can read", func(b *bed) { b.chmod("/var/lib/lite/agent/cni/10-lite.conflist", 0o644) }, Fail, "chmod 600 /var/lib/lite/agent/cni/10-lite.conflist"},
	{"1.1.9", "addresses that a group can read", func(b *bed) { b.chmod("/run/lite/cni/lite/10.42.0.2", 0o640) }, Fail, "mode 0640"},
	{"1.1.9", "another network's", func(b *bed) {
		os.RemoveAll(b.path("/var/lib/lite/agent/cni"))
		b.write("/etc/cni/net.d/10-other.conflist", "{}")
		b.chmod("/etc/cni/net.d/10-other.conflist", 0o644)
	}, Fail, "/etc/cni/net.d/10-other.conflist has mode 0644"},
	{"1.1.9", "another network's beside lite's", func(b *bed) {
		b.write("/etc/cni/net.d/87-podman.conflist", "{}")
		b.chmod("/etc/cni/net.d/87-podman.conflist", 0o644)
	}, Pass, ""},
	{"1.1.9", "no network", func(b *bed) { os.RemoveAll(b.path("/var/lib/lite/agent/cni")); os.RemoveAll(b.path("/run/lite/cni")) }, Inapplicable, ""},
	{"1.1.10", "somebody's description", func(b *bed) { b.owners["/var/lib/lite/agent/cni/10-lite.conflist"] = 1000 }, Fail, "chown root:root /var/lib/lite/agent/cni/10-lite.conflist"},
	{"1.1.11", "a directory that a group can enter", func(b *bed) { b.chmod(etcdDirName, 0o750) }, Fail, "chmod 700 " + etcdDirName},
	{"1.1.11", "a directory that others can enter", func(b *bed) { b.chmod(etcdDirName, 0o701) }, Fail, "mode 0701"},
	{"1.1.11", "no directory", func(b *bed) { os.Remove(b.path(etcdDirName)) }, Unknown, "no such file"},
	{"1.1.12", "somebody's directory", func(b *bed) { b.owners[etcdDirName] = 1000 }, Fail, "user 1000"},
	{"1.1.13", "a kubeconfig for all", func(b *bed) { b.chmod("/etc/lite/kubeconfig.yaml", 0o644) }, Fail, "/etc/lite/kubeconfig.yaml has mode 0644"},
	{"1.1.13", "one in the data directory", func(b *bed) { b.chmod("/var/lib/lite/server/kubeconfig/lite.conf", 0o640) }, Fail, "lite.conf"},
	{"1.1.14", "somebody's kubeconfig", func(b *bed) { b.owners["/etc/lite/kubeconfig.yaml"] = 1000 }, Fail, "chown root:root /etc/lite/kubeconfig.yaml"},
	{"1.1.15", "a kubeconfig for all", func(b *bed) { b.chmod("/var/lib/lite/server/kubeconfig/scheduler.conf", 0o604) }, Fail, "mode 0604"},
	{"1.1.15", "a kubeconfig elsewhere", func(b *bed) {
		b.with(schedulerPart, "--kubeconfig=/etc/mine.conf")
		b.write("/etc/mine.conf", "")
		b.chmod("/etc/mine.conf", 0o666)
	}, Fail, "/etc/mine.conf has mode 0666"},
	{"1.1.16", "somebody's kubeconfig", func(b *bed) { b.owners["/var/lib/lite/server/kubeconfig/scheduler.conf"] = 1 }, Fail, "user 1 "},
	{"1.1.17", "a kubeconfig for all", func(b *bed) { b.chmod("/var/lib/lite/server/kubeconfig/controller-manager.conf", 0o644) }, Fail, "mode 0644"},
	{"1.1.18", "somebody's kubeconfig", func(b *bed) { b.owners["/var/lib/lite/server/kubeconfig/controller-manager.conf"] = 1 }, Fail, "user 1 "},
	{"1.1.19", "somebody's key", func(b *bed) { b.owners["/var/lib/lite/server/pki/etcd/ca.key"] = 7 }, Fail, "etcd/ca.key has user 7"},
	{"1.1.19", "somebody's directory", func(b *bed) { b.owners["/var/lib/lite/server/pki/etcd"] = 7 }, Fail, "pki/etcd has user 7"},
	{"1.1.20", "a certificate that others can write", func(b *bed) { b.chmod("/var/lib/lite/server/pki/ca.crt", 0o666) }, Fail, "chmod 644 /var/lib/lite/server/pki/ca.crt"},
	{"1.1.20", "certificates that others can read", func(b *bed) { b.chmod("/var/lib/lite/server/pki/ca.crt", 0o644) }, Pass, ""},
	{"1.1.21", "a key that others can read", func(b *bed) { b.chmod("/var/lib/lite/server/pki/ca.key", 0o644) }, Fail, "chmod 600 /var/lib/lite/server/pki/ca.key"},
	{"1.1.21", "a key of etcd's that a group can read", func(b *bed) { b.chmod("/var/lib/lite/server/pki/etcd/ca.key", 0o640) }, Fail, "etcd/ca.key has mode 0640"},
	{"1.1.21", "two keys", func(b *bed) {
		b.chmod("/var/lib/lite/server/pki/ca.key", 0o644)
		b.chmod("/var/lib/lite/server/pki/etcd/ca.key", 0o640)
	}, Fail, "and so on"},

	{"1.1.21", "a key of a user's that lies elsewhere", func(b *bed) { b.link("/srv/keys/ca.key", "/var/lib/lite/server/pki/ca.key", 0o644) }, Fail, "/var/lib/lite/server/pki/ca.key has mode 0644"},
	{"1.1.21", "one that only root can read", func(b *bed) { b.link("/srv/keys/ca.key", "/var/lib/lite/server/pki/ca.key", 0o600) }, Pass, ""},
	{"1.1.21", "a link that leads nowhere", func(b *bed) {
		b.link("/srv/keys/ca.key", "/var/lib/lite/server/pki/old.key", 0o600)
		os.Remove(b.path("/srv/keys/ca.key"))
	}, Pass, ""},
	{"1.1.21", "keys in a directory that lies elsewhere", func(b *bed) {
		b.chmod("/var/lib/lite/server/pki/ca.key", 0o644)
		b.elsewhere("/var/lib/lite/server/pki")
	}, Fail, "/var/lib/lite/server/pki/ca.key has mode 0644"},
	{"1.1.19", "somebody's key that lies elsewhere", func(b *bed) {
		b.link("/srv/keys/ca.key", "/var/lib/lite/server/pki/ca.key", 0o600)
		b.owners["/var/lib/lite/server/pki/ca.key"] = 7
	}, Fail, "pki/ca.key has user 7"},
	{"1.1.9", "another network's, in a directory that lies elsewhere", func(b *bed) {
		os.RemoveAll(b.path("/var/lib/lite/agent/cni"))
		b.write("/etc/cni/net.d/10-other.conflist", "{}")
		b.chmod("/etc/cni/net.d/10-other.conflist", 0o644)
		b.elsewhere("/etc/cni/net.d")
	}, Fail, "/etc/cni/net.d/10-other.conflist has mode 0644"},
	{"1.1.20", "a name with a space", func(b *bed) {
		b.write("/var/lib/lite/server/pki/my ca.crt", "")
		b.chmod("/var/lib/lite/server/pki/my ca.crt", 0o666)
	}, Fail, "`chmod 644 '/var/lib/lite/server/pki/my ca.crt'`"},
	{"1.1.20", "a name that is a command", func(b *bed) {
		b.write("/var/lib/lite/server/pki/a'$(reboot).crt", "")
		b.chmod("/var/lib/lite/server/pki/a'$(reboot).crt", 0o666)
	}, Fail, `'/var/lib/lite/server/pki/a'\''$(reboot).crt'`},

	{"1.2.28", "a pipe in the place of a file", func(b *bed) { b.pipe("/var/lib/lite/server/encryption.yaml") }, Unknown, "/var/lib/lite/server/encryption.yaml is not a regular file"},
	{"3.2.2", "a pipe in the place of a policy", func(b *bed) { b.pipe("/var/lib/lite/server/audit-policy.yaml") }, Unknown, "is not a regular file"},
	{"5.2.2", "a pipe in the place of settings of plugins", func(b *bed) { b.pipe("/var/lib/lite/server/admission.yaml") }, Unknown, "is not a regular file"},
	{"5.1.1", "no kubeconfig to ask with", func(b *bed) {
		b.Objects, b.NoObjects, b.ObjectsRemedy = nil, "the kubeconfig is gone", "start lite again"
	}, Unknown, "start lite again"},

	{"1.2.1", "everybody", func(b *bed) { b.with(apiserverPart, "--anonymous-auth=true") }, Fail, "--anonymous-auth=true"},
	{"1.2.1", "everybody, without a value", func(b *bed) { b.with(apiserverPart, "--anonymous-auth") }, Fail, "--anonymous-auth=true"},
	{"1.2.1", "not set", func(b *bed) { b.without(apiserverPart, "anonymous-auth") }, Decide, "/livez"},
	{"1.2.1", "everybody, by a file", func(b *bed) {
		b.without(apiserverPart, "anonymous-auth")
		b.write("/etc/authn.yaml", "anonymous: {enabled: true}\n")
		b.with(apiserverPart, "--authentication-config=/etc/authn.yaml")
	}, Fail, "everything"},
	{"1.2.1", "some paths, by a file", func(b *bed) {
		b.without(apiserverPart, "anonymous-auth")
		b.write("/etc/authn.yaml", "anonymous: {enabled: true, conditions: [{path: /livez}]}\n")
		b.with(apiserverPart, "--authentication-config=/etc/authn.yaml")
	}, Decide, "/livez"},
	{"1.2.1", "nobody, by a file", func(b *bed) {
		b.without(apiserverPart, "anonymous-auth")
		b.write("/etc/authn.yaml", "anonymous: {enabled: false}\n")
		b.with(apiserverPart, "--authentication-config=/etc/authn.yaml")
	}, Pass, ""},
	{"1.2.1", "a file that cannot be read", func(b *bed) {
		b.without(apiserverPart, "anonymous-auth")
		b.with(apiserverPart, "--authentication-config=/etc/none.yaml")
	}, Unknown, "none.yaml"},
	{"1.2.2", "tokens", func(b *bed) { b.with(apiserverPart, "--token-auth-file=/etc/tokens") }, Fail, "--token-auth-file=/etc/tokens"},
	{"1.2.3", "off", func(b *bed) { b.with(apiserverPart, "--disable-admission-plugins=DenyServiceExternalIPs") }, Decide, "DenyServiceExternalIPs is off"},
	{"1.2.4", "no key", func(b *bed) { b.with(apiserverPart, "--kubelet-client-key=") }, Fail, "--kubelet-client-key="},
	{"1.2.5", "no authority", func(b *bed) { b.without(apiserverPart, "kubelet-certificate-authority") }, Fail, "is not set"},
	{"1.2.6", "everybody", func(b *bed) { b.with(apiserverPart, "--authorization-mode=AlwaysAllow") }, Fail, "AlwaysAllow"},
	{"1.2.6", "everybody, by a file", func(b *bed) {
		b.write("/etc/authz.yaml", "authorizers: [{type: Node}, {type: RBAC}, {type: AlwaysAllow}]\n")
		b.with(apiserverPart, "--authorization-config=/etc/authz.yaml")
	}, Fail, "AlwaysAllow"},
	{"1.2.6", "nobody says who", func(b *bed) { b.without(apiserverPart, "authorization-mode") }, Fail, "--authorization-mode is not set"},
	{"1.2.7", "no Node", func(b *bed) {
		b.without(apiserverPart, "authorization-mode")
		b.with(apiserverPart, "--authorization-mode=RBAC")
	}, Fail, "=RBAC"},
	{"1.2.7", "a file", func(b *bed) {
		b.write("/etc/authz.yaml", "authorizers: [{type: RBAC}]\n")
		b.with(apiserverPart, "--authorization-config=/etc/authz.yaml")
	}, Fail, "/etc/authz.yaml has RBAC"},
	{"1.2.7", "a file that is gone", func(b *bed) { b.with(apiserverPart, "--authorization-config=/etc/authz.yaml") }, Unknown, "authz.yaml"},
	{"1.2.8", "no RBAC", func(b *bed) {
		b.without(apiserverPart, "authorization-mode")
		b.with(apiserverPart, "--authorization-mode=Node,ABAC")
	}, Fail, "Node,ABAC"},
	{"1.2.8", "a file", func(b *bed) {
		b.write("/etc/authz.yaml", "authorizers: [{type: Node}, {type: RBAC}, {type: Webhook, name: w}]\n")
		b.with(apiserverPart, "--authorization-config=/etc/authz.yaml")
	}, Pass, ""},
	{"1.2.9", "off", func(b *bed) { b.with(apiserverPart, "--disable-admission-plugins=EventRateLimit") }, Decide, "EventRateLimit is off"},
	{"1.2.10", "everything", func(b *bed) { b.with(apiserverPart, "--enable-admission-plugins=AlwaysAdmit") }, Fail, "AlwaysAdmit is on"},
	{"1.2.10", "everything, by the old flag", func(b *bed) { b.with(apiserverPart, "--admission-control=AlwaysAdmit") }, Fail, "AlwaysAdmit is on"},
	{"1.2.11", "off", func(b *bed) { b.with(apiserverPart, "--disable-admission-plugins=AlwaysPullImages") }, Decide, "AlwaysPullImages is off"},
	{"1.2.12", "off", func(b *bed) { b.with(apiserverPart, "--disable-admission-plugins=PodSecurity,ServiceAccount") }, Fail, "ServiceAccount is off"},
	{"1.2.12", "off, as k3s users write it", func(b *bed) { b.with(apiserverPart, "--disable_admission_plugins=ServiceAccount") }, Fail, "ServiceAccount is off"},
	{"1.2.13", "off", func(b *bed) { b.with(apiserverPart, "--disable-admission-plugins=NamespaceLifecycle") }, Fail, "NamespaceLifecycle is off"},
	{"1.2.13", "left out of the old flag", func(b *bed) { b.with(apiserverPart, "--admission-control=ServiceAccount") }, Fail, "NamespaceLifecycle is off"},
	{"1.2.14", "off", func(b *bed) { b.with(apiserverPart, "--disable-admission-plugins=NodeRestriction") }, Fail, "NodeRestriction is off"},
	{"1.2.15", "on", func(b *bed) { b.with(apiserverPart, "--profiling=true") }, Fail, "--profiling=true"},
	{"1.2.15", "on, as Go reads it", func(b *bed) { b.with(apiserverPart, "--profiling=T") }, Fail, "--profiling=T"},
	{"1.2.15", "on by default", func(b *bed) { b.without(apiserverPart, "profiling") }, Fail, "is not set"},
	{"1.2.15", "off, as Go reads it", func(b *bed) { b.with(apiserverPart, "--profiling=0") }, Pass, ""},
	{"1.2.16", "none", func(b *bed) { b.without(apiserverPart, "audit-log-path") }, Fail, "--audit-log-path is not set"},
	{"1.2.17", "a week", func(b *bed) { b.with(apiserverPart, "--audit-log-maxage=7") }, Fail, "=7"},
	{"1.2.17", "for ever by 0", func(b *bed) { b.with(apiserverPart, "--audit-log-maxage=0") }, Fail, "=0"},
	{"1.2.18", "few", func(b *bed) { b.with(apiserverPart, "--audit-log-maxbackup=9") }, Fail, "=9"},
	{"1.2.19", "small", func(b *bed) { b.with(apiserverPart, "--audit-log-maxsize=10") }, Fail, "=10"},
	{"1.2.19", "not a number", func(b *bed) { b.with(apiserverPart, "--audit-log-maxsize=big") }, Fail, "=big"},
	{"1.2.20", "set", func(b *bed) { b.with(apiserverPart, "--request-timeout=5m") }, Decide, "--request-timeout=5m"},
	{"1.2.21", "off", func(b *bed) { b.with(apiserverPart, "--service-account-lookup=false") }, Fail, "=false"},
	{"1.2.22", "none", func(b *bed) { b.without(apiserverPart, "service-account-key-file") }, Fail, "is not set"},
	{"1.2.22", "a signer outside", func(b *bed) {
		b.without(apiserverPart, "service-account-key-file")
		b.with(apiserverPart, "--service-account-signing-endpoint=/run/signer.sock")
	}, Pass, ""},
	{"1.2.23", "no key", func(b *bed) { b.without(apiserverPart, "etcd-keyfile") }, Fail, "--etcd-keyfile is not set"},
	{"1.2.24", "no certificate", func(b *bed) { b.without(apiserverPart, "tls-cert-file") }, Fail, "--tls-cert-file is not set"},
	{"1.2.25", "none", func(b *bed) { b.without(apiserverPart, "client-ca-file") }, Fail, "is not set"},
	{"1.2.26", "none", func(b *bed) { b.without(apiserverPart, "etcd-cafile") }, Fail, "is not set"},
	{"1.2.27", "none", func(b *bed) { b.without(apiserverPart, "encryption-provider-config") }, Fail, "is not set"},
	{"1.2.28", "written as they are", func(b *bed) {
		b.write("/var/lib/lite/server/encryption.yaml", "resources:\n- resources: [secrets]\n  providers: [{identity: {}}, {secretbox: {}}]\n")
	}, Fail, "identity"},
	{"1.2.28", "aesgcm", func(b *bed) {
		b.write("/var/lib/lite/server/encryption.yaml", "resources:\n- resources: [configmaps, '*.*']\n  providers: [{aesgcm: {}}]\n")
	}, Fail, "aesgcm"},
	{"1.2.28", "other kinds only", func(b *bed) {
		b.write("/var/lib/lite/server/encryption.yaml", "resources:\n- resources: [configmaps]\n  providers: [{kms: {}}]\n")
	}, Fail, "does not mention Secrets"},
	{"1.2.28", "a file that is none", func(b *bed) { b.write("/var/lib/lite/server/encryption.yaml", "secret: [sesame\n") }, Unknown, "is not YAML"},
	{"1.2.29", "Go's own", func(b *bed) { b.without(apiserverPart, "tls-cipher-suites") }, Fail, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"},
	{"1.2.29", "one that is weak", func(b *bed) { b.with(apiserverPart, "--tls-cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA") }, Fail, "TLS_RSA_WITH_AES_128_CBC_SHA"},
	{"1.2.29", "TLS 1.3", func(b *bed) {
		b.without(apiserverPart, "tls-cipher-suites")
		b.with(apiserverPart, "--tls-min-version=VersionTLS13")
	}, Pass, ""},
	{"1.2.30", "a year", func(b *bed) { b.without(apiserverPart, "service-account-extend-token-expiration") }, Fail, "is not set"},

	{"1.3.1", "not set", func(b *bed) { b.without(controllerPart, "terminated-pod-gc-threshold") }, Decide, "is not set"},
	{"1.3.2", "on", func(b *bed) { b.with(controllerPart, "--profiling") }, Fail, "--profiling=true"},
	{"1.3.3", "off", func(b *bed) { b.with(controllerPart, "--use-service-account-credentials=false") }, Fail, "=false"},
	{"1.3.3", "not set", func(b *bed) { b.without(controllerPart, "use-service-account-credentials") }, Fail, "is not set"},
	{"1.3.4", "none", func(b *bed) { b.without(controllerPart, "service-account-private-key-file") }, Fail, "is not set"},
	{"1.3.5", "none", func(b *bed) { b.without(controllerPart, "root-ca-file") }, Fail, "is not set"},
	{"1.3.6", "off", func(b *bed) { b.with(controllerPart, "--feature-gates=A=true,RotateKubeletServerCertificate=false") }, Fail, "of controller-manager"},
	{"1.3.6", "off by another part", func(b *bed) { b.with(schedulerPart, "--feature-gates=RotateKubeletServerCertificate=0") }, Fail, "of scheduler"},
	{"1.3.6", "off in the kubelet's file", func(b *bed) { b.kubeletSays(`{"featureGates": {"RotateKubeletServerCertificate": false}}`) }, Fail, "of kubelet"},
	{"1.3.7", "everywhere", func(b *bed) { b.with(controllerPart, "--bind-address=0.0.0.0") }, Fail, "0.0.0.0"},
	{"1.3.7", "loopback of IPv6", func(b *bed) { b.with(controllerPart, "--bind-address=::1") }, Pass, ""},
	{"1.4.1", "on", func(b *bed) { b.with(schedulerPart, "--profiling=true") }, Fail, "--profiling=true"},
	{"1.4.1", "on in a file", func(b *bed) {
		b.Components[schedulerPart] = component.Settings{Arguments: []string{"--config=/etc/s.yaml"}, Configuration: json.RawMessage(`{"enableProfiling": true}`)}
	}, Fail, "enableProfiling is true"},
	{"1.4.1", "off in a file", func(b *bed) {
		b.Components[schedulerPart] = component.Settings{Arguments: []string{"--config=/etc/s.yaml"}, Configuration: json.RawMessage(`{"enableProfiling": false}`)}
	}, Pass, ""},
	{"1.4.2", "one address", func(b *bed) { b.with(schedulerPart, "--bind-address=192.0.2.1") }, Fail, "192.0.2.1"},

	{"2.1", "no key", func(b *bed) { b.without(etcdPart, "key-file") }, Fail, "--key-file is not set"},
	{"2.2", "everybody", func(b *bed) { b.with(etcdPart, "--client-cert-auth=false") }, Fail, "=false"},
	{"2.2", "not set", func(b *bed) { b.without(etcdPart, "client-cert-auth") }, Fail, "is not set"},
	{"2.3", "signs itself", func(b *bed) { b.with(etcdPart, "--auto-tls=true") }, Fail, "--auto-tls=true"},
	{"2.4", "no certificate", func(b *bed) { b.without(etcdPart, "peer-cert-file") }, Fail, "--peer-cert-file is not set"},
	{"2.5", "everybody", func(b *bed) { b.with(etcdPart, "--peer-client-cert-auth=false") }, Fail, "=false"},
	{"2.6", "sign themselves", func(b *bed) { b.with(etcdPart, "--peer-auto-tls") }, Fail, "--peer-auto-tls=true"},
	{"2.7", "the cluster's", func(b *bed) { b.with(etcdPart, "--trusted-ca-file=/var/lib/lite/server/pki/ca.crt") }, Fail, "clients too"},
	{"2.7", "a copy of the cluster's", func(b *bed) { b.write("/var/lib/lite/server/pki/etcd/ca.crt", "of /var/lib/lite/server/pki/ca.crt\n") }, Fail, "clients too"},

	{"3.1.1", "OIDC", func(b *bed) { b.with(apiserverPart, "--oidc-issuer-url=https://issuer.test") }, Decide, "set up: OIDC"},
	{"3.2.1", "no log", func(b *bed) { b.without(apiserverPart, "audit-log-path") }, Fail, "no audit log"},
	{"3.2.1", "no policy", func(b *bed) { b.without(apiserverPart, "audit-policy-file") }, Fail, "is not set"},
	{"3.2.2", "Secrets in the log", func(b *bed) {
		b.write("/var/lib/lite/server/audit-policy.yaml", auditHead+"rules: [{level: RequestResponse}]\n")
	}, Fail, "get secrets"},
	{"3.2.2", "no exec", func(b *bed) {
		b.write("/var/lib/lite/server/audit-policy.yaml", auditHead+"rules: [{level: None, resources: [{resources: [pods/exec]}]}, {level: Metadata}]\n")
	}, Decide, "leaves out: create pods/exec"},
	{"3.2.2", "more of Deployments", func(b *bed) {
		b.write("/var/lib/lite/server/audit-policy.yaml", auditHead+"rules: [{level: Request, resources: [{group: apps}]}, {level: Metadata}]\n")
	}, Pass, ""},
	{"3.2.2", "no log", func(b *bed) { b.without(apiserverPart, "audit-log-path") }, Fail, "no audit log"},

	{"4.1.1", "a unit for all to read", func(b *bed) { b.chmod("/etc/systemd/system/lite.service", 0o644) }, Fail, "chmod 600 /etc/systemd/system/lite.service"},
	{"4.1.1", "a unit that can be executed", func(b *bed) { b.chmod("/etc/systemd/system/lite.service", 0o700) }, Fail, "mode 0700"},
	{"4.1.1", "a script for all", func(b *bed) {
		os.Remove(b.path(layout.Default().Host.SystemdUnit))
		b.write("/etc/init.d/lite", "")
		b.chmod("/etc/init.d/lite", 0o755)
	}, Fail, "chmod 700 /etc/init.d/lite"},
	{"4.1.1", "a script of root's", func(b *bed) {
		os.Remove(b.path(layout.Default().Host.SystemdUnit))
		b.write("/etc/init.d/lite", "")
		b.chmod("/etc/init.d/lite", 0o700)
	}, Pass, ""},
	{"4.1.1", "no service", func(b *bed) { os.Remove(b.path(layout.Default().Host.SystemdUnit)) }, Inapplicable, ""},
	{"4.1.2", "somebody's unit", func(b *bed) { b.owners[layout.Default().Host.SystemdUnit] = 1000 }, Fail, "user 1000"},
	{"4.1.3", "for all", func(b *bed) { b.chmod("/var/lib/lite/agent/kubelet.conf", 0o644) }, Fail, "mode 0644"},
	{"4.1.4", "somebody's", func(b *bed) { b.owners["/var/lib/lite/agent/kubelet.conf"] = 5 }, Fail, "user 5"},
	{"4.1.5", "for a group", func(b *bed) { b.chmod("/var/lib/lite/agent/kubelet.conf", 0o640) }, Fail, "mode 0640"},
	{"4.1.6", "somebody's", func(b *bed) { b.owners["/var/lib/lite/agent/kubelet.conf"] = 5 }, Fail, "user 5"},
	{"4.1.7", "for all to write", func(b *bed) { b.chmod("/var/lib/lite/server/pki/ca.crt", 0o646) }, Fail, "mode 0646"},
	{"4.1.8", "somebody's", func(b *bed) { b.owners["/var/lib/lite/server/pki/ca.crt"] = 5 }, Fail, "user 5"},
	{"4.1.9", "a file for all", func(b *bed) {
		b.write("/etc/lite/kubelet.yaml", "")
		b.chmod("/etc/lite/kubelet.yaml", 0o644)
		b.with(kubeletPart, "--config=/etc/lite/kubelet.yaml")
	}, Fail, "/etc/lite/kubelet.yaml has mode 0644"},
	{"4.1.9", "a drop-in for all", func(b *bed) {
		b.write("/etc/lite/kubelet.d/a.conf", "")
		b.chmod("/etc/lite/kubelet.d/a.conf", 0o644)
		b.with(kubeletPart, "--config-dir=/etc/lite/kubelet.d")
	}, Fail, "/etc/lite/kubelet.d/a.conf has mode 0644"},
	{"4.1.10", "somebody's file", func(b *bed) {
		b.write("/etc/lite/kubelet.yaml", "")
		b.owners["/etc/lite/kubelet.yaml"] = 1000
		b.with(kubeletPart, "--config=/etc/lite/kubelet.yaml")
	}, Fail, "user 1000"},
	{"4.1.10", "a file of root's", func(b *bed) {
		b.write("/etc/lite/kubelet.yaml", "")
		b.with(kubeletPart, "--config=/etc/lite/kubelet.yaml")
	}, Pass, ""},

	{"4.2.1", "everybody", func(b *bed) { b.kubeletSays(`{"authentication": {"anonymous": {"enabled": true}}}`) }, Fail, "enabled is true"},
	{"4.2.1", "not set", func(b *bed) { b.kubeletSays(`{"authentication": {}}`) }, Fail, "enabled is true"},
	{"4.2.2", "everybody", func(b *bed) { b.kubeletSays(`{"authorization": {"mode": "AlwaysAllow"}}`) }, Fail, "AlwaysAllow"},
	{"4.2.3", "nobody", func(b *bed) { b.kubeletSays(`{"authentication": {"x509": {}}}`) }, Fail, "is not set"},
	{"4.2.4", "open", func(b *bed) { b.kubeletSays(`{"readOnlyPort": 10255}`) }, Fail, "10255"},
	{"4.2.5", "never", func(b *bed) { b.kubeletSays(`{"streamingConnectionIdleTimeout": "0s"}`) }, Fail, "0s"},
	{"4.2.6", "off", func(b *bed) { b.kubeletSays(`{"makeIPTablesUtilChains": false}`) }, Fail, "is false"},
	{"4.2.7", "the machine's", func(b *bed) { b.without(kubeletPart, "hostname-override") }, Pass, ""},
	{"4.2.8", "few", func(b *bed) { b.kubeletSays(`{"eventRecordQPS": 5}`) }, Decide, "less than the default"},
	{"4.2.8", "all", func(b *bed) { b.kubeletSays(`{"eventRecordQPS": 0}`) }, Pass, ""},
	{"4.2.9", "its own", func(b *bed) { b.kubeletSays(`{"tlsCertFile": ""}`) }, Fail, "signed itself"},
	{"4.2.9", "the cluster's", func(b *bed) { b.kubeletSays(`{"tlsCertFile": "", "serverTLSBootstrap": true}`) }, Pass, ""},
	{"4.2.10", "off on an agent", func(b *bed) { b.Role = config.Agent }, Fail, "rotateCertificates is false"},
	{"4.2.10", "on", func(b *bed) { b.Role = config.Agent; b.kubeletSays(`{"rotateCertificates": true}`) }, Pass, ""},
	{"4.2.11", "off", func(b *bed) { b.with(kubeletPart, "--feature-gates=RotateKubeletServerCertificate=false") }, Fail, "RotateKubeletServerCertificate"},
	{"4.2.11", "on an agent", func(b *bed) { b.Role = config.Agent; b.kubeletSays(`{"serverTLSBootstrap": true}`) }, Pass, ""},
	{"4.2.12", "Go's own", func(b *bed) { b.kubeletSays(`{"tlsCipherSuites": null}`) }, Fail, "CBC_SHA"},
	{"4.2.13", "none", func(b *bed) { b.kubeletSays(`{"podPidsLimit": -1}`) }, Fail, "is not set"},
	{"4.2.14", "off", func(b *bed) { b.kubeletSays(`{"seccompDefault": false}`) }, Fail, "is false"},
	{"4.3.1", "everywhere", func(b *bed) {
		b.Components[proxyPart] = component.Settings{Configuration: json.RawMessage(`{"metricsBindAddress": "0.0.0.0:10249"}`)}
	}, Fail, "0.0.0.0:10249"},
	{"4.3.1", "a name", func(b *bed) {
		b.Components[proxyPart] = component.Settings{Configuration: json.RawMessage(`{"metricsBindAddress": "node-a:10249"}`)}
	}, Fail, "node-a"},
	{"4.3.1", "nowhere", func(b *bed) { b.Components[proxyPart] = component.Settings{Configuration: json.RawMessage(`{}`)} }, Pass, ""},
	{"4.3.1", "another's", func(b *bed) { delete(b.Components, proxyPart) }, Inapplicable, ""},

	{"5.1.1", "a user", func(b *bed) {
		b.Objects.ClusterRoleBindings = append(b.Objects.ClusterRoleBindings, rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "a"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "cluster-admin"}, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "n", Name: "s"}},
		})
	}, Decide, "ServiceAccount n/s by ClusterRoleBinding a"},
	{"5.1.1", "one more in Kubernetes' own binding", func(b *bed) {
		for i, c := range b.Objects.ClusterRoleBindings {
			if c.Name == "cluster-admin" {
				b.Objects.ClusterRoleBindings[i].Subjects = append(slices.Clone(c.Subjects), rbacv1.Subject{Kind: "User", Name: "eve"})
			}
		}
	}, Decide, "User eve by ClusterRoleBinding cluster-admin"},
	{"5.1.2", "a user", func(b *bed) { b.bind(rule("", "secrets", "list")) }, Decide, "User jane"},
	{"5.1.2", "everybody, by a role of Kubernetes'", func(b *bed) {
		for i, c := range b.Objects.ClusterRoles {
			if c.Name == "system:basic-user" {
				b.Objects.ClusterRoles[i].Rules = append(slices.Clone(c.Rules), rule("", "*", "get"))
			}
		}
	}, Decide, "Group system:authenticated by ClusterRoleBinding system:basic-user"},
	{"5.1.2", "in one namespace", func(b *bed) {
		b.Objects.Roles = append(b.Objects.Roles, rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "r"}, Rules: []rbacv1.PolicyRule{rule("", "secrets", "watch")}})
		b.Objects.RoleBindings = append(b.Objects.RoleBindings, rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "b"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "r"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "joe"}}})
	}, Decide, "User joe by RoleBinding n/b"},
	{"5.1.2", "other things", func(b *bed) { b.bind(rule("", "configmaps", "get"), rule("apps", "secrets", "get")) }, Pass, ""},
	{"5.1.3", "a star", func(b *bed) { b.bind(rule("", "*", "get")) }, Decide, "ClusterRole more"},
	{"5.1.4", "a user", func(b *bed) { b.bind(rule("", "pods", "create")) }, Decide, "User jane"},
	{"5.1.5", "one more", func(b *bed) {
		b.Objects.ServiceAccounts = append(b.Objects.ServiceAccounts, corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}})
	}, Decide, "1 of 3 give pods their token, in: shop"},
	{"5.1.6", "a pod that has none", func(b *bed) { b.pod("p", func(*corev1.Pod) {}) }, Pass, ""},
	{"5.1.6", "a pod that says so", func(b *bed) {
		b.pod("p", func(p *corev1.Pod) { yes := true; p.Spec.AutomountServiceAccountToken = &yes })
	}, Decide, "default/p"},
	{"5.1.6", "an account that says nothing", func(b *bed) { b.pod("p", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "other" }) }, Decide, "1 of 1 pod have a token: default/p"},
	{"5.1.7", "one more binding", func(b *bed) {
		b.Objects.RoleBindings = append(b.Objects.RoleBindings, rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "b"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "r"}, Subjects: []rbacv1.Subject{{Kind: "Group", Name: "system:masters"}}})
	}, Decide, "RoleBinding n/b"},
	{"5.1.8", "impersonate", func(b *bed) { b.bind(rule("", "users", "impersonate")) }, Decide, "User jane"},
	{"5.1.8", "escalate", func(b *bed) { b.bind(rule(rbacv1.GroupName, "clusterroles", "escalate")) }, Decide, "User jane"},
	{"5.1.9", "volumes", func(b *bed) { b.bind(rule("", "persistentvolumes", "create")) }, Decide, "User jane"},
	{"5.1.10", "kubelets", func(b *bed) { b.bind(rule("", "nodes/proxy", "get")) }, Decide, "User jane"},
	{"5.1.11", "certificates", func(b *bed) { b.bind(rule("certificates.k8s.io", "*/approval", "update")) }, Decide, "User jane"},
	{"5.1.12", "webhooks", func(b *bed) { b.bind(rule("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "patch")) }, Decide, "User jane"},
	{"5.1.13", "tokens", func(b *bed) { b.bind(rule("", "serviceaccounts/token", "create")) }, Decide, "User jane"},

	{"5.2.1", "nothing enforced", func(b *bed) { b.without(apiserverPart, "admission-control-config-file") }, Decide, "enforces nothing in: default"},
	{"5.2.1", "off", func(b *bed) { b.with(apiserverPart, "--disable-admission-plugins=PodSecurity") }, Decide, "PodSecurity is off"},
	{"5.2.1", "a label", func(b *bed) {
		b.without(apiserverPart, "admission-control-config-file")
		b.Objects.Namespaces[0].Labels = map[string]string{enforceLabel: "baseline"}
	}, Pass, ""},
	{"5.2.1", "a default in a file of its own", func(b *bed) {
		b.write("/var/lib/lite/server/admission.yaml", "plugins: [{name: PodSecurity, path: pods.yaml}]\n")
		b.write("/var/lib/lite/server/pods.yaml", "defaults: {enforce: baseline}\n")
	}, Pass, ""},
	{"5.2.1", "a namespace that is let be", func(b *bed) {
		b.write("/var/lib/lite/server/admission.yaml", strings.Replace(podDefault, "[kube-system]", "[default]", 1))
	}, Decide, "in: default"},
	{"5.2.1", "a label that takes it back", func(b *bed) { b.Objects.Namespaces[0].Labels = map[string]string{enforceLabel: "privileged"} }, Decide, "in: default"},
	{"5.2.2", "one that was there before", func(b *bed) {
		b.pod("p", func(p *corev1.Pod) {
			yes := true
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
		})
	}, Decide, "1 pod is privileged: default/p"},
	{"5.2.2", "nothing enforced", func(b *bed) { b.without(apiserverPart, "admission-control-config-file") }, Decide, "no pod is privileged; Pod Security enforces less than baseline in: default"},
	{"5.2.3", "a pod", func(b *bed) { b.pod("p", func(p *corev1.Pod) { p.Spec.HostPID = true }) }, Decide, "default/p"},
	{"5.2.4", "a pod", func(b *bed) { b.pod("p", func(p *corev1.Pod) { p.Spec.HostIPC = true }) }, Decide, "default/p"},
	{"5.2.5", "a pod", func(b *bed) { b.pod("p", func(p *corev1.Pod) { p.Spec.HostNetwork = true }) }, Decide, "default/p"},
	{"5.2.6", "an init container", func(b *bed) {
		b.pod("p", func(p *corev1.Pod) {
			yes := true
			p.Spec.InitContainers = []corev1.Container{{SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &yes}}}
		})
	}, Decide, "default/p"},
	{"5.2.6", "baseline", func(b *bed) { b.Objects.Namespaces[0].Labels = map[string]string{enforceLabel: "baseline"} }, Decide, "less than restricted in: default"},
	{"5.2.7", "baseline", func(b *bed) { b.Objects.Namespaces[0].Labels = map[string]string{enforceLabel: "baseline"} }, Decide, "less than restricted in: default"},
	{"5.2.8", "baseline", func(b *bed) { b.Objects.Namespaces[0].Labels = map[string]string{enforceLabel: "baseline"} }, Decide, "less than restricted in: default"},
	{"5.2.9", "an ephemeral container", func(b *bed) {
		b.pod("p", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}}},
			}}}
		})
	}, Decide, "adds capabilities: default/p"},
	{"5.2.11", "a pod", func(b *bed) {
		b.pod("p", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		})
	}, Decide, "default/p"},
	{"5.2.12", "a pod", func(b *bed) {
		b.pod("p", func(p *corev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}} })
	}, Decide, "default/p"},

	{"5.3.1", "disabled", func(b *bed) { delete(b.Components, policyPart) }, Decide, "disabled"},
	{"5.3.2", "one without", func(b *bed) { b.Objects.Policies = b.Objects.Policies[:1] }, Decide, "no NetworkPolicy in: kube-system"},
	{"5.4.1", "a variable", func(b *bed) {
		b.pod("p", func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "k"}}}}
		})
	}, Decide, "1 of 1 pod take Secrets as variables: default/p"},
	{"5.5.1", "off", func(b *bed) { b.with(apiserverPart, "--disable-admission-plugins=ImagePolicyWebhook") }, Decide, "ImagePolicyWebhook is off"},
	{"5.6.1", "one more", func(b *bed) {
		b.Objects.Namespaces = append(b.Objects.Namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	}, Decide, "2 namespaces of users: default, shop"},
	{"5.6.2", "a pod without", func(b *bed) { b.pod("p", func(*corev1.Pod) {}) }, Decide, "1 of 1 pod set none: default/p"},
	{"5.6.2", "a pod with", func(b *bed) {
		b.pod("p", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
		})
	}, Decide, "0 of 1 pod"},
	{"5.6.3", "a pod without", func(b *bed) {
		b.pod("p", func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{} })
	}, Decide, "1 of 1 pod have none"},
	{"5.6.4", "a pod", func(b *bed) { b.pod("p", func(*corev1.Pod) {}) }, Decide, "1 of 1 pod are there: default/p"},
}

func TestEntries(t *testing.T) {
	for _, c := range cases {
		t.Run(c.number+" "+c.name, func(t *testing.T) {
			b := hardened(t)
			c.do(b)
			r := b.one(c.number)
			if r.Status != c.status || !strings.Contains(r.Seen+" "+r.Remedy, c.seen) {
				t.Errorf("got %s: %s → %s, want %s with %q", r.Status, r.Seen, r.Remedy, c.status, c.seen)
			}
			if r.Status == Fail && (r.Reason == "" || r.Remedy == "") {
				t.Errorf("fails without a reason or a remedy: %+v", r)
			}
		})
	}
}

// Every entry that a program is to judge has an input that makes it fail. A node of
// lite has nothing that the first eight are about.
func TestEveryAutomatedEntryCanFail(t *testing.T) {
	for _, e := range entries() {
		fails := slices.ContainsFunc(cases, func(c example) bool { return c.number == e.number && c.status == Fail })
		if e.kind == Automated && e.reason != inProcess && !fails {
			t.Errorf("nothing in cases makes %s %s fail", e.number, e.title)
		}
	}
}

// Where lite does not run, files are judged, and nothing else passes.
func TestStopped(t *testing.T) {
	b := hardened(t)
	b.Components, b.Objects = nil, nil
	r := Judge(b.Node)
	for _, e := range r.Entries {
		ofFiles := strings.HasPrefix(e.Number, "1.1.") || strings.HasPrefix(e.Number, "4.1.") && e.Number != "4.1.9" && e.Number != "4.1.10" || e.Number == "5.2.10"
		switch {
		case ofFiles && e.Status == Unknown, !ofFiles && e.Status != Unknown:
			t.Errorf("%s is %s: %s", e.Number, e.Status, e.Seen)
		case !ofFiles && (e.Remedy != "start lite" || e.Seen != "lite does not run" && e.Seen != "the API server does not answer"):
			t.Errorf("%s: seen %q, remedy %q", e.Number, e.Seen, e.Remedy)
		}
	}
	if !r.Failed() {
		t.Error("what could not be looked at counts as met")
	}
	b.chmod("/var/lib/lite/server/pki/ca.key", 0o644)
	if got := b.one("1.1.21"); got.Status != Fail {
		t.Errorf("got %+v", got)
	}
}

func TestAgent(t *testing.T) {
	b := hardened(t)
	b.Role, b.Objects = config.Agent, nil
	for _, part := range []string{apiserverPart, controllerPart, schedulerPart, etcdPart} {
		delete(b.Components, part)
	}
	b.write("/var/lib/lite/agent/ca.crt", "")
	b.kubeletSays(`{"rotateCertificates": true, "serverTLSBootstrap": true, "tlsCertFile": "", "authentication": {"anonymous": {"enabled": false}, "x509": {"clientCAFile": "/var/lib/lite/agent/ca.crt"}}}`)
	r := Judge(b.Node)
	if len(r.Entries) != 25 || r.Failed() || r.Totals[Unknown] != 0 {
		t.Errorf("%d entries, %v", len(r.Entries), r.Totals)
	}
	for _, e := range r.Entries {
		if SectionOf(e.Number)[0] != '4' {
			t.Errorf("an agent is judged by %s", e.Number)
		}
	}
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil || !strings.Contains(out.String(), "run `lite check --cis` on a server too") {
		t.Errorf("%v\n%s", err, out.String())
	}
	b.Components = nil // the authority is found where an agent has it
	b.chmod("/var/lib/lite/agent/ca.crt", 0o666)
	if got := b.one("4.1.7"); got.Status != Fail || !strings.Contains(got.Seen, "/var/lib/lite/agent/ca.crt") {
		t.Errorf("got %+v", got)
	}
}

// Names come from whoever may make objects, and files from whoever may write there.
func TestNamesStayOneLine(t *testing.T) {
	b := hardened(t)
	b.bind(rule("", "secrets", "get"))
	for range 9 {
		last := b.Objects.ClusterRoleBindings[len(b.Objects.ClusterRoleBindings)-1]
		last.Subjects = []rbacv1.Subject{{Kind: "User", Name: "a\nfail  1.1.1\x00\x1b[2J"}}
		b.Objects.ClusterRoleBindings = append(b.Objects.ClusterRoleBindings, last)
	}
	r := Judge(b.Node)
	got := b.one("5.1.2")
	if strings.ContainsAny(got.Seen, "\n\x00\x1b") || !strings.HasSuffix(got.Seen, "and 5 others") {
		t.Errorf("seen %q", got.Seen)
	}
	var out bytes.Buffer
	if err := r.WriteJUnit(&out); err != nil {
		t.Fatal(err)
	}
	var parsed testSuites
	if err := xml.Unmarshal(out.Bytes(), &parsed); err != nil {
		t.Errorf("no program can read it: %v", err)
	}
}

func TestJUnit(t *testing.T) {
	b := hardened(t)
	b.with(apiserverPart, "--profiling=true")
	delete(b.Components, etcdPart)
	b.Components[proxyPart] = component.Settings{} // reports no configuration
	r := Judge(b.Node)
	var out bytes.Buffer
	if err := r.WriteJUnit(&out); err != nil {
		t.Fatal(err)
	}
	var all testSuites
	if err := xml.Unmarshal(out.Bytes(), &all); err != nil {
		t.Fatal(err)
	}
	if all.Tests != 131 || all.Failures != 1 || all.Errors != 1 || all.Skipped != r.Totals[Decide]+r.Totals[Inapplicable] || len(all.Suites) != len(Sections) {
		t.Errorf("%d tests, %d failures, %d errors, %d skipped, %d suites of %v", all.Tests, all.Failures, all.Errors, all.Skipped, len(all.Suites), r.Totals)
	}
	for _, s := range all.Suites {
		for _, c := range s.Cases {
			if strings.HasPrefix(c.Name, "1.2.15 ") && (c.Failure == nil || c.Failure.Message != "--profiling=true" || !strings.Contains(c.Failure.Text, "remove `profiling`")) {
				t.Errorf("got %+v", c.Failure)
			}
			if strings.HasPrefix(c.Name, "4.3.1 ") && c.Error == nil {
				t.Errorf("got %+v", c)
			}
		}
	}
}

func TestText(t *testing.T) {
	b := hardened(t)
	b.with(apiserverPart, "--profiling=true")
	var out bytes.Buffer
	if err := Judge(b.Node).WriteText(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"1.2 API server\n", "\npass            1.2.2   No token file lets anybody in\n",
		"\nfail            1.2.15  Profiling of the API server is off\n                        --profiling=true\n", "\n                        → remove `profiling` from `kube-apiserver-arg`",
		"\nCIS Kubernetes Benchmark 1.12, server node-a, 131 entries: ", " 1 fail, ", " 0 unknown.\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// Objects are read in pages, and an error names their kind.
func TestAsk(t *testing.T) {
	pod := func(name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}}
	}
	client := fake.NewClientset(pod("one"))
	client.PrependReactor("list", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.(clienttesting.ListActionImpl).ListOptions.Continue == "" {
			return true, &corev1.PodList{ListMeta: metav1.ListMeta{Continue: "two"}, Items: []corev1.Pod{*pod("one")}}, nil
		}
		return true, &corev1.PodList{Items: []corev1.Pod{*pod("two")}}, nil
	})
	o, err := ReadObjects(t.Context(), client)
	if err != nil || len(o.Pods) != 2 {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, a := range client.Actions() {
		if a.GetResource().Resource == "secrets" || a.GetResource().Resource == "configmaps" || a.GetVerb() != "list" {
			t.Errorf("%s %s", a.GetVerb(), a.GetResource().Resource)
		}
	}
	client.PrependReactor("list", "networkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("not now")
	})
	if _, err := ReadObjects(t.Context(), client); err == nil || err.Error() != "list NetworkPolicies: not now" {
		t.Errorf("got %v", err)
	}
}
