package series

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	clients "k8s.io/client-go/tools/metrics"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/restclient"
	_ "k8s.io/component-base/metrics/prometheus/workqueue"
)

var all = []Owner{APIServer, ControllerManager, Scheduler, Kubelet, KubeProxy, Etcd, DNS}

func TestWhoServes(t *testing.T) {
	for family, want := range map[string][]Owner{
		"apiserver_request_total":                       {APIServer},
		"etcd_request_duration_seconds":                 {APIServer, Etcd},
		"kubelet_running_pods":                          {Kubelet},
		"lite_certificate_expiration_timestamp_seconds": {Kubelet},
		"storage_operation_duration_seconds":            {ControllerManager, Kubelet},
		"storage_count_attachable_volumes_in_use":       {ControllerManager},
		"volume_operation_total_seconds":                {ControllerManager, Kubelet},
		"volume_operation_total_errors":                 {ControllerManager},
		"volume_manager_total_volumes":                  {Kubelet},
		"scheduler_pending_pods":                        {Scheduler},
		"kubeproxy_sync_proxy_rules_duration_seconds":   {KubeProxy},
		"go_goroutines":                                 all,
		"process_cpu_seconds_total":                     all,
		"rest_client_requests_total":                    kubernetes,
		"coredns_dns_requests_total":                    {APIServer, DNS}, // in the registry of Kubernetes nobody knows it
		"a_feature_of_tomorrow":                         {APIServer},
		"kubelet":                                       {APIServer},
	} {
		var got []Owner
		for _, o := range all {
			if o.serves(family) {
				got = append(got, o)
			}
		}
		if want = slices.Clone(want); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
			t.Errorf("%s is served by %v, want %v", family, got, want)
		}
	}
}

// observe registers what components have and measures something of each.
func observe(t *testing.T) {
	t.Helper()
	Divide()
	for _, name := range []string{"apiserver_x_total", "kubelet_x_total", "scheduler_x_total", "kubeproxy_x_total", "job_x_total"} {
		c := metrics.NewCounter(&metrics.CounterOpts{Name: name, Help: "help"})
		legacyregistry.MustRegister(c)
		c.Inc()
	}
	for _, name := range []string{"etcd_x_total", "coredns_x_total"} {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: "help"})
		prometheus.MustRegister(c)
		c.Inc()
	}
	clients.RequestResult.Increment(t.Context(), "200", "GET", "127.0.0.1")
	clients.RequestLatency.Observe(t.Context(), "GET", url.URL{Host: "127.0.0.1"}, time.Second)
	clients.EnsureRegistered() // of Kubernetes' own
	for _, name := range []string{"crd_finalizer", "deployment", "kubelet_log_rotate_manager"} {
		workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[int]{Name: name}).Add(1)
	}
}

func get(t *testing.T, h http.Handler, address string) map[string][]string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, address, nil))
	body, _ := io.ReadAll(w.Body)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d: %s", address, w.Code, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	families := map[string][]string{}
	for name, f := range parsed {
		families[name] = nil
		for _, m := range f.Metric {
			if queue := queueOf(m); queue != "" {
				families[name] = append(families[name], queue)
			}
		}
	}
	return families
}

// upstream is a server of upstream's that authenticates, with its own handler.
func upstream(o Owner) http.Handler {
	inner, a := legacyregistry.Handler(), o.Narrow(authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{}, true, nil
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok, err := a.AuthenticateRequest(r); !ok || err != nil {
			panic("not authenticated")
		}
		inner.ServeHTTP(w, r.WithContext(r.Context())) // as filters do
	})
}

func TestEachServesItsOwn(t *testing.T) {
	observe(t)
	for o, h := range map[Owner]http.Handler{
		APIServer:         APIServer.Before(http.NotFoundHandler()),
		ControllerManager: upstream(ControllerManager),
		Scheduler:         upstream(Scheduler),
		Kubelet:           upstream(Kubelet),
		KubeProxy:         KubeProxy.Handler(),
	} {
		got := get(t, h, "/metrics")
		for name := range got {
			if !o.serves(name) {
				t.Errorf("%s has %s", o, name)
			}
		}
		for _, name := range append([]string{"go_goroutines", "process_cpu_seconds_total", "rest_client_requests_total", "rest_client_request_duration_seconds"}, map[Owner]string{
			APIServer: "apiserver_x_total", ControllerManager: "job_x_total", Scheduler: "scheduler_x_total",
			Kubelet: "kubelet_x_total", KubeProxy: "kubeproxy_x_total",
		}[o]) {
			if _, ok := got[name]; !ok {
				t.Errorf("%s has no %s", o, name)
			}
		}
		var queues []string
		if o == APIServer {
			queues = []string{"crd_finalizer"}
		}
		if o == ControllerManager {
			queues = []string{"deployment"}
		}
		if !slices.Equal(got["workqueue_depth"], queues) {
			t.Errorf("%s has the queues %v, want %v", o, got["workqueue_depth"], queues)
		}
	}
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	inRegistry, err := DNS.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for o, served := range map[Owner][]string{Etcd: familyNames(families), DNS: familyNames(inRegistry)} {
		want := map[Owner]string{Etcd: "etcd_x_total", DNS: "coredns_x_total"}[o]
		other := map[Owner]string{Etcd: "coredns_x_total", DNS: "etcd_x_total"}[o]
		if !slices.Contains(served, want) || slices.Contains(served, other) || !slices.Contains(served, "go_goroutines") {
			t.Errorf("%s has %v", o, served)
		}
	}

	// Whoever asks for families gets those, if they are served there.
	if got := get(t, upstream(Scheduler), "/metrics?name[]=scheduler_x_total&name[]=kubelet_x_total"); len(got) != 1 || !hasKey(got, "scheduler_x_total") {
		t.Errorf("asked for one of its own and one of another: %v", got)
	}
	if got := get(t, upstream(Scheduler), "/metrics?name[]=kubelet_x_total"); len(got) != 0 {
		t.Errorf("asked for one of another: %v", got)
	}
}

func hasKey[V any](m map[string]V, key string) bool { _, ok := m[key]; return ok }

func familyNames[F interface{ GetName() string }](families []F) (names []string) {
	for _, f := range families {
		names = append(names, f.GetName())
	}
	return names
}
