package kube

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// beside says what becomes of an argument of ours beside those of a user. What no
// row names gives way to a user's of the same name, and to nothing else.
type beside struct {
	component string
	name      string   // ours
	excluded  []string // the user's beside which upstream refuses or ignores ours: patterns of names, or name=value
	adds      bool     // a list to which a user's of the same name adds
	withdrawn string   // the user's list that takes values out of ours
}

// besides is all arguments that lite sets (golden files in testdata of their
// packages) and that are more than a value of their own, for 1.37.
var besides = []beside{
	// A file may say what anonymous requests may do, and then the flag may not.
	{component: "kube-apiserver", name: "anonymous-auth", excluded: []string{"authentication-config"}},
	// A file with an order of authorizers has all that the other flags say.
	{component: "kube-apiserver", name: "authorization-mode", excluded: []string{"authorization-config"}},
	// The old flag names all plugins there are to be; --disable-… takes some away.
	{component: "kube-apiserver", name: "enable-admission-plugins", excluded: []string{"admission-control"}, adds: true,
		withdrawn: "disable-admission-plugins"},
	// A signer outside has the keys.
	{component: "kube-apiserver", name: "service-account-signing-key-file", excluded: []string{"service-account-signing-endpoint"}},
	// Tokens that our key has signed stay good: the first issuer is the one that new
	// tokens have, the others are accepted.
	{component: "kube-apiserver", name: "service-account-key-file", excluded: []string{"service-account-signing-endpoint"}, adds: true},
	{component: "kube-apiserver", name: "service-account-issuer", adds: true},
	// Aggregated APIs learn from these lists how the API server tells them of a user,
	// and it goes on telling in our way.
	{component: "kube-apiserver", name: "requestheader-allowed-names", adds: true},
	{component: "kube-apiserver", name: "requestheader-extra-headers-prefix", adds: true},
	{component: "kube-apiserver", name: "requestheader-group-headers", adds: true},
	{component: "kube-apiserver", name: "requestheader-username-headers", adds: true},

	// One authority for all signers, or one for each. The four are made of the one by
	// whoever sets it.
	{component: "kube-controller-manager", name: "cluster-signing-cert-file",
		excluded: []string{"cluster-signing-*-cert-file", "cluster-signing-*-key-file"}},
	{component: "kube-controller-manager", name: "cluster-signing-key-file",
		excluded: []string{"cluster-signing-*-cert-file", "cluster-signing-*-key-file"}},
	// Of two words on one controller the first counts: the user's.
	{component: "kube-controller-manager", name: "controllers", adds: true},

	// Beside a file upstream ignores these. They are written into it.
	{component: "kube-scheduler", name: "kubeconfig", excluded: []string{"config"}},
	{component: "kube-scheduler", name: "profiling", excluded: []string{"config"}},
	{component: "kube-proxy", name: "cluster-cidr", excluded: []string{"config"}},
	{component: "kube-proxy", name: "conntrack-*", excluded: []string{"config"}},
	{component: "kube-proxy", name: "kubeconfig", excluded: []string{"config"}},
	{component: "kube-proxy", name: "proxy-mode", excluded: []string{"config"}},

	{component: "kubelet", name: "node-labels", adds: true},

	// Each of two says what the other may be.
	{component: "etcd", name: "election-timeout", excluded: []string{"heartbeat-interval"}},
	{component: "etcd", name: "heartbeat-interval", excluded: []string{"election-timeout"}},
	// Ours is a time, and a revision is none.
	{component: "etcd", name: "auto-compaction-retention", excluded: []string{"auto-compaction-mode=revision"}},
}

// refused is what a user cannot say to a component of lite, and what to do instead.
// All else is the user's to decide.
var refused = []struct{ component, name, problem, remedy string }{
	{"kube-apiserver", "bind-address", "lite checks the health of the API server there", "set --bind-address"},
	{"kube-apiserver", "secure-port", "lite and all nodes reach the API server there", "set --https-listen-port"},
	{"kube-apiserver", "client-ca-file", "components and nodes of the cluster have certificates of its own authority", "let that authority sign, or use OIDC or authentication-config"},
	{"kube-apiserver", "tls-cert-file", "components and nodes of the cluster verify the API server with its own authority", "add names with --tls-san, or a certificate for other names with tls-sni-cert-key"},
	{"kube-apiserver", "tls-private-key-file", "components and nodes of the cluster verify the API server with its own authority", "add names with --tls-san, or a certificate for other names with tls-sni-cert-key"},
	{"kube-apiserver", "etcd-servers", "lite has its own etcd", "remove the argument"},
	{"kube-apiserver", "service-cluster-ip-range", "all components have to know it", "set --service-cidr"},
	{"kube-controller-manager", "cluster-cidr", "all components have to know it", "set --cluster-cidr"},
	{"kube-controller-manager", "config", "this component has no configuration file", "set its flags"},
	{"kube-controller-manager", "service-cluster-ip-range", "all components have to know it", "set --service-cidr"},
	{"kube-controller-manager", "master", "all components of the control plane use one kubeconfig", "remove the argument"},
	{"kube-scheduler", "master", "all components of the control plane use one kubeconfig", "remove the argument"},
	{"kube-scheduler", "write-config-to", "the scheduler would write a file and end", "remove the argument"},
	{"kube-proxy", "cleanup", "kube-proxy would clean up and end", "remove the argument"},
	{"kube-proxy", "hostname-override", "it serves the node that lite runs", "set --node-name"},
	{"kube-proxy", "kubeconfig", "all components of a node use one kubeconfig", "remove the argument"},
	{"kube-proxy", "master", "all components of a node use one kubeconfig", "remove the argument"},
	{"kube-proxy", "init-only", "kube-proxy would end immediately", "remove the argument"},
	{"kube-proxy", "write-config-to", "kube-proxy would write a file and end", "remove the argument"},
}

