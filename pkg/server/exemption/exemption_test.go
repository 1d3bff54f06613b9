package exemption

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	admissionregistration "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/apiserver/pkg/authentication/user"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"sigs.k8s.io/yaml"

	"lite.io/lite/manifests"
)

// plugin refuses everything, as its error says, and counts.
type plugin struct {
	*admission.Handler
	err   error
	asked int
}

func (p *plugin) Admit(context.Context, admission.Attributes, admission.ObjectInterfaces) error {
	p.asked++
	return p.err
}

func (p *plugin) Validate(context.Context, admission.Attributes, admission.ObjectInterfaces) error {
	p.asked++
	return p.err
}

// write is a request: "resource/subresource.group" or "namespace resource…".
func write(name string, groups []string, what string) admission.Attributes {
	namespace, resource, namespaced := strings.Cut(what, " ")
	if !namespaced {
		namespace, resource = "", what
	}
	resource, group, _ := strings.Cut(resource, ".")
	resource, sub, _ := strings.Cut(resource, "/")
	return admission.NewAttributesRecord(nil, nil, schema.GroupVersionKind{}, namespace, "x", schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource},
		sub, admission.Create, nil, false, &user.DefaultInfo{Name: name, Groups: groups})
}

var down = apierrors.NewInternalError(&webhookutil.ErrCallingWebhook{
	WebhookName: "policy.example.com", Reason: errors.New(`failed to call webhook: no endpoints available for service "hook"`)})

// ask sends a request through a plugin that refuses with err.
func ask(e *Exemption, name string, a admission.Attributes, err error) (asked bool, refused error) {
	p := &plugin{admission.NewHandler(admission.Create), err, 0}
	d := e.Decorate(p, name)
	if strings.HasPrefix(name, "Mutating") {
		refused = d.(admission.MutationInterface).Admit(context.Background(), a, nil)
	} else {
		refused = d.(admission.ValidationInterface).Validate(context.Background(), a, nil)
	}
	return p.asked > 0, refused
}

