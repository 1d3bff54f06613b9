package controlplane

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
)

// files writes texts into a directory, and returns its path with a slash.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir() + "/"
	for name, text := range texts {
		if err := os.WriteFile(dir+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	authnHead = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
	someJWT   = `jwt:
- issuer: {url: https://issuer.test, audiences: [a]}
  claimMappings: {username: {claim: sub, prefix: ""}}
`
	authz = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- {type: Node, name: node}
- {type: RBAC, name: rbac}
`
	encrypt = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- {resources: [secrets], providers: [{identity: {}}]}
`
	admit = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins: []
`
	policies = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None}]\n"
)

// plugin is a file with settings of one.
func plugin(name, settings string) string {
	return strings.Replace(admit, "[]", "[{name: "+name+", "+settings+"}]", 1)
}

// The API server's own parts see a user's file as it is. What anonymous requests
// may do is what the user says of them, or what they may by default.
func TestAnonymousRequests(t *testing.T) {
	dir := files(t, map[string]string{
		"some.yaml": authnHead + "anonymous: {enabled: true, conditions: [{path: /livez}, {path: /readyz}]}\n",
		"off.yaml":  authnHead + "anonymous: {enabled: false}\n",
		"jwt.yaml":  authnHead + someJWT,
		"old.yaml":  strings.Replace(authnHead, "/v1\n", "/v1beta1\n", 1),
	})
	for name, test := range map[string]struct {
		args    []string
		public  bool // ours
		enabled bool // upstream's
	}{
		"nothing said":              {nil, true, false},
		"off":                       {[]string{"anonymous-auth=false"}, false, false},
		"on":                        {[]string{"anonymous-auth=true"}, false, true},
		"a file that says some":     {[]string{"authentication-config=" + dir + "some.yaml"}, false, true},
		"a file that says none":     {[]string{"authentication-config=" + dir + "off.yaml"}, false, false},
		"a file that does not say":  {[]string{"authentication-config=" + dir + "jwt.yaml"}, true, false},
		"one of an earlier version": {[]string{"authentication-config=" + dir + "old.yaml"}, true, false},
		"… and the flag":            {[]string{"authentication-config=" + dir + "jwt.yaml", "anonymous-auth=false"}, false, false},
		"OIDC":                      {[]string{"oidc-issuer-url=https://issuer.test", "oidc-client-id=a"}, true, false},
		"OIDC without anonymous":    {[]string{"oidc-issuer-url=https://issuer.test", "oidc-client-id=a", "anonymous-auth=false"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := accepted(t, prepared(t, func(n *config.Config, _ *cluster.Facts) { n.APIServerArgs = test.args }))
			authn, err := a.options.Authentication.ToAuthenticationConfig()
			if err != nil {
				t.Fatal(err)
			}
			if a.public != test.public || authn.Anonymous.Enabled != test.enabled {
				t.Errorf("public %t, upstream's %+v", a.public, authn.Anonymous)
			}
			if name == "a file that says some" && len(authn.Anonymous.Conditions) != 2 {
				t.Errorf("got %+v", authn.Anonymous)
			}
		})
	}
}

func TestWhatIsPublic(t *testing.T) {
	nobody := authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) { return nil, false, nil })
	authn := withPublic(nobody)
	for path, want := range map[string]bool{
		"/livez": true, "/readyz": true, "/healthz": true, "/api/v1/namespaces/kube-public/configmaps/cluster-info": true,
		"/": false, "/livez/etcd": false, "/version": false, "/api/v1/namespaces/kube-public/configmaps": false, "/metrics": false,
	} {
		who, ok, err := authn.AuthenticateRequest(httptest.NewRequest(http.MethodGet, path, nil))
		if ok != want || err != nil || ok && who.User.GetName() != "system:anonymous" {
			t.Errorf("%s: %t, %v", path, ok, err)
		}
	}
	wrong := withPublic(authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) { return nil, false, os.ErrPermission }))
	if _, ok, err := wrong.AuthenticateRequest(httptest.NewRequest(http.MethodGet, "/livez", nil)); ok || err == nil {
		t.Error("a request with wrong credentials is anonymous")
	}
}

// What upstream would say of the user's arguments, and of the files that they
// name, only when it runs.
func TestArgumentsThatExcludeEachOther(t *testing.T) {
	dir := files(t, map[string]string{
		"authn.yaml": authnHead + "anonymous: {enabled: false}\n", "unknown.yaml": authnHead + "anonymus: {}\n", "jwt.yaml": authnHead + someJWT,
		"wrong.yaml": authnHead + "anonymous: {enabled: false, conditions: [{path: /x}]}\n", "empty.yaml": "",
		"authz.yaml": authz, "none.yaml": strings.Replace(authz, "RBAC, name: rbac", "RBAC, name: other", 1),
		"encrypt.yaml": strings.Replace(encrypt, "identity", "identty", 1), "admit.yaml": admit + "plugin: []\n", "policy.yaml": "rules: []\n",
		// kubernetes#62861, rke#2012, kubespray#12439
		"admit0.yaml": admit, "limits.yaml": "limits: [{type: Server, qps: 6000, burst: 30000}]\n", "podsec.yaml": "# left empty\n",
		"kind.yaml":     plugin("EventRateLimit", "path: limits.yaml"),
		"qps.yaml":      plugin("EventRateLimit", "configuration: {apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: Server, qps: 0, burst: 1}]}"),
		"missing.yaml":  plugin("EventRateLimit", "path: none.yml"),
		"podpath.yaml":  plugin("PodSecurity", "path: podsec.yaml"),
		"podlevel.yaml": plugin("PodSecurity", "configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, defaults: {enforce: strict}}"),
		"misspelt.yaml": plugin("PodSecurty", "configuration: {}"),
	})
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"a file and its flag":      {[]string{"authentication-config=" + dir + "authn.yaml", "anonymous-auth=false"}, []string{`kube-apiserver-arg "authentication-config=` + dir + `authn.yaml": has the field anonymous`, "; use one of them"}},
		"a long end":               {[]string{"shutdown-delay-duration=60s"}, []string{"kube-apiserver-arg: shutdown-delay-duration=1m0s is longer than the time that lite has to stop; use 15s or less"}},
		"a file and OIDC":          {[]string{"authentication-config=" + dir + "jwt.yaml", "oidc-issuer-url=https://a.test", "oidc-client-id=a"}, []string{"kube-apiserver-arg: authentication-config file and oidc-* flags are mutually exclusive"}},
		"half of OIDC":             {[]string{"oidc-issuer-url=https://a.test"}, []string{"oidc-issuer-url and oidc-client-id must be specified together"}},
		"an unknown field":         {[]string{"authentication-config=" + dir + "unknown.yaml"}, []string{"unknown.yaml", `unknown field "anonymus"`, "correct the file"}},
		"conditions of none":       {[]string{"authentication-config=" + dir + "wrong.yaml"}, []string{"wrong.yaml", "anonymous"}},
		"an empty file":            {[]string{"authentication-config=" + dir + "empty.yaml"}, []string{"empty.yaml"}},
		"no file":                  {[]string{"authentication-config=" + dir + "no.yaml"}, []string{"no.yaml", "no such file"}},
		"two ways of authorizing":  {[]string{"authorization-config=" + dir + "authz.yaml", "authorization-mode=RBAC"}, []string{"can not be specified when"}},
		"a wrong authorizer":       {[]string{"authorization-config=" + dir + "none.yaml"}, []string{`kube-apiserver-arg "authorization-config=` + dir + `none.yaml": `}},
		"a webhook without a mode": {[]string{"authorization-webhook-config-file=/k"}, []string{"without mode Webhook"}},
		"an unknown plugin":        {[]string{"enable-admission-plugins=Nothing"}, []string{`plugin "Nothing" is unknown`}},
		"on and off":               {[]string{"enable-admission-plugins=EventRateLimit", "disable-admission-plugins=EventRateLimit"}, []string{"overlapped"}},
		"two lists of plugins":     {[]string{"admission-control=NodeRestriction", "enable-admission-plugins=EventRateLimit"}, []string{"mutually exclusive"}},
		"encryption":               {[]string{"encryption-provider-config=" + dir + "encrypt.yaml"}, []string{"encrypt.yaml", `unknown field "resources[0].providers[0].identty"`}},
		"admission":                {[]string{"admission-control-config-file=" + dir + "admit.yaml"}, []string{"admit.yaml", `unknown field "plugin"`}},
		"limits that are nowhere":  {[]string{"enable-admission-plugins=EventRateLimit", "admission-control-config-file=" + dir + "admit0.yaml"}, []string{dir + "admit0.yaml", "EventRateLimit", "limits"}},
		"limits of no kind":        {[]string{"enable-admission-plugins=EventRateLimit", "admission-control-config-file=" + dir + "kind.yaml"}, []string{"EventRateLimit", "'Kind' is missing"}},
		"limits of nothing":        {[]string{"enable-admission-plugins=EventRateLimit", "admission-control-config-file=" + dir + "qps.yaml"}, []string{"EventRateLimit", "qps"}},
		"limits in no file":        {[]string{"enable-admission-plugins=EventRateLimit", "admission-control-config-file=" + dir + "missing.yaml"}, []string{"EventRateLimit", dir + "none.yml", "no such file"}},
		"Pod Security, empty":      {[]string{"admission-control-config-file=" + dir + "podpath.yaml"}, []string{"PodSecurity", "'Kind' is missing"}},
		"Pod Security, no level":   {[]string{"admission-control-config-file=" + dir + "podlevel.yaml"}, []string{"PodSecurity", "enforce"}},
		"Pod Security, misspelt":   {[]string{"admission-control-config-file=" + dir + "misspelt.yaml"}, []string{"misspelt.yaml", `"PodSecurty", which is not a plugin`}},
		"an audit policy":          {[]string{"audit-policy-file=" + dir + "policy.yaml"}, []string{`kube-apiserver-arg "audit-policy-file=` + dir + `policy.yaml": `}},
		"all APIs off":             {[]string{"runtime-config=api/all=false"}, []string{"kube-apiserver-arg: invalid runtime-config with only api/all=false"}},
		"nearly all APIs off":      {[]string{"runtime-config=api/all=false,/v1=true"}, []string{"kube-apiserver-arg: runtime-config=", "turns off admissionregistration.k8s.io/v1, ", " more, without which parts of the cluster wait forever; leave stable APIs on"}},
		"stable APIs off":          {[]string{"runtime-config=api/ga=false"}, []string{"runtime-config=api/ga=false turns off "}},
		"the core API off":         {[]string{"runtime-config=/v1=false"}, []string{"runtime-config=/v1=false turns off v1, without"}},
		"one of them off":          {[]string{"runtime-config=api/beta=true", "runtime-config=discovery.k8s.io/v1=false"}, []string{"turns off discovery.k8s.io/v1, without"}},
		"definitions off":          {[]string{"runtime-config=apiextensions.k8s.io/v1=false"}, []string{"turns off apiextensions.k8s.io/v1, without"}},
		"aggregation off":          {[]string{"runtime-config=apiregistration.k8s.io/v1=false"}, []string{"turns off apiregistration.k8s.io/v1, without"}},
		"a kind off":               {[]string{"runtime-config=apps/v1/deployments=false"}, []string{"turns off apps/v1/deployments, without"}},
		"an API that is none":      {[]string{"runtime-config=shops.test/v1=true"}, []string{"kube-apiserver-arg: unknown api groups shops.test/v1"}},
		"a version that is none":   {[]string{"runtime-config=apps/v9=true"}, []string{"kube-apiserver-arg: runtime-config: group version apps/v9 that has not been registered; correct it"}},
		"the port":                 {[]string{"secure-port=7443"}, []string{"set --https-listen-port"}},
	} {
		_, err := NewAPIServer(sample(func(n *config.Config, _ *cluster.Facts) { n.APIServerArgs = test.args }))
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
		}
	}
}

// Each argument of the user's that excludes ones of ours, or adds to them: upstream
// takes what comes out of it.
func TestUpstreamAcceptsWhatAUserSays(t *testing.T) {
	klog.SetLogger(logr.Discard())
	defer klog.ClearLogger()
	dir := files(t, map[string]string{
		"authz.yaml": authz, "encrypt.yaml": encrypt, "admit.yaml": admit, "policy.yaml": policies, "off.yaml": plugin("PodSecurity", "configuration: {}"),
		"limits.yaml":  "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\nlimits: [{type: Server, qps: 6000, burst: 30000}]\n",
		"plugins.yaml": plugin("EventRateLimit", "path: limits.yaml}, {name: PodSecurity, configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, defaults: {enforce: baseline}}"),
	})
	for name, args := range map[string][]string{
		"authorization-config":          {"authorization-config=" + dir + "authz.yaml"},
		"admission-control-config-file": {"admission-control-config-file=" + dir + "admit.yaml"},
		"admission, of plugins":         {"admission-control-config-file=" + dir + "plugins.yaml", "enable-admission-plugins=EventRateLimit", "disable-admission-plugins=PodTolerationRestriction"},
		"admission, plugin off":         {"admission-control-config-file=" + dir + "off.yaml", "disable-admission-plugins=PodSecurity"},
		"admission-control":             {"admission-control=NodeRestriction,ServiceAccount"},
		"NodeRestriction off":           {"disable-admission-plugins=NodeRestriction"},
		"NodeRestriction twice":         {"enable-admission-plugins=NodeRestriction,AlwaysPullImages"},
		"encryption":                    {"encryption-provider-config=" + dir + "encrypt.yaml", "encryption-provider-config-automatic-reload=true"},
		"audit by arguments":            {"audit-log-path=" + dir + "log", "audit-log-maxage=7"},
		"… with a policy":               {"audit-log-path=" + dir + "log", "audit-policy-file=" + dir + "policy.yaml"},
		"issuers":                       {"service-account-issuer=https://a.test", "service-account-jwks-uri=https://a.test/keys", "api-audiences=a"},
		"request headers":               {"requestheader-allowed-names=other", "requestheader-username-headers=X-User"},
		"beta APIs off":                 {"runtime-config=api/alpha=false,api/beta=false,/v1=true"},
		"no APIs named":                 {"runtime-config="},
		"lists of their own":            {"runtime-config=api/beta=true", "tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
	} {
		t.Run(name, func(t *testing.T) {
			c := prepared(t, func(n *config.Config, _ *cluster.Facts) { n.APIServerArgs = args })
			a := accepted(t, c)
			if file := a.options.Audit.PolicyFile; file != "" {
				if _, err := os.Stat(file); err != nil {
					t.Error(err)
				}
			}
			if (name != "… with a policy") != (a.options.Audit.PolicyFile == filepath.Join(string(c.Dir), "audit-policy.yaml")) {
				t.Errorf("the policy is %q", a.options.Audit.PolicyFile)
			}
		})
	}
}

// rke2#7316 and kubernetes#81145 ask for such lists. Each part began to serve before it
// found out.
func TestSuitesThatNobodyCanServeBy(t *testing.T) {
	const strong = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
	for _, args := range [][]string{{"tls-cipher-suites=" + strong}, {"tls_cipher_suites=" + strong}, {"tls-cipher-suites=" + strong, "disable-http2-serving=true"}, {"tls-cipher-suites=" + strong, "tls-min-version=VersionTLS13"}} {
		c := sample(func(n *config.Config, _ *cluster.Facts) {
			n.APIServerArgs, n.ControllerManagerArgs, n.SchedulerArgs = args, args, args
		})
		for component, made := range map[string]func(Config) error{
			"kube-apiserver":          func(c Config) error { _, err := NewAPIServer(c); return err },
			"kube-controller-manager": func(c Config) error { _, err := NewControllerManager(c); return err },
			"kube-scheduler":          func(c Config) error { _, err := NewScheduler(c); return err },
		} {
			err := made(c)
			if len(args) == 2 && err != nil || len(args) == 1 && (err == nil || !strings.HasPrefix(err.Error(), component+`-arg "tls-cipher-suites=`+strong+`"`)) {
				t.Errorf("%s %q: %v", component, args, err)
			}
		}
	}
}

func TestUsersListsAddToOurs(t *testing.T) {
	dir := files(t, map[string]string{"authz.yaml": authz})
	c := sample(func(n *config.Config, _ *cluster.Facts) {
		n.APIServerArgs = []string{"enable-admission-plugins=AlwaysPullImages", "service-account-issuer=https://a.test", "service-account-key-file=/old.pub", "authorization-config=" + dir + "authz.yaml"}
		n.ControllerManagerArgs = []string{"controllers=*,-ttl"}
	})
	a, err := NewAPIServer(c)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewControllerManager(c)
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string][]string{
		"AlwaysPullImages DenyServiceExternalIPs EventRateLimit NodeRestriction": a.options.Admission.GenericAdmission.EnablePlugins,
		"https://a.test https://kubernetes.default.svc.cluster.local":            a.options.Authentication.ServiceAccounts.Issuers,
		"/old.pub /var/lib/lite/server/pki/sa.pub":                               a.options.Authentication.ServiceAccounts.KeyFiles,
		"":                                     a.options.Authorization.Modes,
		"* -ttl bootstrapsigner -csrapproving": m.options.Generic.Controllers,
	} {
		if strings.Join(got, " ") != what {
			t.Errorf("got %q, want %s", got, what)
		}
	}
}

func TestSignersWithAuthoritiesOfTheirOwn(t *testing.T) {
	c := sample(func(n *config.Config, _ *cluster.Facts) {
		n.ControllerManagerArgs = []string{"cluster-signing-legacy-unknown-cert-file=/o.crt", "cluster-signing-legacy-unknown-key-file=/o.key"}
	})
	m, err := NewControllerManager(c)
	if err != nil {
		t.Fatal(err)
	}
	o := m.options.CSRSigningController
	ca := "/var/lib/lite/server/pki/ca.crt"
	if o.ClusterSigningCertFile != "" || o.LegacyUnknownSignerConfiguration.CertFile != "/o.crt" || o.KubeletServingSignerConfiguration.CertFile != ca ||
		o.KubeletClientSignerConfiguration.CertFile != ca || o.KubeAPIServerClientSignerConfiguration.KeyFile != "/var/lib/lite/server/pki/ca.key" {
		t.Errorf("got %+v", o)
	}
	if err := m.options.Validate(app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()); err != nil {
		t.Error(err)
	}
	c.Node.ControllerManagerArgs = append(c.Node.ControllerManagerArgs, "cluster-signing-cert-file=/all.crt", "cluster-signing-key-file=/all.key")
	if _, err := NewControllerManager(c); err == nil || !strings.HasPrefix(err.Error(), "kube-controller-manager-arg: cannot specify --cluster-signing-") {
		t.Errorf("got %v", err)
	}
}

func TestWarnings(t *testing.T) {
	dir := files(t, map[string]string{"rbac.yaml": strings.Replace(authz, "- {type: Node, name: node}\n", "", 1), "all.yaml": authz, "encrypt.yaml": encrypt, "limits.yaml": plugin("EventRateLimit", "configuration: {}")})
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nothing":                 {nil, ""},
		"what adds":               {[]string{"enable-admission-plugins=AlwaysPullImages", "anonymous-auth=false", "authorization-config=" + dir + "all.yaml"}, ""},
		"NodeRestriction off":     {[]string{"disable-admission-plugins=NodeRestriction"}, "disables the admission plugin NodeRestriction"},
		"the old list":            {[]string{"admission-control=ServiceAccount"}, "disables the admission plugin NodeRestriction"},
		"an authorizer":           {[]string{"authorization-mode=RBAC"}, "disables the authorizer Node"},
		"an authorizer, by file":  {[]string{"authorization-config=" + dir + "rbac.yaml"}, "disables the authorizer Node"},
		"settings of what is off": {[]string{"admission-control-config-file=" + dir + "limits.yaml"}, "has settings for EventRateLimit, which is off; set enable-admission-plugins=EventRateLimit"},
		"all for everybody":       {[]string{"anonymous-auth=true"}, "allows anonymous requests to every path"},
		"tokens":                  {[]string{"enable-bootstrap-token-auth=false"}, "no machine can join"},
		"a key of another":        {[]string{"encryption-provider-config=" + dir + "encrypt.yaml"}, "are readable only if the file also contains the key in /var/lib/lite/server/encryption.yaml"},
	} {
		c := sample(func(n *config.Config, _ *cluster.Facts) { n.APIServerArgs = test.args })
		c.Used = true
		a, err := NewAPIServer(c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := strings.Join(warnings(c, a.options), "\n")
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

const scheduling = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"

func TestTheSchedulersFile(t *testing.T) {
	dir := files(t, map[string]string{
		"two.yaml":     scheduling + "profiles: [{schedulerName: default-scheduler}, {schedulerName: other}]\npodMaxBackoffSeconds: 7\n",
		"same.yaml":    scheduling + "leaderElection: {leaderElect: false}\nclientConnection: {kubeconfig: '', qps: 5}\nenableProfiling: true\n",
		"elect.yaml":   scheduling + "leaderElection: {leaderElect: true}\n",
		"kube.yaml":    scheduling + "clientConnection: {kubeconfig: /etc/kubernetes/scheduler.conf}\n",
		"unknown.yaml": scheduling + "profilez: []\n",
		"wrong.yaml":   scheduling + "parallelism: -1\n",
		"kubelet.yaml": "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n",
	})
	for name, want := range map[string][]string{
		"two.yaml":     {`"schedulerName":"other"`, `"podMaxBackoffSeconds":7`, `"kubeconfig":"/var/lib/lite/server/kubeconfig/scheduler.conf"`, `"leaderElect":false`, `"enableProfiling":false`},
		"same.yaml":    {`"qps":5`, `"kubeconfig":"/var/lib/lite/server/kubeconfig/scheduler.conf"`, `"enableProfiling":true`},
		"elect.yaml":   {"leaderElection.leaderElect: lite decides this field", "lite runs one scheduler"},
		"kube.yaml":    {"clientConnection.kubeconfig: lite decides this field"},
		"unknown.yaml": {`unknown field "profilez"`},
		"wrong.yaml":   {"parallelism"},
		"kubelet.yaml": {"no kind \"KubeletConfiguration\""},
	} {
		s, err := NewScheduler(sample(func(n *config.Config, _ *cluster.Facts) { n.SchedulerArgs = []string{"config=" + dir + name, "v=2"} }))
		wrong := !slices.Contains([]string{"two.yaml", "same.yaml"}, name)
		if wrong {
			want = append(want, `kube-scheduler-arg "config=`+dir+name+`": `)
		}
		for _, text := range want {
			if wrong && (err == nil || !strings.Contains(err.Error(), text)) {
				t.Errorf("%s: got %v, want %s", name, err, text)
			}
			if !wrong && (err != nil || !strings.Contains(string(s.config), text) || s.options.ConfigFile != "/var/lib/lite/server/scheduler.yaml") {
				t.Errorf("%s: got %v, %+v, want %s", name, err, s, text)
			}
		}
	}
}

func TestWhereComponentsAreAsked(t *testing.T) {
	for args, want := range map[string]string{
		"":                                   "https://127.0.0.1:10259/readyz",
		"bind-address=0.0.0.0":               "https://127.0.0.1:10259/readyz",
		"bind-address=192.0.2.1":             "https://192.0.2.1:10259/readyz",
		"bind-address=::1 secure-port=10999": "https://[::1]:10999/readyz",
		"secure-port=0":                      "",
	} {
		s, err := NewScheduler(sample(func(n *config.Config, _ *cluster.Facts) { n.SchedulerArgs = strings.Fields(args) }))
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), `kube-scheduler-arg "secure-port=0": `) {
				t.Errorf("%s: got %v", args, err)
			}
			continue
		}
		if err != nil || s.probe.URL != want {
			t.Errorf("%s: got %v, %v, want %s", args, s, err, want)
		}
	}
}