// ignoredWithFile is the flags that upstream ignores beside a configuration file, and
// honoredWithFile, for a component that honors fewer, those that it does not (1.37).
var (
	ignoredWithFile = map[string][]string{
		"kube-scheduler": {"contention-profiling", "kube-api-burst", "kube-api-content-type", "kube-api-qps", "kubeconfig", "profiling"},
	}
	honoredWithFile = map[string][]string{
		"kube-proxy": {"config", "feature-gates", "hostname-override", "log-*", "logging-format", "v", "vmodule"},
	}
)

// CheckArgs refuses what a component cannot be told in this process, and what it
// would not hear. component is as the user's flag has it.
func CheckArgs(component string, user []string) error {
	config, beside := Value(user, "config")
	for _, arg := range user {
		name, _ := splitArg(arg)
		for _, r := range refused {
			if r.component == component && r.name == name {
				return fmt.Errorf("%s-arg %q: %s; %s", component, arg, r.problem, r.remedy)
			}
		}
		known, some := honoredWithFile[component]
		ignored := some && !slices.ContainsFunc(known, func(pattern string) bool { return matches(pattern, name) })
		if beside && (ignored || slices.Contains(ignoredWithFile[component], name)) {
			return fmt.Errorf("%s-arg %q: has no effect beside config=%s; set it in the file", component, arg, config)
		}
	}
	return nil
}

// Args turns the flags of a component into an argument list in alphabetical order,
// so that it can be compared, followed by the user's own, followed by what of
// ours adds to them.
func Args(component string, flags map[string]string, user []string) []string {
	var ours, theirs, added []string
	for _, arg := range user {
		theirs = append(theirs, "--"+strings.TrimLeft(arg, "-"))
	}
	for name, value := range flags {
		adds, value := yield(component, name, value, user)
		switch _, given := Value(user, name); {
		case value == nil:
		case given && adds:
			added = append(added, "--"+name+"="+*value)
		case !given:
			ours = append(ours, "--"+name+"="+*value)
		}
	}
	slices.Sort(ours)
	slices.Sort(added)
	return slices.Concat(ours, theirs, added)
}

// Yields reports whether an argument of ours gives way to those of a user.
func Yields(component, name string, user []string) bool {
	_, given := Value(user, name)
	_, value := yield(component, name, "", user)
	return given || value == nil
}

// yield is what is left of one of ours beside the user's, nil for nothing, and
// whether it adds to one of the same name.
func yield(component, name, value string, user []string) (adds bool, left *string) {
	i := slices.IndexFunc(besides, func(b beside) bool { return b.component == component && matches(b.name, name) })
	if i < 0 {
		return false, &value
	}
	b := besides[i]
	for _, arg := range user {
		other, given := splitArg(arg)
		if slices.ContainsFunc(b.excluded, func(pattern string) bool { return matches(pattern, other) || pattern == other+"="+given }) {
			return false, nil
		}
	}
	if !b.adds {
		return false, &value
	}
	theirs := List(user, name)
	values := slices.DeleteFunc(strings.Split(value, ","), func(v string) bool {
		// A user's list without * means what it says.
		return len(theirs) > 0 && (v == "*" || slices.Contains(theirs, v)) || b.withdrawn != "" && slices.Contains(List(user, b.withdrawn), v)
	})
	if len(values) == 0 {
		return true, nil
	}
	value = strings.Join(values, ",")
	return true, &value
}

func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// Value is the value that a user gives to a flag: the last, as it is with most of
// upstream's.
func Value(user []string, flag string) (value string, given bool) {
	for _, arg := range user {
		if name, v := splitArg(arg); name == flag {
			value, given = v, true
		}
	}
	return value, given
}

// List is all values that a user gives to a flag whose values add up.
func List(user []string, flag string) (values []string) {
	for _, v := range All(user, flag) {
		values = append(values, strings.Split(v, ",")...)
	}
	return values
}

// All is what a user gives to a flag each time.
func All(user []string, flag string) (values []string) {
	for _, arg := range user {
		if name, v := splitArg(arg); name == flag {
			values = append(values, v)
		}
	}
	return values
}

// splitArg parts key=value, and writes the key as upstream has it.
func splitArg(arg string) (name, value string) {
	name, value, _ = strings.Cut(strings.TrimLeft(arg, "-"), "=")
	return strings.ReplaceAll(name, "_", "-"), value
}

// FileError is what is wrong with a file that an argument names, in one sentence
// with what to do about it.
func FileError(component, flag, file string, problem error, remedy string) error {
	text := strings.Join(strings.Fields(problem.Error()), " ")
	return fmt.Errorf("%s-arg %q: %s; %s", component, flag+"="+file, text, cmp.Or(remedy, "correct the file"))
}