func TestWhatWebhooksAreAskedAbout(t *testing.T) {
	nodes, all := []string{"system:nodes"}, []string{"system:authenticated"}
	accounts := []string{"system:serviceaccounts", "system:serviceaccounts:kube-system"}
	const controller = "system:serviceaccount:kube-system:"
	for _, c := range []struct {
		name   string
		groups []string
		what   string
		exempt bool
	}{
		{"system:apiserver", []string{"system:masters"}, "clusterroles.rbac.authorization.k8s.io", true},
		{"system:apiserver", []string{"system:masters"}, "default endpointslices.discovery.k8s.io", true},
		{"system:apiserver", all, "clusterroles.rbac.authorization.k8s.io", false}, // somebody's certificate with that name
		{"lite:server", []string{"system:masters"}, "kube-system secrets", true},
		{"lite:server", all, "kube-system secrets", false},
		{"kubernetes-admin", []string{"system:masters"}, "kube-system secrets", false},
		{"kubernetes-admin", []string{"system:masters"}, "nodes", false},
		{"lite:metrics", all, "apiservices.apiregistration.k8s.io", true},
		{"lite:metrics", all, "nodes", false},

		{"system:kube-controller-manager", all, "kube-system serviceaccounts/token", true},
		{"system:kube-controller-manager", all, "kube-system serviceaccounts", true},
		{"system:kube-controller-manager", all, "team-a serviceaccounts/token", false},
		{"system:kube-controller-manager", all, "kube-system secrets", false},
		{"system:kube-scheduler", all, "kube-system leases.coordination.k8s.io", true},
		{"system:kube-scheduler", all, "team-a pods/binding", false},

		{"system:node:a", nodes, "nodes", true},
		{"system:node:a", nodes, "nodes/status", true},
		{"system:node:a", nodes, "kube-node-lease leases.coordination.k8s.io", true},
		{"system:node:a", nodes, "team-a leases.coordination.k8s.io", false},
		{"system:node:a", nodes, "csinodes.storage.k8s.io", true},
		{"system:node:a", nodes, "certificatesigningrequests.certificates.k8s.io", true},
		{"system:node:a", nodes, "certificatesigningrequests/approval.certificates.k8s.io", false},
		{"system:node:a", nodes, "team-a pods/status", true},
		{"system:node:a", nodes, "team-a serviceaccounts/token", true},
		{"system:node:a", nodes, "team-a pods", false}, // of static pods
		{"system:node:a", nodes, "persistentvolumes", false},
		{"system:node:a", all, "nodes", false},
		{"mallory", nodes, "nodes", false}, // whom NodeRestriction does not restrict
		{"system:bootstrap:abcdef", []string{"system:bootstrappers:lite:agent"}, "certificatesigningrequests.certificates.k8s.io", true},
		{"system:bootstrap:abcdef", []string{"system:bootstrappers"}, "certificatesigningrequests.certificates.k8s.io", false},

		{controller + "node-controller", accounts, "nodes", true},
		{controller + "node-controller", accounts, "team-a pods", false}, // evictions
		// With use-service-account-credentials=false.
		{"system:kube-controller-manager", all, "nodes/status", true},
		{"system:kube-controller-manager", all, "team-a endpointslices.discovery.k8s.io", true},
		{"system:kube-controller-manager", all, "team-a pods", false},
		{controller + "endpointslice-controller", accounts, "team-a endpointslices.discovery.k8s.io", true},
		{controller + "endpoint-controller", accounts, "team-a endpoints", true},
		{controller + "certificate-controller", accounts, "certificatesigningrequests/status.certificates.k8s.io", true},
		{controller + "certificate-controller", accounts, "certificatesigningrequests.certificates.k8s.io", false},
		{controller + "bootstrap-signer", accounts, "kube-public configmaps", true},
		{controller + "bootstrap-signer", accounts, "kube-system configmaps", false},
		{controller + "replicaset-controller", accounts, "team-a pods", false},
		{controller + "replicaset-controller", accounts, "team-a events", true},
		{controller + "generic-garbage-collector", accounts, "team-a configmaps", false},
		{controller + "service-account-controller", accounts, "team-a serviceaccounts", false},
		{"system:serviceaccount:team-a:node-controller", all, "nodes", false},
		{"system:serviceaccount:team-a:x", all, "team-a events", false},
	} {
		for _, name := range []string{mutatingwebhook.PluginName, validatingwebhook.PluginName} {
			asked, err := ask(&Exemption{}, name, write(c.name, c.groups, c.what), down)
			if asked == c.exempt || (err == nil) != c.exempt {
				t.Errorf("%s: %s writes %s: asked %v, error %v", name, c.name, c.what, asked, err)
			}
		}
	}
}

func TestOtherPluginsAreLeftAlone(t *testing.T) {
	p := &plugin{}
	if got := (&Exemption{}).Decorate(p, "NodeRestriction"); got != admission.Interface(p) {
		t.Errorf("NodeRestriction became %T", got)
	}
}

// What the two plugins say of policies, see their dispatchers.
var (
	forbidden = func(text string) error {
		return admission.NewForbidden(write("x", nil, "nodes"), errors.New(text))
	}
	missing = map[string]error{
		validatingpolicy.PluginName: forbidden(`ValidatingAdmissionPolicy 'labels' with binding 'all' denied request: failed to configure binding: failed to find resource referenced by paramKind`),
		mutatingpolicy.PluginName:   forbidden(`policy "labels" denied request: failed to configure policy: no matches for kind`),
	}
	verdict = map[string]error{
		validatingpolicy.PluginName: forbidden(`ValidatingAdmissionPolicy 'labels' with binding 'all' denied request: no label team`),
		mutatingpolicy.PluginName:   forbidden(`policy 'labels' with binding 'all' denied request: expression error`),
	}
)

// Nodes are not trusted like the control plane: a policy may say what they must
// not, but one that cannot be evaluated does not keep them away.
func TestPoliciesJudgeNodes(t *testing.T) {
	node := write("system:node:a", []string{"system:nodes"}, "nodes")
	lease := write("system:node:a", []string{"system:nodes"}, "kube-node-lease leases.coordination.k8s.io")
	lite := write("lite:server", []string{"system:masters"}, "nodes")
	other := write("jane", nil, "nodes")
	for _, name := range policies {
		for _, c := range []struct {
			a             admission.Attributes
			err           error
			asked, passes bool
		}{
			{node, missing[name], true, true},
			{node, verdict[name], true, false},
			{lease, verdict[name], false, true},
			{lite, verdict[name], false, true},
			{lite, missing[name], false, true},
			{other, missing[name], true, false},
			{other, verdict[name], true, false},
		} {
			asked, err := ask(&Exemption{}, name, c.a, c.err)
			if asked != c.asked || (err == nil) != c.passes {
				t.Errorf("%s: %s, %v: asked %v, error %v", name, c.a.GetUserInfo().GetName(), c.err, asked, err)
			}
		}
	}
}

