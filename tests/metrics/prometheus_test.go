package metrics

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"lite.io/lite/pkg/component/series"
	"lite.io/lite/tests/harness/cluster"
)

// document is the page that says how a Prometheus is led to the metrics: what stands there is what
// is tested.
const document = "../../docs/metrics.md"

// block is the block of YAML in the document that has a word in it, as a value.
func block[T any](t *testing.T, word string) (value T) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(text), "```yaml\n")[1:] {
		part, _, _ = strings.Cut(part, "```")
		if strings.Contains(part, word) {
			if err := yaml.UnmarshalStrict([]byte(part), &value); err != nil {
				t.Fatalf("%s: %v", document, err)
			}
			return value
		}
	}
	t.Fatalf("%s has no block with %s", document, word)
	return value
}

// configuration is what a node is told: of what the document says what its role knows, and more
// arguments for the controller manager.
func configuration(t *testing.T, role string, more ...string) string {
	t.Helper()
	said := block[map[string]any](t, "etcd-expose-metrics")
	if role == "agent" {
		said = map[string]any{"kube-proxy-arg": said["kube-proxy-arg"]}
	} else {
		const key = "kube-controller-manager-arg"
		args := said[key].([]any)
		for _, arg := range more {
			args = append(args, arg)
		}
		said[key] = args
	}
	text, err := yaml.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// values is what the document says to the chart.
type values struct {
	Prometheus struct {
		PrometheusSpec struct {
			ServiceDiscoveryRole string `json:"serviceDiscoveryRole"`
		} `json:"prometheusSpec"`
		AdditionalServiceMonitors []struct {
			Name              string              `json:"name"`
			JobLabel          string              `json:"jobLabel"`
			NamespaceSelector map[string][]string `json:"namespaceSelector"`
			Selector          struct {
				MatchLabels map[string]string `json:"matchLabels"`
			} `json:"selector"`
			Endpoints []map[string]string `json:"endpoints"`
		} `json:"additionalServiceMonitors"`
	} `json:"prometheus"`
	KubeControllerManager component `json:"kubeControllerManager"`
	KubeScheduler         component `json:"kubeScheduler"`
	KubeProxy             component `json:"kubeProxy"`
	KubeEtcd              component `json:"kubeEtcd"`
	CoreDNS               struct {
		Enabled bool `json:"enabled"`
	} `json:"coreDns"`
}

type component struct {
	Endpoints []string `json:"endpoints"`
}

// objects is what the chart makes of its values for a component that is no pod, and what the operator
// and Prometheus need besides.
func (s *suite) objects(t *testing.T, v values) string {
	t.Helper()
	if v.Prometheus.PrometheusSpec.ServiceDiscoveryRole != "EndpointSlice" || v.CoreDNS.Enabled {
		t.Fatalf("the test knows other values than %+v", v)
	}
	addresses := map[string]string{"192.0.2.10": s.server.IP, "192.0.2.11": s.agent.IP}
	var out strings.Builder
	for name, c := range map[string]struct {
		component
		port int
	}{
		"kube-controller-manager": {v.KubeControllerManager, 10257}, "kube-scheduler": {v.KubeScheduler, 10259},
		"kube-proxy": {v.KubeProxy, 10249}, "kube-etcd": {v.KubeEtcd, 2381},
	} {
		var ips []string
		for _, e := range c.Endpoints {
			ips = append(ips, "{ip: "+addresses[e]+"}")
		}
		fmt.Fprintf(&out, `---
apiVersion: v1
kind: Service
metadata: {name: stack-%[1]s, namespace: kube-system, labels: {app: stack-%[1]s, jobLabel: %[1]s}}
spec: {clusterIP: None, type: ClusterIP, ports: [{name: http-metrics, port: %[2]d, protocol: TCP, targetPort: %[2]d}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: stack-%[1]s, namespace: kube-system, labels: {app: stack-%[1]s, k8s-app: %[1]s}}
subsets: [{addresses: [%[3]s], ports: [{name: http-metrics, port: %[2]d, protocol: TCP}]}]
`, name, c.port, strings.Join(ips, ", "))
	}
	return out.String()
}

// targets is what a Prometheus finds that looks for EndpointSlices: Debian's is built without that.
func (s *suite) targets(t *testing.T, namespace string, labels map[string]string, port string) string {
	t.Helper()
	var selector []string
	for name, value := range labels {
		selector = append(selector, name+"="+value)
	}
	var targets []string
	cluster.Eventually(t, timeout, func() error {
		service := s.server.Kubectl(t, "get", "services", "--namespace="+namespace, "--selector="+strings.Join(selector, ","), "-o", "jsonpath={.items[*].metadata.name}")
		out := s.server.Kubectl(t, "get", "endpointslices", "--namespace="+namespace, "--selector=kubernetes.io/service-name="+service, "-o", "json")
		var list struct {
			Items []struct {
				Endpoints []struct{ Addresses []string }
				Ports     []struct {
					Name string
					Port int
				}
			}
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		targets = nil
		for _, slice := range list.Items {
			for _, p := range slice.Ports {
				for _, e := range slice.Endpoints {
					if p.Name == port {
						targets = append(targets, fmt.Sprintf("'%s:%d'", e.Addresses[0], p.Port))
					}
				}
			}
		}
		if len(targets) == 0 {
			return fmt.Errorf("a Service with %v in %s has no endpoints with a port %s: %s", selector, namespace, port, out)
		}
		return nil
	})
	return "static_configs: [{targets: [" + strings.Join(targets, ", ") + "]}]"
}

// jobs is what the operator makes of the chart's ServiceMonitors, as far as it finds targets and
// reaches them.
func (s *suite) jobs(t *testing.T, v values) string {
	t.Helper()
	const token = "authorization: {credentials_file: /var/run/secrets/kubernetes.io/serviceaccount/token}"
	const anyCertificate = "scheme: https, tls_config: {insecure_skip_verify: true}, " + token
	all := []string{
		"job_name: apiserver, scheme: https, tls_config: {ca_file: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt, server_name: kubernetes}, " + token +
			", " + s.targets(t, "default", map[string]string{"component": "apiserver", "provider": "kubernetes"}, "https"),
	}
	nodes := fmt.Sprintf("static_configs: [{targets: ['%s:10250', '%s:10250']}]", s.server.IP, s.agent.IP)
	for job, path := range map[string]string{"kubelet": "/metrics", "cadvisor": "/metrics/cadvisor", "probes": "/metrics/probes", "resource": "/metrics/resource"} {
		all = append(all, "job_name: "+job+", metrics_path: "+path+", "+anyCertificate+", "+nodes)
	}
	for job, access := range map[string]string{
		"kube-controller-manager": anyCertificate, "kube-scheduler": anyCertificate, "kube-proxy": token, "kube-etcd": token,
	} {
		all = append(all, "job_name: "+job+", "+access+", "+s.targets(t, "kube-system", map[string]string{"app": "stack-" + job}, "http-metrics"))
	}
	for _, m := range v.Prometheus.AdditionalServiceMonitors {
		all = append(all, "job_name: "+m.Name+", "+s.targets(t, m.NamespaceSelector["matchNames"][0], m.Selector.MatchLabels, m.Endpoints[0]["port"]))
	}
	return "global: {scrape_interval: 3s, scrape_timeout: 3s}\nscrape_configs:\n- {" + strings.Join(all, "}\n- {") + "}\n"
}

// prometheus is it, with the rights that the chart gives it.
const prometheus = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-prometheus}
rules:
- {apiGroups: [""], resources: [nodes, nodes/metrics, services, endpoints, pods], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
- {nonResourceURLs: [/metrics, /metrics/cadvisor], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-prometheus}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: NAMESPACE}]
---
apiVersion: v1
kind: Pod
metadata: {name: prometheus}
spec:
  serviceAccountName: prometheus
  terminationGracePeriodSeconds: 0
  nodeName: NODE
  containers:
  - name: main
    image: lite.test/prometheus:1
    args: [--config.file=/etc/prometheus/prometheus.yml, --storage.tsdb.path=/tmp/data]
    readinessProbe: {httpGet: {port: 9090, path: /-/ready}, periodSeconds: 1}
    volumeMounts: [{name: config, mountPath: /etc/prometheus}]
  volumes: [{name: config, configMap: {name: prometheus}}]
