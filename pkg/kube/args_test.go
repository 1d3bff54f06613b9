package kube

import (
	"slices"
	"strings"
	"testing"
)

func TestArgsBesideAUsers(t *testing.T) {
	for name, test := range map[string]struct {
		component, ours string
		user            []string
		want            string
	}{
		"nothing of the user's":    {"kube-apiserver", "authorization-mode=Node,RBAC", nil, "--authorization-mode=Node,RBAC"},
		"the same name":            {"kube-apiserver", "authorization-mode=Node,RBAC", []string{"authorization-mode=RBAC"}, "--authorization-mode=RBAC"},
		"one that excludes ours":   {"kube-apiserver", "authorization-mode=Node,RBAC", []string{"authorization-config=/a"}, "--authorization-config=/a"},
		"written with _":           {"kube-apiserver", "authorization-mode=Node,RBAC", []string{"--authorization_config=/a"}, "--authorization_config=/a"},
		"that of another":          {"kube-scheduler", "authorization-mode=Node,RBAC", []string{"authorization-config=/a"}, "--authorization-mode=Node,RBAC --authorization-config=/a"},
		"a list that adds":         {"kube-apiserver", "enable-admission-plugins=NodeRestriction", []string{"enable-admission-plugins=AlwaysPullImages"}, "--enable-admission-plugins=AlwaysPullImages --enable-admission-plugins=NodeRestriction"},
		"a list in two":            {"kube-apiserver", "enable-admission-plugins=NodeRestriction", []string{"enable-admission-plugins=A", "enable-admission-plugins=B,C"}, "--enable-admission-plugins=A --enable-admission-plugins=B,C --enable-admission-plugins=NodeRestriction"},
		"a list that has ours":     {"kube-apiserver", "enable-admission-plugins=NodeRestriction", []string{"enable-admission-plugins=A,NodeRestriction"}, "--enable-admission-plugins=A,NodeRestriction"},
		"a list that takes away":   {"kube-apiserver", "enable-admission-plugins=NodeRestriction", []string{"disable-admission-plugins=A,NodeRestriction"}, "--disable-admission-plugins=A,NodeRestriction"},
		"… something else":         {"kube-apiserver", "enable-admission-plugins=NodeRestriction", []string{"disable-admission-plugins=A"}, "--enable-admission-plugins=NodeRestriction --disable-admission-plugins=A"},
		"… and adds":               {"kube-apiserver", "enable-admission-plugins=NodeRestriction", []string{"disable-admission-plugins=NodeRestriction", "enable-admission-plugins=A"}, "--disable-admission-plugins=NodeRestriction --enable-admission-plugins=A"},
		"the old list of plugins":  {"kube-apiserver", "enable-admission-plugins=NodeRestriction", []string{"admission-control=A"}, "--admission-control=A"},
		"an issuer before ours":    {"kube-apiserver", "service-account-issuer=https://ours", []string{"service-account-issuer=https://theirs"}, "--service-account-issuer=https://theirs --service-account-issuer=https://ours"},
		"the same issuer":          {"kube-apiserver", "service-account-issuer=https://ours", []string{"service-account-issuer=https://ours"}, "--service-account-issuer=https://ours"},
		"another signer":           {"kube-apiserver", "service-account-signing-key-file=/k", []string{"service-account-signing-endpoint=@a"}, "--service-account-signing-endpoint=@a"},
		"controllers":              {"kube-controller-manager", "controllers=*,bootstrapsigner,-csrapproving", []string{"controllers=*,-ttl"}, "--controllers=*,-ttl --controllers=bootstrapsigner,-csrapproving"},
		"controllers, some":        {"kube-controller-manager", "controllers=*,bootstrapsigner,-csrapproving", []string{"controllers=ttl,bootstrapsigner"}, "--controllers=ttl,bootstrapsigner --controllers=-csrapproving"},
		"an authority of a signer": {"kube-controller-manager", "cluster-signing-key-file=/k", []string{"cluster-signing-legacy-unknown-key-file=/o"}, "--cluster-signing-legacy-unknown-key-file=/o"},
		"not an authority":         {"kube-controller-manager", "cluster-signing-key-file=/k", []string{"cluster-signing-duration=1h"}, "--cluster-signing-key-file=/k --cluster-signing-duration=1h"},
		"a file of the scheduler":  {"kube-scheduler", "profiling=false", []string{"config=/c"}, "--config=/c"},
		"labels":                   {"kubelet", "node-labels=a=1,b=2", []string{"node-labels=c=3"}, "--node-labels=c=3 --node-labels=a=1,b=2"},
	} {
		key, value, _ := strings.Cut(test.ours, "=")
		if got := strings.Join(Args(test.component, map[string]string{key: value}, test.user), " "); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
	if Yields("etcd", "auto-compaction-retention", []string{"auto-compaction-mode=periodic"}) || !Yields("etcd", "auto-compaction-retention", []string{"auto-compaction-mode=revision"}) {
		t.Error("a rule for one value of an argument is none, or one for all values")
	}
}

func TestArgsThatAreRefused(t *testing.T) {
	for _, test := range []struct {
		component string
		user      []string
		want      string // "" = none is refused
	}{
		{"kube-apiserver", []string{"secure-port=8443"}, `kube-apiserver-arg "secure-port=8443": lite and all nodes reach the API server there; set --https-listen-port`},
		{"kube-apiserver", []string{"v=2", "client_ca_file=/ca"}, `kube-apiserver-arg "client_ca_file=/ca": components and nodes of the cluster`},
		{"kube-controller-manager", []string{"config=/c"}, `kube-controller-manager-arg "config=/c": this component has no configuration file; set its flags`},
		{"kube-scheduler", []string{"write-config-to=/c"}, `kube-scheduler-arg "write-config-to=/c": the scheduler would write a file and end; remove the argument`},
		{"kube-proxy", []string{"hostname-override=x"}, `kube-proxy-arg "hostname-override=x": it serves the node that lite runs; set --node-name`},
		{"kube-proxy", []string{"kubeconfig=/k"}, `kube-proxy-arg "kubeconfig=/k": all components of a node use one kubeconfig; remove the argument`},
		{"kube-scheduler", []string{"config=/c", "kube-api-qps=5"}, `kube-scheduler-arg "kube-api-qps=5": has no effect beside config=/c; set it in the file`},
		{"kube-scheduler", []string{"config=/c", "v=2", "leader-elect-lease-duration=1m"}, ""},
		{"kube-scheduler", []string{"kube-api-qps=5"}, ""},
		{"kube-proxy", []string{"proxy-mode=ipvs", "config=/c"}, `kube-proxy-arg "proxy-mode=ipvs": has no effect beside config=/c; set it in the file`},
		{"kube-proxy", []string{"config=/c", "feature-gates=A=true", "v=2", "log-flush-frequency=1s"}, ""},
		{"kubelet", []string{"config=/c", "max-pods=5"}, ""},
	} {
		err := CheckArgs(test.component, test.user)
		if test.want == "" && err == nil {
			continue
		}
		if err == nil || test.want == "" || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s %q: got %v, want %s", test.component, test.user, err, test.want)
		}
	}
}

func TestWhatAUserSays(t *testing.T) {
	user := []string{"a=1", "--b_c=x,y", "a=2=3", "b-c=z"}
	if v, given := Value(user, "a"); !given || v != "2=3" {
		t.Errorf("got %s, %t", v, given)
	}
	if v, given := Value(user, "b"); given {
		t.Errorf("got %s", v)
	}
	if got := List(user, "b-c"); !slices.Equal(got, []string{"x", "y", "z"}) {
		t.Errorf("got %q", got)
	}
}
