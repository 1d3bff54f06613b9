package series

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// Queues of work are measured in one place for all components, but each has a name.
const queuePrefix = "workqueue_"

func isQueues(family string) bool { return strings.HasPrefix(family, queuePrefix) }

// apiServerQueues is the queues of the API server and of what is in it; those that several components
// have, of certificates, count as its own. One ending in an asterisk stands for all that begin so.
var apiServerQueues = []string{
	"APIServiceRegistrationController",
	"DiscoveryController",
	"DynamicCABundle-aggregator-proxy-cert",
	"DynamicCABundle-client-ca-bundle",
	"DynamicCABundle-request-header",
	"DynamicCABundle-serving-cert",
	"DynamicCABundle-sni-serving-cert",
	"DynamicClientCertificate",
	"DynamicConfigMapCABundle-*",
	"DynamicServingCertificateController",
	"LocalAvailabilityController",
	"RemoteAvailabilityController",
	"RequestHeaderAuthRequestController",
	"active-gv-tracker",
	"admission_quota_controller",
	"autoregister",
	"cluster_authentication_trust_controller",
	"crdEstablishing",
	"crd_*",
	"discovery-manager",
	"encryption-provider-config-*",
	"ipaddresses",
	"ipallocator.k8s.io",
	"kubernetes_api_approval_conformant_condition_controller",
	"legacy_token_tracking_controller",
	"mutating-*",
	"non_structural_schema_condition_controller",
	"open_api_*",
	"peer-discovery-*",
	"priority_and_fairness_config_queue",
	"services",
	"validating-*",
}

// nodeQueues is those of the kubelet, which upstream's dashboards do not show.
var nodeQueues = []string{"DynamicCABundle-kubelet-server-cert-files", "kubelet_log_rotate_manager", "node_resource_slices"}

func isOneOf(queues []string, name string) bool {
	return slices.ContainsFunc(queues, func(q string) bool {
		begin, all := strings.CutSuffix(q, "*")
		return q == name || all && strings.HasPrefix(name, begin)
	})
}

// queues is a registry of their own for the measures of queues, as they come. It belongs to the
// process, as the registry that they would else be in.
var queues = metrics.NewKubeRegistry()

// Divide has the process keep apart what is measured of queues, measure all clients, and etcd serve its
// own series only.
// It is called once, before anything of upstream's is made.
func Divide() {
	measureClients()
	register := legacyregistry.MustRegister
	legacyregistry.MustRegister = func(all ...metrics.Registerable) {
		for _, c := range all {
			switch name := c.FQName(); {
			case isQueues(name):
				queues.MustRegister(c)
				legacyregistry.RawMustRegister(part{c, func(m *dto.Metric) bool { return isControllerManagers(queueOf(m)) }})
			case !isClients(name): // ours are there already
				register(c)
			}
		}
	}
	prometheus.DefaultGatherer = only(prometheus.DefaultGatherer, Etcd.serves)
}

func isControllerManagers(queue string) bool {
	return !isOneOf(apiServerQueues, queue) && !isOneOf(nodeQueues, queue)
}

// queueOf is the name of the queue that is measured.
func queueOf(m *dto.Metric) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == "name" {
			return l.GetValue()
		}
	}
	return ""
}

// queuesOfAPIServer is what is measured of its queues.
func queuesOfAPIServer() ([]*dto.MetricFamily, error) {
	all, err := queues.Gather()
	for _, f := range all {
		f.Metric = slices.DeleteFunc(f.Metric, func(m *dto.Metric) bool { return !isOneOf(apiServerQueues, queueOf(m)) })
	}
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return len(f.Metric) == 0 }), err
}

// part is a part of what a collector has.
type part struct {
	prometheus.Collector
	keep func(*dto.Metric) bool
}

// Collect implements prometheus.Collector.
func (p part) Collect(to chan<- prometheus.Metric) {
	forward(p.Collector, to, func(m prometheus.Metric) bool {
		var written dto.Metric
		return m.Write(&written) != nil || p.keep(&written)
	})
}

// forward passes on what from collects and keep wants.
func forward(from prometheus.Collector, to chan<- prometheus.Metric, keep func(prometheus.Metric) bool) {
	all := make(chan prometheus.Metric, 64)
	go func() {
		defer close(all)
		from.Collect(all)
	}()
	for m := range all {
		if keep(m) {
			to <- m
		}
	}
}

// only is those families of a gatherer that keep wants.
func only(all prometheus.Gatherer, keep func(family string) bool) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := all.Gather()
		return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !keep(f.GetName()) }), err
	})
}

// Registry is a registry that has o's series of Prometheus' default one, for what takes nothing but a
// registry.
func (o Owner) Registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	if all, ok := prometheus.DefaultRegisterer.(prometheus.Collector); ok {
		r.MustRegister(view{all, o})
	}
	return r
}

// view is unchecked, as it describes nothing: what is in a registry comes with time.
type view struct {
	all prometheus.Collector
	of  Owner
}

// Describe implements prometheus.Collector.
func (view) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (v view) Collect(to chan<- prometheus.Metric) {
	forward(v.all, to, func(m prometheus.Metric) bool { return v.of.serves(nameOf(m.Desc())) })
}