`

// signatures is what only one job has, by how names begin.
var signatures = map[string][]string{
	"apiserver":               {"apiserver_", "watch_cache_", "etcd_request", "authentication_", "aggregator_", "apiextensions_", "kube_apiserver_", "field_validation_"},
	"kube-controller-manager": {"node_collector_", "pv_collector_", "endpoint_slice_controller_", "cronjob_controller_", "running_managed_controllers", "garbagecollector_", "job_controller_"},
	"kube-scheduler":          {"scheduler_"},
	"kubelet":                 {"kubelet_", "volume_manager_"},
	"kube-proxy":              {"kubeproxy_"},
	"kube-etcd":               {"etcd_server_", "etcd_disk_", "etcd_mvcc_", "etcd_debugging_", "etcd_network_"},
	"dns":                     {"coredns_"},
	"cadvisor":                {"container_cpu_user", "container_fs_", "machine_"},
	"probes":                  {"prober_"},
	"resource":                {"pod_cpu_usage_", "resource_scrape_error"},
}

// ask asks Prometheus.
func (s *suite) ask(t *testing.T, path string, answer any) error {
	t.Helper()
	out, err := s.ns.KubectlErr(t, "get", "--raw", "/api/v1/namespaces/"+s.ns.Name+"/pods/prometheus:9090/proxy/api/v1/"+path)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return json.Unmarshal([]byte(out), &struct{ Data any }{answer})
}

// names is the metrics that a job has, without those that Prometheus makes itself.
func (s *suite) names(t *testing.T, job string) []string {
	t.Helper()
	var names []string
	if err := s.ask(t, "label/__name__/values?match[]="+url.QueryEscape(`{job="`+job+`"}`), &names); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == "up" || strings.HasPrefix(n, "scrape_") })
}

// number is how many series a selector finds.
func (s *suite) number(t *testing.T, selector string) int {
	t.Helper()
	var answer struct{ Result []json.RawMessage }
	if err := s.ask(t, "query?query="+url.QueryEscape(selector), &answer); err != nil {
		t.Fatal(err)
	}
	return len(answer.Result)
}

// A real Prometheus, led by what the document says, finds every component, and at each its own.
func (s *suite) testPrometheus(t *testing.T) {
	v := block[values](t, "kubeControllerManager:")
	s.server.Output(t, "lite", "images", "import", cluster.ImageTarball(t, "prometheus"))
	s.server.KubectlStdin(t, s.objects(t, v), "apply", "-f", "-")
	config, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "prometheus"}, "data": map[string]string{"prometheus.yml": s.jobs(t, v)},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.ns.Apply(t, string(config))
	s.ns.Apply(t, strings.NewReplacer("NAMESPACE", s.ns.Name, "NODE", s.server.Name).Replace(prometheus))
	s.ns.WaitFor(t, "condition=Ready", "pod/prometheus")

	want := map[string]int{
		"apiserver": 1, "kubelet": 2, "cadvisor": 2, "probes": 2, "resource": 2, "kube-controller-manager": 1, "kube-scheduler": 1, "kube-proxy": 2,
		"kube-etcd": 1, "dns": 2,
	}
	cluster.Eventually(t, timeout, func() error {
		var targets struct {
			ActiveTargets []struct {
				Labels                       map[string]string
				ScrapeURL, LastError, Health string
			}
		}
		if err := s.ask(t, "targets?state=active", &targets); err != nil {
			return err
		}
		up, errs := map[string]int{}, []error{}
		for _, target := range targets.ActiveTargets {
			if target.Health != "up" {
				errs = append(errs, fmt.Errorf("%s is %s: %s", target.ScrapeURL, target.Health, target.LastError))
				continue
			}
			up[target.Labels["job"]]++
		}
		if !maps.Equal(up, want) {
			errs = append(errs, fmt.Errorf("up are %v, want %v", up, want))
		}
		return errors.Join(errs...)
	})
	for job := range want {
		names := s.names(t, job)
		t.Logf("%s: %d names, %d series", job, len(names), s.number(t, `{job="`+job+`"}`))
		checkNames(t, job, names)
	}
	for selector, want := range map[string]bool{
		`workqueue_depth{job="kube-controller-manager",name="deployment"}`:    true,
		`workqueue_depth{job="kube-controller-manager",name="crd_finalizer"}`: false,
		`workqueue_depth{job="apiserver",name="crd_finalizer"}`:               true,
		`workqueue_depth{job="apiserver",name="deployment"}`:                  false,
		`workqueue_depth{job=~"kubelet|kube-scheduler|kube-proxy|kube-etcd"}`: false,
		`rest_client_requests_total{job="kube-scheduler"}`:                    true,
		`kubelet_running_pods`:   true,
		`scheduler_pending_pods`: true,
		`kubeproxy_sync_proxy_rules_duration_seconds_count{job="kube-proxy"}`:                         true,
		`etcd_server_has_leader{job="kube-etcd"} == 1`:                                                true,
		`coredns_build_info{job="dns"}`:                                                               true,
		`apiserver_request_total{job="apiserver",resource="pods"}`:                                    true,
		`container_cpu_usage_seconds_total{job="cadvisor",container="main",pod=~"busy-.*",image!=""}`: true,
	} {
		if found := s.number(t, selector); (found > 0) != want {
			t.Errorf("%s finds %d series, want some: %v", selector, found, want)
		}
	}
	s.checkQueues(t)
	s.ns.Kubectl(t, "delete", "pod/prometheus")
}

// checkNames wants a job to have what is its own, and nothing of another.
func checkNames(t *testing.T, job string, names []string) {
	t.Helper()
	for other, begins := range signatures {
		found := slices.DeleteFunc(slices.Clone(names), func(n string) bool {
			return !slices.ContainsFunc(begins, func(begin string) bool { return strings.HasPrefix(n, begin) })
		})
		if other == job && len(found) == 0 {
			t.Errorf("%s has nothing that begins with %v: %v", job, begins, names)
		}
		if other != job && len(found) > 0 {
			t.Errorf("%s has what is of %s: %v", job, other, found)
		}
	}
	for _, n := range names {
		base := n
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			base = strings.TrimSuffix(base, suffix)
		}
		// What nobody is known to have is shown there.
		if job == "apiserver" && !series.Known(n) && !series.Known(base) {
			t.Errorf("whose is %s? package series does not know", n)
		}
	}
	if slices.Contains([]string{"cadvisor", "probes", "resource"}, job) {
		return
	}
	for _, n := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if !slices.Contains(names, n) {
			t.Errorf("%s has no %s", job, n)
		}
	}
}

// checkQueues shows whose queues are whose. There is no list of the controller manager's: what is
// there beside them has to be looked at.
func (s *suite) checkQueues(t *testing.T) {
	t.Helper()
	for _, job := range []string{"apiserver", "kube-controller-manager"} {
		var names []string
		if err := s.ask(t, "label/name/values?match[]="+url.QueryEscape(`workqueue_depth{job="`+job+`"}`), &names); err != nil {
			t.Fatal(err)
		}
		t.Logf("queues of %s: %v", job, names)
		if len(names) < 10 {
			t.Errorf("%s has the queues %v only", job, names)
		}
	}
}

// Nobody learns anything at the opened ports who may not.
func (s *suite) testOpenedPorts(t *testing.T) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: s.agent.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	status := func(address, token string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			return 0
		}
		response.Body.Close()
		return response.StatusCode
	}
	nobody := strings.TrimSpace(s.ns.Kubectl(t, "create", "token", "default"))
	for address, want := range map[string]int{
		"https://" + s.server.IP + ":10257/metrics": http.StatusForbidden,
		"https://" + s.server.IP + ":10257/configz": http.StatusForbidden,
		"https://" + s.server.IP + ":10259/metrics": http.StatusForbidden,
		"https://" + s.server.IP + ":10259/readyz":  http.StatusOK,
		"https://" + s.server.IP + ":6443/metrics":  http.StatusUnauthorized,
		"https://" + s.agent.IP + ":10250/metrics":  http.StatusUnauthorized,
		"http://" + s.server.IP + ":2381/metrics":   http.StatusOK,
		"http://" + s.server.IP + ":2381/health":    http.StatusOK,
	} {
		if got := status(address, ""); got != want {
			t.Errorf("%s: %d, want %d", address, got, want)
		}
		if !strings.HasPrefix(address, "https://") || !strings.HasSuffix(address, "/metrics") {
			continue
		}
		for token, want := range map[string]int{"wrong": http.StatusUnauthorized, nobody + "x": http.StatusUnauthorized, nobody: http.StatusForbidden} {
			if got := status(address, token); got != want {
				t.Errorf("%s with the token %.8s…: %d, want %d", address, token, got, want)
			}
		}
	}
	for _, n := range []*cluster.Node{s.server, s.agent} {
		out, err := cluster.Get(s.server, "http://"+n.IP+":10249/configz")
		var settings map[string]any
		if err == nil {
			err = json.Unmarshal([]byte(out), &settings)
		}
		if err != nil || len(settings) != 1 || settings["kubeproxy.config.k8s.io"] == nil {
			t.Errorf("/configz of kube-proxy on %s: %v, %v", n.Name, slices.Collect(maps.Keys(settings)), err)
		}
	}
}
