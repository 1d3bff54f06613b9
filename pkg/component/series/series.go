// Package series says which of the process's series belong to which component, and serves to each
// its own.
//
// Upstream's components are programs of their own, so each registers what it measures in the one
// registry of its process, and serves all of that. Here they share it. Who serves what is decided by
// the names of the families: see families.
//
// The doors are upstream's own. kube-apiserver and kube-proxy get a handler of ours; etcd serves
// prometheus.DefaultGatherer; the kubelet, the scheduler and the controller manager serve the families
// that a request asks for by name[], if it asks for any, and here every request does.
package series

import (
	"slices"
	"strings"

	"lite.io/lite/pkg/layout"
)

// Owner is a component that serves series.
type Owner string

// The components that serve series.
const (
	APIServer         Owner = "kube-apiserver"
	ControllerManager Owner = "kube-controller-manager"
	Scheduler         Owner = "kube-scheduler"
	Kubelet           Owner = "kubelet"
	KubeProxy         Owner = "kube-proxy"
	Etcd              Owner = "etcd"
	DNS               Owner = "coredns"
)

// families reports who serves a family: by its name, or by what its name begins with up to an
// underscore. The longest counts. It follows where upstream's sources register a family; what
// libraries register that several components use, and that does not say for whom it counts, is served
// by each of them, as each would have it in a process of its own.
var families = map[string][]Owner{
	"go_":          everybody,
	"process_":     everybody,
	"kubernetes_":  kubernetes,
	"rest_client_": kubernetes,
	"informer_":    kubernetes,
	"version_info": kubernetes,
	"cardinality_enforcement_unexpected_categorizations_total": kubernetes,
	"disabled_metrics_total":                                   kubernetes,
	"hidden_metrics_total":                                     kubernetes,
	"registered_metrics_total":                                 kubernetes,

	"aggregator_":                    {APIServer},
	"apiextensions_":                 {APIServer},
	"apiserver_":                     {APIServer},
	"authenticated_user_":            {APIServer},
	"authentication_":                {APIServer},
	"authorization_":                 {APIServer},
	"etcd_":                          {APIServer}, // of its client; etcd's own are others below
	"grpc_client_":                   {APIServer}, // of etcd's
	"field_validation_":              {APIServer},
	"kube_apiserver_":                {APIServer},
	"node_authorizer_":               {APIServer},
	"pod_security_":                  {APIServer},
	"serviceaccount_":                {APIServer},
	"watch_cache_":                   {APIServer},
	"workqueue_":                     {APIServer, ControllerManager}, // by the names of queues, see queues.go
	"leader_election_":               {ControllerManager, Scheduler},
	"scheduler_":                     {Scheduler},
	"kubeproxy_":                     {KubeProxy},
	"kubelet_":                       {Kubelet},
	layout.SeriesPrefix:              {Kubelet}, // which each node has
	"plugin_manager_":                {Kubelet},
	"volume_manager_":                {Kubelet},
	"dra_":                           {Kubelet},
	"csi_node_":                      {Kubelet},
	"csi_operations_seconds":         {Kubelet, ControllerManager},
	"force_cleaned_":                 {Kubelet},
	"reconstruct_volume_":            {Kubelet},
	"storage_operation_":             {Kubelet, ControllerManager},
	"volume_operation_":              {ControllerManager},
	"volume_operation_total_seconds": {Kubelet, ControllerManager},
	"attach_detach_":                 {ControllerManager},
	"attachdetach_":                  {ControllerManager},
	"cloud_":                         {ControllerManager},
	"clustertrustbundle_":            {ControllerManager},
	"cronjob_":                       {ControllerManager},
	"daemonset_":                     {ControllerManager},
	"device_taint_":                  {ControllerManager},
	"dynamic_resource_":              {ControllerManager},
	"endpoint_slice_":                {ControllerManager},
	"ephemeral_volume_":              {ControllerManager},
	"garbagecollector_":              {ControllerManager},
	"horizontal_pod_":                {ControllerManager},
	"job_":                           {ControllerManager},
	"node_collector_":                {ControllerManager},
	"node_controller_":               {ControllerManager},
	"node_ipam_":                     {ControllerManager},
	"pod_gc_":                        {ControllerManager},
	"pv_collector_":                  {ControllerManager},
	"replicaset_":                    {ControllerManager},
	"retroactive_":                   {ControllerManager},
	"root_ca_":                       {ControllerManager},
	"route_controller_":              {ControllerManager},
	"running_":                       {ControllerManager},
	"selinux_":                       {ControllerManager},
	"service_controller_":            {ControllerManager},
	"statefulset_":                   {ControllerManager},
	"storage_count_":                 {ControllerManager},
	"taint_eviction_":                {ControllerManager},
	"ttl_":                           {ControllerManager},
	"resourcepoolstatusrequest_":     {ControllerManager},
	"dynamic_resource_allocation_resourceclaim_creates_total": {ControllerManager, Scheduler},
}

// others is what stands in Prometheus' own default registry, which etcd and CoreDNS use.
var others = map[string][]Owner{
	"go_":          everybody,
	"process_":     everybody,
	"etcd_":        {Etcd},
	"grpc_server_": {Etcd},
	"os_fd_":       {Etcd},
	"coredns_":     {DNS},
}

var (
	kubernetes = []Owner{APIServer, ControllerManager, Scheduler, Kubelet, KubeProxy}
	everybody  = append([]Owner{Etcd, DNS}, kubernetes...)
)

// Known reports whether it is known who serves a family that a component of Kubernetes has.
func Known(family string) bool { return find(families, family) != nil }

// serves reports whether o serves a family. One that nobody knows of, as of a feature that is new, is
// served by the API server: it must not be lost.
func (o Owner) serves(family string) bool {
	if o == Etcd || o == DNS {
		return slices.Contains(find(others, family), o)
	}
	owners := find(families, family)
	return slices.Contains(owners, o) || owners == nil && o == APIServer
}

func find(table map[string][]Owner, family string) []Owner {
	for name := family; name != ""; name = name[:strings.LastIndexByte(strings.TrimSuffix(name, "_"), '_')+1] {
		if owners, ok := table[name]; ok {
			return owners
		}
	}
	return nil
}
