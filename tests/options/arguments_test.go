package options

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/check/cis"
	"lite.io/lite/tests/harness/cluster"
)

const (
	clusterInfo = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
	kubeletHead = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
	authnHead   = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
)

// ask asks the API server, with a token unless it is "", and returns the status.
func ask(t *testing.T, n *cluster.Node, path, token string) int {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return n.DialContext(ctx, network, n.IP+":6443")
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // who answers does not matter
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+n.IP+":6443"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

// TestAnonymousAccess says of anonymous requests all that a user can, from start to
// start: the server becomes ready each time, an agent joins where none are allowed, and
// stays; and nothing is open that was not asked for.
func TestAnonymousAccess(t *testing.T) {
	t.Parallel()
	c := &cluster.Cluster{Network: cluster.NewNetwork(t)}
	n := cluster.NewNode(t, cluster.On(c.Network))
	c.Servers = append(c.Servers, n)
	const file = "/etc/lite/authentication.yaml"
	const issuer = "https://10.99.0.250:8443" // nobody is there
	var agent *cluster.Node
	for _, test := range []struct {
		name string
		file string
		args []string
		open []string // of the paths below
	}{
		{"off", "", []string{"anonymous-auth=false"}, nil},
		{"the public report", authnHead + "anonymous:\n  enabled: true\n  conditions:\n  - path: /livez\n  - path: /readyz\n", nil, []string{"/livez", "/readyz"}},
		{"off by a file", authnHead + "anonymous: {enabled: false}\n", nil, nil},
		{"a file that does not say", authnHead + "jwt:\n- issuer: {url: '" + issuer + "', audiences: [a]}\n  claimMappings: {username: {claim: sub, prefix: ''}}\n", nil,
			[]string{"/livez", "/readyz", "/healthz", clusterInfo}},
		{"OIDC", "", []string{"oidc-issuer-url=" + issuer, "oidc-client-id=a", "oidc-username-claim=email"}, []string{"/livez", "/readyz", "/healthz", clusterInfo}},
		{"OIDC, nobody else", "", []string{"oidc-issuer-url=" + issuer, "oidc-client-id=a", "anonymous-auth=false"}, nil},
	} {
		var args []string
		if test.file != "" {
			n.WriteFile(t, file, test.file)
			args = append(args, "--kube-apiserver-arg=authentication-config="+file)
		}
		for _, arg := range test.args {
			args = append(args, "--kube-apiserver-arg="+arg)
		}
		n.Start(t, args...)
		open := map[string]bool{}
		for _, path := range test.open {
			open[path] = true
		}
		for _, path := range []string{"/livez", "/readyz", "/healthz", clusterInfo, "/version", "/api", "/api/v1/namespaces/kube-public/configmaps", "/openid/v1/jwks"} {
			want := http.StatusUnauthorized
			if open[path] {
				want = http.StatusOK
			}
			if got := ask(t, n, path, ""); got != want {
				t.Errorf("%s: %s answers %d, want %d", test.name, path, got, want)
			}
		}
		if agent == nil {
			agent = joinsWithoutAnonymous(t, c)
		}
		eventually(t, func() error {
			got := n.Kubectl(t, "get", "node", agent.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
			if got != "True" {
				return fmt.Errorf("%s: the agent's Ready is %q", test.name, got)
			}
			return nil
		})
		n.Stop(t)
	}
}

// joinsWithoutAnonymous is an agent that has joined a server that allows no anonymous
// requests, after it was told why a token without a hash does not do.
func joinsWithoutAnonymous(t *testing.T, c *cluster.Cluster) *cluster.Node {
	t.Helper()
	n := c.Server()
	token := strings.TrimSpace(n.Output(t, "lite", "token", "create"))
	agent := c.NewAgent(t)
	short, _, _ := strings.Cut(strings.TrimPrefix(token, "lite://"), "@")
	if said := failedStart(t, agent, "--token", short, "--server", "https://"+n.IP+":6443"); !strings.Contains(said, "allows no anonymous requests") || !strings.Contains(said, "lite://") {
		t.Errorf("a token without a hash: %s", said)
	}
	_, id, _ := strings.Cut(token, "lite://")
	ended := strings.Replace(token, id[:6], "zzzzzz", 1)
	if said := failedStart(t, agent, "--token", ended); !strings.Contains(said, "does not accept the token zzzzzz") || !strings.Contains(said, "lite token create") {
		t.Errorf("a token that is none: %s", said)
	}
	if said := failedStart(t, agent, "--token", token, "--kubelet-arg=max-podz=1"); !strings.Contains(said, "unknown flag: --max-podz") {
		t.Errorf("an argument that is wrong: %s", said)
	}
	if _, err := os.Stat(agent.Path(cluster.DataDir + "/agent/ca.crt")); err == nil {
		t.Error("an agent with a wrong argument has begun to join")
	}
	agent.Start(t, "--token", token)
	return agent
}

// failedStart is what a start says that is to fail.
func failedStart(t *testing.T, n *cluster.Node, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	said, err := n.Command(ctx, "lite", append([]string{n.Role}, args...)...).CombinedOutput()
	if err == nil || ctx.Err() != nil {
		t.Fatalf("lite %s %q ended with %v: %s", n.Role, args, err, said)
	}
	return string(said)
}

// TestComponentConfiguration gives the components files of their own, which are in
// force, together with what lite says; and lists that add to lite's.
func TestComponentConfiguration(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	n.WriteFile(t, "/etc/lite/kubelet.yaml", kubeletHead+"maxPods: 42\nevictionHard:\n  memory.available: 77Mi\ncontainerLogMaxSize: 1Mi\nimageMaximumGCAge: 13h\ncrashLoopBackOff: {maxContainerRestartPeriod: 31s}\n")
	n.WriteFile(t, "/etc/lite/kubelet.d/20-pods.conf", kubeletHead+"maxPods: 44\npodPidsLimit: 999\n")
	n.WriteFile(t, "/etc/lite/kubelet.d/10-pods.conf", kubeletHead+"maxPods: 43\ncontainerLogMaxFiles: 7\n")
	n.WriteFile(t, "/etc/lite/scheduler.yaml", "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n- schedulerName: default-scheduler\n- schedulerName: second\n")
	n.WriteFile(t, "/etc/lite/kube-proxy.yaml", "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: iptables\n")
	n.WriteFile(t, "/etc/lite/config.yaml", `
kubelet-arg: [config=/etc/lite/kubelet.yaml, config-dir=/etc/lite/kubelet.d, image-gc-high-threshold=91]
kube-scheduler-arg: [config=/etc/lite/scheduler.yaml]
kube-proxy-arg: [config=/etc/lite/kube-proxy.yaml]
kube-apiserver-arg: [enable-admission-plugins=LimitPodHardAntiAffinityTopology, service-account-issuer=https://issuer.test]
`)
	n.Output(t, "sed", "-i", "s/^kube-apiserver-arg: ./&anonymous-auth=true, profiling=true, /", "/etc/lite/config.yaml") // for cis to find
	n.Start(t)
	t.Run("kubelet", func(t *testing.T) { kubeletHas(t, n, 44) })
	t.Run("admission", func(t *testing.T) { admits(t, n) })
	t.Run("cis", func(t *testing.T) { judgedByWhatTheyWereTold(t, n) })
	t.Run("scheduler", func(t *testing.T) { schedules(t, n) })
	t.Run("kube-proxy", func(t *testing.T) {
		if rules := n.Output(t, "nft", "list", "ruleset"); !strings.Contains(rules, "KUBE-SERVICES") || strings.Contains(rules, "table ip kube-proxy") {
			t.Errorf("kube-proxy uses no iptables:\n%s", rules)
		}
	})
	n.Stop(t)
	n.WriteFile(t, "/etc/lite/kubelet.d/20-pods.conf", kubeletHead+"maxPods: 45\n")
	// Authorities that know nobody who asks how these do.
	const other = cluster.DataDir + "/server/pki/etcd/ca.crt"
	n.Start(t, "--kube-controller-manager-arg=client-ca-file="+other, "--kube-controller-manager-arg=authorization-always-allow-paths=/healthz",
		"--kube-scheduler-arg=config=/etc/lite/scheduler.yaml", "--kube-scheduler-arg=client-ca-file="+other)
	t.Run("kubelet, changed", func(t *testing.T) { kubeletHas(t, n, 45) })
	n.Stop(t)
}

func kubeletHas(t *testing.T, n *cluster.Node, maxPods int) {
	var configz struct {
		KubeletConfig struct {
			MaxPods                     int
			EvictionHard                map[string]string
			ContainerLogMaxSize         string
			ContainerLogMaxFiles        int
			ImageMaximumGCAge           string
			ImageGCHighThresholdPercent int
			CrashLoopBackOff            struct{ MaxContainerRestartPeriod string }
			ClusterDomain               string
		}
	}
	answer := n.Kubectl(t, "get", "--raw", "/api/v1/nodes/"+n.Name+"/proxy/configz")
	if err := json.Unmarshal([]byte(answer), &configz); err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	k := configz.KubeletConfig
	if k.MaxPods != maxPods || len(k.EvictionHard) != 1 || k.EvictionHard["memory.available"] != "77Mi" || k.ContainerLogMaxSize != "1Mi" || k.ContainerLogMaxFiles != 7 ||
		k.ImageMaximumGCAge != "13h0m0s" || k.ImageGCHighThresholdPercent != 91 || k.CrashLoopBackOff.MaxContainerRestartPeriod != "31s" || k.ClusterDomain != "cluster.local" {
		t.Errorf("got %+v", k)
	}
	eventually(t, func() error {
		if got := n.Kubectl(t, "get", "node", n.Name, "-o", "jsonpath={.status.capacity.pods}"); got != fmt.Sprint(maxPods) {
			return errors.New("the node has room for " + got + " pods")
		}
		return nil
	})
}

// admits: the user's plugin is on, and lite's as well.
func admits(t *testing.T, n *cluster.Node) {
	ns := n.Namespace(t)
	for plugin, object := range map[string]string{
		"AntiAffinity": "apiVersion: v1\nkind: Pod\nmetadata: {name: alone}\nspec:\n  containers: [{name: c, image: i}]\n" +
			"  affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {}}]}}\n",
		"external IPs": "apiVersion: v1\nkind: Service\nmetadata: {name: external}\nspec: {externalIPs: [192.0.2.1], ports: [{port: 80}]}\n",
	} {
		said, err := ns.ApplyErr(t, object)
		if err == nil || !strings.Contains(said, plugin) {
			t.Errorf("the plugin that refuses %s is not on: %v %s", plugin, err, said)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answer, err := n.Command(ctx, "lite", "kubectl", "--kubeconfig", cluster.DataDir+"/agent/kubelet.conf", "label", "node", n.Name, "node-restriction.kubernetes.io/a=b").CombinedOutput()
	if err == nil || !strings.Contains(string(answer), "is not allowed to modify labels") {
		t.Errorf("NodeRestriction is not on: %v %s", err, answer)
	}
	token := strings.TrimSpace(ns.Kubectl(t, "create", "token", "default"))
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil || !strings.Contains(string(claims), `"iss":"https://issuer.test"`) {
		t.Errorf("a token of the user's issuer is %s (%v)", claims, err)
	}
	if got := ask(t, n, "/api", token); got != http.StatusOK {
		t.Errorf("a token of the user's issuer is answered %d", got)
	}
}

func schedules(t *testing.T, n *cluster.Node) {
	ns := n.Namespace(t)
	ns.Apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: second}
spec:
  schedulerName: second
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "lite.test/busybox:1", command: [sleep, "999"]}]
`)
	eventually(t, func() error {
		if got := ns.Field(t, "pod/second", ".spec.nodeName"); got != n.Name {
			return fmt.Errorf("the pod is on %q", got)
		}
		return nil
	})
}

// judgedByWhatTheyWereTold: lite check --cis sees what the user has said to components,
// by arguments and by files, and not what the configuration says by now.
func judgedByWhatTheyWereTold(t *testing.T, n *cluster.Node) {
	before := n.ReadFile(t, "/etc/lite/config.yaml")
	n.WriteFile(t, "/etc/lite/config.yaml", "")
	n.Output(t, "chmod", "644", "/etc/lite/kubelet.d/20-pods.conf")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := n.Command(ctx, "lite", "check", "--cis", "-o", "json").Output()
	n.WriteFile(t, "/etc/lite/config.yaml", before)
	if err == nil {
		t.Error("nothing fails")
	}
	var r cis.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for number, want := range map[string]struct {
		status cis.Status
		seen   string
	}{
		"1.2.1":  {cis.Fail, "--anonymous-auth=true"},
		"1.2.3":  {cis.Pass, "DenyServiceExternalIPs is on"},
		"1.2.14": {cis.Pass, "NodeRestriction is on"},
		"1.2.15": {cis.Fail, "--profiling=true"},
		"1.4.1":  {cis.Pass, "enableProfiling is false"},
		"4.1.9":  {cis.Fail, "/etc/lite/kubelet.d/20-pods.conf has mode 0644"},
		"4.2.13": {cis.Pass, "podPidsLimit is 999"},
		"4.3.1":  {cis.Pass, "metricsBindAddress is 127.0.0.1:10249"},
	} {
		i := slices.IndexFunc(r.Entries, func(e cis.Result) bool { return e.Number == number })
		if i < 0 || r.Entries[i].Status != want.status || !strings.Contains(r.Entries[i].Seen, want.seen) {
			t.Errorf("%s: want %s: %s, got %+v", number, want.status, want.seen, r.Entries[max(i, 0)])
		}
	}
}
