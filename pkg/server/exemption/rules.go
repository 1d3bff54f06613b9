package exemption

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"

	"lite.io/lite/pkg/layout"
)

// rule is a row of the table: what somebody writes without a webhook of a user's
// being asked. A field that is nil stands for anything.
type rule struct {
	users      []string // "x*" is every name that begins with x
	groups     []string // a request that has one of them, and one of the users
	resources  []string // resource/subresource.group: a row is good for exactly these
	namespaces []string
	// judged is whether admission policies are asked all the same, and only one
	// that cannot be evaluated does not count. It is so where people restrict by
	// policies what a node may say of itself.
	judged bool
}

const certificates = "certificatesigningrequests.certificates.k8s.io"

var (
	masters     = []string{user.SystemPrivilegedGroup}
	node        = []string{layout.NodeUser + "*"}
	nodes       = []string{layout.NodesGroup}
	controlPart = []string{user.KubeControllerManager, user.KubeScheduler}
	events      = []string{"events", "events.events.k8s.io"}
	kubeSystem  = []string{"kube-system"}
)

// rules is all that is exempt. Each row is needed for the control plane or a node
// to become ready, or for a webhook that has died to be reached again. What users
// run and declare, such as pods, claims and Services, is in no row, whoever
// writes it: checking that is what webhooks are for.
//
// That a node writes of itself alone is for the plugin NodeRestriction to see to,
// which is asked before any webhook.
var rules = []rule{
	// The API server's client to itself writes what each cluster is born with:
	// roles, priorities, system namespaces, Service "kubernetes".
	{users: []string{user.APIServerUser}, groups: masters},
	// So does lite: its manifests, how to join, DNS's endpoints, approvals.
	{users: []string{layout.ServerUser}, groups: masters},
	{users: []string{layout.MetricsUser}, resources: []string{"apiservices.apiregistration.k8s.io"}},

	// No controller starts before it has an account and a token.
	{users: []string{user.KubeControllerManager}, resources: []string{"serviceaccounts", "serviceaccounts/token"}, namespaces: kubeSystem},
	// Elections, where a user has switched them on.
	{users: controlPart, resources: []string{"leases.coordination.k8s.io"}, namespaces: kubeSystem},

	// Nodes join, say that they are alive, and start the pods that they have.
	{groups: layout.AllTokenGroups(), resources: []string{certificates}, judged: true},
	{users: node, groups: nodes, resources: []string{certificates, "nodes", "nodes/status"}, judged: true},
	{users: node, groups: nodes, resources: []string{"leases.coordination.k8s.io"}, namespaces: []string{"kube-node-lease"}},
	{users: node, groups: nodes, resources: []string{"csinodes.storage.k8s.io", "pods/status", "serviceaccounts/token"}},

	// Controllers give nodes their certificate and pod range, take taints away, and
	// lead Services, a webhook's too, to where its pods are now.
	{users: controllers("certificate-controller"), resources: []string{"certificatesigningrequests/status.certificates.k8s.io"}},
	{users: controllers("node-controller"), resources: []string{"nodes", "nodes/status", "pods/status"}},
	{users: controllers("endpoint-controller"), resources: []string{"endpoints"}},
	{users: controllers("endpointslice-controller", "endpointslicemirroring-controller"),
		resources: []string{"endpointslices.discovery.k8s.io"}},
	{users: controllers("bootstrap-signer"), resources: []string{"configmaps"}, namespaces: []string{"kube-public"}},

	// Events tell people what it is that a webhook holds up.
	{users: controlPart, resources: events},
	{users: node, groups: nodes, resources: events},
	{users: controllers("*"), resources: events},
}

// controllers is the accounts of controllers of the controller manager, and the one
// under which all work where a user says use-service-account-credentials=false.
func controllers(names ...string) []string {
	users := []string{user.KubeControllerManager}
	for _, name := range names {
		users = append(users, "system:serviceaccount:kube-system:"+name)
	}
	return users
}

// find returns the row that a request falls under, or nil.
func find(a admission.Attributes) *rule {
	if a.GetUserInfo() == nil {
		return nil
	}
	for i := range rules {
		if rules[i].matches(a) {
			return &rules[i]
		}
	}
	return nil
}

func (r rule) matches(a admission.Attributes) bool {
	who := a.GetUserInfo()
	return (r.users == nil || slices.ContainsFunc(r.users, func(name string) bool { return named(who.GetName(), name) })) &&
		(r.groups == nil || slices.ContainsFunc(who.GetGroups(), func(group string) bool { return slices.Contains(r.groups, group) })) &&
		(r.resources == nil || slices.Contains(r.resources, resource(a))) &&
		(r.namespaces == nil || slices.Contains(r.namespaces, a.GetNamespace()))
}

func named(name, pattern string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	return name == pattern || open && strings.HasPrefix(name, prefix)
}

// resource is what a request is about, as in the table.
func resource(a admission.Attributes) string {
	r := schema.GroupResource{Group: a.GetResource().Group, Resource: a.GetResource().Resource}
	if sub := a.GetSubresource(); sub != "" {
		r.Resource += "/" + sub
	}
	return r.String()
}
