package controlplane

import (
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/admission"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/kubernetes/plugin/pkg/admission/eventratelimit"
	"k8s.io/kubernetes/plugin/pkg/admission/eventratelimit/apis/eventratelimit/validation"
	"k8s.io/pod-security-admission/admission/api/load"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// Who may be whose request.
var (
	person   = &user.DefaultInfo{Name: "kubernetes-admin", Groups: []string{"system:masters", "system:authenticated"}}
	program  = &user.DefaultInfo{Name: "system:serviceaccount:shop:operator", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"}}
	control  = &user.DefaultInfo{Name: "system:serviceaccount:kube-system:deployment-controller", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"}}
	managers = &user.DefaultInfo{Name: "system:kube-controller-manager", Groups: []string{"system:authenticated"}}
	node     = &user.DefaultInfo{Name: "system:node:a", Groups: []string{"system:nodes", "system:authenticated"}}
	stranger = &user.DefaultInfo{Name: "system:anonymous", Groups: []string{"system:unauthenticated"}}
)

func TestWhatTheAuditLogTells(t *testing.T) {
	c := prepared(t)
	p, err := policy.LoadPolicyFromFile(c.auditPolicyFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Rules {
		if r.Level != auditinternal.LevelMetadata && r.Level != auditinternal.LevelNone {
			t.Errorf("level %s: the content of objects would be in the log", r.Level)
		}
	}
	evaluator := policy.NewPolicyRuleEvaluator(p)
	for _, test := range []struct {
		who      user.Info
		verb     string
		resource string // group/resource/subresource, or a path
		told     bool
	}{
		{person, "create", "apps/deployments", true},
		{person, "delete", "/pods", true},
		{person, "list", "/pods", true},
		{person, "get", "/secrets", true},
		{person, "watch", "/secrets", true},
		{person, "deletecollection", "events.k8s.io/events", true},
		{person, "delete", "/events", true},
		{person, "create", "authorization.k8s.io/selfsubjectaccessreviews", true},
		{person, "get", "/apis/apps/v1", false},
		{person, "get", "/readyz", false},
		{person, "get", "/debug/pprof/heap", true},
		{program, "get", "/secrets", true},
		{program, "list", "/secrets", true},
		{program, "update", "/configmaps", true},
		{program, "list", "/configmaps", false},
		{program, "update", "coordination.k8s.io/leases", false},
		{program, "create", "/events", false},
		{program, "get", "/pods/exec", true},
		{program, "create", "/pods/exec", true},
		{program, "get", "/pods/portforward", true},
		{program, "get", "/nodes/proxy", true},
		{control, "create", "/pods", true},
		{control, "watch", "/pods", false},
		{control, "get", "/secrets", true},
		{managers, "watch", "/secrets", false},
		{managers, "create", "/serviceaccounts/token", true},
		{managers, "create", "authentication.k8s.io/tokenreviews", false},
		{node, "get", "/secrets", true},
		{node, "create", "/serviceaccounts/token", true},
		{node, "patch", "/nodes/status", true},
		{node, "get", "/nodes", false},
		{node, "watch", "/pods", false},
		{node, "update", "coordination.k8s.io/leases", false},
		{node, "create", "authorization.k8s.io/subjectaccessreviews", false},
		{stranger, "get", "/api/v1/namespaces/kube-public/configmaps/cluster-info", false},
		{stranger, "get", "/secrets", false},
		{nil, "create", "/pods", false}, // a wrong certificate or token
		{nil, "get", "/secrets", false},
		{nil, "get", "/anything", false},
	} {
		a := authorizer.AttributesRecord{User: test.who, Verb: test.verb, Path: test.resource}
		if parts := strings.Split(test.resource, "/"); len(parts) == 3 && parts[1] != "debug" && !strings.HasPrefix(test.resource, "/apis") || len(parts) == 2 && parts[1] != "readyz" && parts[1] != "anything" {
			a.ResourceRequest, a.APIGroup, a.Resource = true, parts[0], parts[1]
			if len(parts) == 3 {
				a.Subresource = parts[2]
			}
		}
		got := evaluator.EvaluatePolicyRule(a).Level
		if (got == auditinternal.LevelMetadata) != test.told {
			t.Errorf("%v: %s %s: level %s", test.who, test.verb, test.resource, got)
		}
	}
}

// A session is told of when it begins, a watch of a kubelet's once.
func TestWhenTheAuditLogTells(t *testing.T) {
	p, err := policy.LoadPolicyFromBytes([]byte(auditPolicy))
	if err != nil {
		t.Fatal(err)
	}
	evaluator := policy.NewPolicyRuleEvaluator(p)
	for _, test := range []struct {
		who                        user.Info
		verb, group, resource, sub string
		begins                     bool
	}{
		{person, "get", "", "pods", "exec", true},
		{program, "create", "", "pods", "attach", true},
		{person, "watch", "", "secrets", "", true},
		{node, "watch", "", "secrets", "", false},
		{person, "watch", "", "pods", "", false},
	} {
		r := evaluator.EvaluatePolicyRule(authorizer.AttributesRecord{User: test.who, Verb: test.verb, APIGroup: test.group, Resource: test.resource, Subresource: test.sub, ResourceRequest: true})
		if got := !slices.Contains(r.OmitStages, auditinternal.StageResponseStarted); got != test.begins || r.Level != auditinternal.LevelMetadata {
			t.Errorf("%s %s/%s of %s: %+v", test.verb, test.resource, test.sub, test.who.GetName(), r)
		}
	}
}

// What a user says of the audit log replaces ours, piece by piece.
func TestAUsersAuditLog(t *testing.T) {
	const own, ours = "/etc/policy.yaml", "/var/lib/lite/server/audit-policy.yaml"
	for name, test := range map[string]struct {
		change      func(*config.Config, *cluster.Facts)
		log, policy string
	}{
		"nothing said":         {func(*config.Config, *cluster.Facts) {}, layout.Default().Host.AuditLog, ours},
		"off":                  {withoutAudit, "", ""},
		"a policy":             {func(n *config.Config, _ *cluster.Facts) { n.AuditPolicyFile = own }, layout.Default().Host.AuditLog, own},
		"a policy by argument": {func(n *config.Config, _ *cluster.Facts) { n.APIServerArgs = []string{"audit-policy-file=" + own} }, layout.Default().Host.AuditLog, own},
		"a path by argument":   {func(n *config.Config, _ *cluster.Facts) { n.APIServerArgs = []string{"audit_log_path=/var/log/k8s"} }, "/var/log/k8s", ours},
		"off by argument":      {func(n *config.Config, _ *cluster.Facts) { n.APIServerArgs = []string{"audit-log-path="} }, "", ""},
		"a webhook besides":    {func(n *config.Config, _ *cluster.Facts) { n.APIServerArgs = []string{"audit-webhook-config-file=/k"} }, layout.Default().Host.AuditLog, ours},
		"a webhook in place of": {func(n *config.Config, _ *cluster.Facts) {
			withoutAudit(n, nil)
			n.APIServerArgs = []string{"audit-webhook-config-file=/k"}
		}, "", ours},
		"rotated otherwise": {func(n *config.Config, _ *cluster.Facts) { n.APIServerArgs = []string{"audit-log-maxage=365"} }, layout.Default().Host.AuditLog, ours},
	} {
		args := apiServerArgs(sample(test.change))
		last := func(flag string) (value string) {
			for _, arg := range args {
				if key, v, _ := strings.Cut(strings.ReplaceAll(arg, "_", "-"), "="); key == "--"+flag {
					value = v
				}
			}
			return value
		}
		if last("audit-log-path") != test.log || last("audit-policy-file") != test.policy {
			t.Errorf("%s: %q", name, args)
		}
		if age := last("audit-log-maxage"); name == "rotated otherwise" && age != "365" || test.log == "" && age != "" {
			t.Errorf("%s: kept for %s days", name, age)
		}
	}
}

// settings reads what a plugin is told, as the API server does.
func settings(t *testing.T, c Config, plugin string) io.Reader {
	t.Helper()
	all, err := admission.ReadAdmissionConfiguration([]string{plugin}, c.Dir.Admission(), apiServerScheme())
	if err != nil {
		t.Fatal(err)
	}
	r, err := all.ConfigFor(plugin)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Events of a cluster of 500 nodes that all start again, with 110 pods each, pass;
// and what passes in the hour that events are kept fits into the datastore.
func TestEventsOfARestartPass(t *testing.T) {
	limits, err := eventratelimit.LoadConfiguration(settings(t, prepared(t), "EventRateLimit"))
	if err != nil {
		t.Fatal(err)
	}
	if errs := validation.ValidateConfiguration(limits); len(errs) > 0 {
		t.Fatal(errs)
	}
	const nodes, pods = 500, 110
	// Within five minutes: five events for each pod from its kubelet, two from the
	// scheduler and the controller that saw its node go; ten for each node.
	const seconds, all = 300, nodes*pods*7 + nodes*10
	most := map[string]int{"Server": all, "Namespace": nodes * pods * 7 / 2, "User": nodes * pods}
	if len(limits.Limits) != len(most) {
		t.Fatalf("got %+v", limits.Limits)
	}
	for _, l := range limits.Limits {
		if passes := int(l.Burst + l.QPS*seconds); passes < most[string(l.Type)] {
			t.Errorf("%s: %d of %d events pass", l.Type, passes, most[string(l.Type)])
		}
		if kept := int(l.Burst + l.QPS*3600); kept > 2<<30/1024 {
			t.Errorf("%s: %d events of 1 KiB are more than half of the datastore", l.Type, kept)
		}
		if l.Type == "User" && l.QPS < 50 {
			t.Errorf("a kubelet sends 50 events a second, and %d pass", l.QPS)
		}
	}
}

func TestPodSecurityOfTheProfile(t *testing.T) {
	c := prepared(t, withCIS)
	s, err := load.LoadFromReader(settings(t, c, "PodSecurity"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Defaults.Enforce != "restricted" || s.Defaults.Warn != "restricted" || !slices.Equal(s.Exemptions.Namespaces, []string{"kube-system"}) {
		t.Errorf("got %+v", s)
	}
	if r := settings(t, prepared(t), "PodSecurity"); r != nil {
		t.Error("without the profile there is a default as well")
	}
}

// A file of a user's has all settings of plugins: one that cannot be without is left
// out, and ours is not written.
func TestAUsersAdmissionConfiguration(t *testing.T) {
	dir := files(t, map[string]string{"admit.yaml": admit})
	c := prepared(t, withCIS, func(n *config.Config, _ *cluster.Facts) {
		n.APIServerArgs = []string{"admission-control-config-file=" + dir + "admit.yaml"}
	})
	a, err := NewAPIServer(c)
	if err != nil {
		t.Fatal(err)
	}
	plugins := a.options.Admission.GenericAdmission
	if want := []string{"DenyServiceExternalIPs", "NodeRestriction", "AlwaysPullImages"}; !slices.Equal(plugins.EnablePlugins, want) || plugins.ConfigFile != dir+"admit.yaml" {
		t.Errorf("got %q and %s", plugins.EnablePlugins, plugins.ConfigFile)
	}
	if found, _ := filepath.Glob(filepath.Join(string(c.Dir), "admission*")); len(found) > 0 {
		t.Errorf("there is %q", found)
	}
	if got := strings.Join(warnings(c, a.options), " "); !strings.Contains(got, "Pod Security") {
		t.Errorf("nobody is told: %q", got)
	}
}

func TestPluginsAreTakenAwayOneByOne(t *testing.T) {
	a, err := NewAPIServer(sample(withCIS, func(n *config.Config, _ *cluster.Facts) {
		n.APIServerArgs = []string{"disable-admission-plugins=EventRateLimit,AlwaysPullImages"}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got := a.options.Admission.GenericAdmission.EnablePlugins; !slices.Equal(got, []string{"DenyServiceExternalIPs", "NodeRestriction"}) {
		t.Errorf("got %q", got)
	}
}

func TestAnonymousRequestsOfTheProfile(t *testing.T) {
	dir := files(t, map[string]string{"jwt.yaml": authnHead + someJWT, "some.yaml": authnHead + "anonymous: {enabled: true, conditions: [{path: /livez}]}\n"})
	for name, test := range map[string]struct {
		args          []string
		ours, enabled bool
	}{
		"nothing said":    {nil, false, false},
		"on":              {[]string{"anonymous-auth=true"}, false, true},
		"a file":          {[]string{"authentication-config=" + dir + "jwt.yaml"}, false, false},
		"a file with one": {[]string{"authentication-config=" + dir + "some.yaml"}, false, true},
		"OIDC":            {[]string{"oidc-issuer-url=https://issuer.test", "oidc-client-id=a"}, false, false},
	} {
		a, err := NewAPIServer(prepared(t, withCIS, func(n *config.Config, _ *cluster.Facts) { n.APIServerArgs = test.args }))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		authn, err := a.options.Authentication.ToAuthenticationConfig()
		if err != nil {
			t.Fatal(err)
		}
		if a.public != test.ours || authn.Anonymous.Enabled != test.enabled {
			t.Errorf("%s: public %t, upstream's %+v", name, a.public, authn.Anonymous)
		}
	}
}

// What is not logged is told where one looks, and the server answers all the same.
func TestAnAuditLogThatCannotBeWrittenIsTold(t *testing.T) {
	dir := files(t, map[string]string{"log": ""})
	for path, want := range map[string]string{
		"":               "",
		dir + "log":      "",
		dir + "not-yet":  "",
		dir:              "is a directory",
		dir + "log/file": "not a directory",
		"/dev/full":      "", // what has no disk has no room that could be told
		"/proc/version":  "",
	} {
		if got := unaudited(path); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}