// The policies that lite ships restrict nodes. No row may let nodes around them.
func TestOwnPoliciesHold(t *testing.T) {
	found := 0
	err := fs.WalkDir(manifests.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(manifests.FS, name)
		if err != nil {
			return err
		}
		for _, text := range strings.Split(string(data), "\n---\n") {
			var policy admissionregistration.ValidatingAdmissionPolicy
			if err := yaml.Unmarshal([]byte(text), &policy); err != nil || policy.Kind != "ValidatingAdmissionPolicy" {
				continue
			}
			found++
			for _, rule := range policy.Spec.MatchConstraints.ResourceRules {
				for _, resource := range rule.Resources {
					if r := find(write("system:node:a", []string{"system:nodes"}, resource+"."+rule.APIGroups[0])); r != nil && !r.judged {
						t.Errorf("policy %s is not asked what nodes write to %s", policy.Name, resource)
					}
				}
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d policies, %v", found, err)
	}
}

func TestNoteNamesWhatCannotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &Exemption{}
		pods := write("jane", nil, "team-a pods")
		roles := write("jane", nil, "clusterroles.rbac.authorization.k8s.io")
		want := func(when, note string) {
			t.Helper()
			if got := e.Note(); got != note {
				t.Errorf("%s: %s\nwant %s", when, got, note)
			}
		}
		want("before", "")
		ask(e, validatingwebhook.PluginName, pods, errors.New("denied the request: no label"))
		want("after a verdict", "")
		ask(e, validatingwebhook.PluginName, pods, down)
		ask(e, validatingwebhook.PluginName, pods, down)
		time.Sleep(5 * time.Second)
		ask(e, validatingwebhook.PluginName, roles, down)
		time.Sleep(2 * time.Second)
		const reason = `failed to call webhook: no endpoints available for service "hook"`
		want("two kinds", `webhook "policy.example.com" cannot be called (requests refused: 3, last 2s ago: create clusterroles.rbac.authorization.k8s.io): `+reason)
		ask(e, validatingwebhook.PluginName, roles, nil)
		want("one passed", `webhook "policy.example.com" cannot be called (requests refused: 2, last 7s ago: create pods in namespace team-a): `+reason)
		ask(e, validatingpolicy.PluginName, pods, missing[validatingpolicy.PluginName])
		if got := e.Note(); !strings.HasPrefix(got, "policy 'labels' with binding 'all' cannot be evaluated (requests refused: 1, last 0s ago: create pods in namespace team-a): failed to configure binding: ") ||
			!strings.Contains(got, `; webhook "policy.example.com" `) {
			t.Errorf("with a policy: %s", got)
		}
		ask(e, mutatingpolicy.PluginName, pods, missing[mutatingpolicy.PluginName])
		if got := e.Note(); !strings.Contains(got, `policy "labels" cannot be evaluated`) {
			t.Errorf("with a mutating policy: %s", got)
		}
		condition := forbidden("expression 'object.data.a == \"x\"' resulted in error: no such key: a")
		ask(e, validatingwebhook.PluginName, write("jane", nil, "team-a configmaps"), condition)
		if got := e.Note(); !strings.Contains(got, `a webhook's matchConditions cannot be evaluated (requests refused: 1, last 0s ago: create configmaps in namespace team-a): expression 'object.data.a == "x"' resulted in error: no such key: a`) {
			t.Errorf("with a webhook's condition: %s", got)
		}
		ask(e, mutatingwebhook.PluginName, write("jane", nil, "team-b configmaps"), errors.New(`admission webhook "x" denied the request: expression 'a' resulted in error: b`))
		if got := e.Note(); strings.Contains(got, "team-b") {
			t.Errorf("after a verdict: %s", got)
		}
		time.Sleep(remember + time.Second)
		want("long after", "")
		for i := range 2 * most {
			ask(e, validatingwebhook.PluginName, write("jane", nil, strings.Repeat("n", i+1)+" pods"), down)
		}
		if got := len(e.refusals.last); got != most {
			t.Errorf("%d are remembered", got)
		}
	})
}
