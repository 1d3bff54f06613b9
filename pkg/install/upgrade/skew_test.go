package upgrade

import (
	"strings"
	"testing"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/status"
	"lite.io/lite/pkg/version"
)

func info(lite, kubernetes, etcd string) version.Info {
	return version.Info{Version: lite, Kubernetes: kubernetes, Etcd: etcd}
}

// says checks that an error contains words, or that there is no error if words is empty.
func says(t *testing.T, err error, words string) {
	t.Helper()
	switch {
	case words == "" && err != nil:
		t.Errorf("refused: %v", err)
	case words != "" && err == nil:
		t.Errorf("accepted, want an error with %q", words)
	case words != "" && !strings.Contains(err.Error(), words):
		t.Errorf("got %v, want %q", err, words)
	}
}

func TestVersions(t *testing.T) {
	now := info("v0.5.0", "v1.36.3", "v3.6.16")
	for name, test := range map[string]struct {
		next          version.Info
		server, agent string // part of the error, "" = accepted
	}{
		"patch":                   {info("v0.5.1", "v1.36.4", "v3.6.17"), "", ""},
		"same parts":              {info("v0.6.0", "v1.36.3", "v3.6.16"), "", ""},
		"older patch of a part":   {info("v0.6.0", "v1.36.2", "v3.6.15"), "", ""},
		"next minors":             {info("v0.6.0", "v1.37.0", "v3.7.0"), "", ""},
		"two minors":              {info("v0.7.0", "v1.38.0", "v3.6.16"), "Kubernetes 1.37 first", ""},
		"two minors of etcd":      {info("v0.7.0", "v1.37.0", "v3.8.0"), "etcd 3.7 first", ""},
		"next major of etcd":      {info("v0.7.0", "v1.37.0", "v4.0.0"), "one minor version at a time", ""},
		"older lite":              {info("v0.4.9", "v1.36.3", "v3.6.16"), "lite rollback", "lite rollback"},
		"release candidate of it": {info("v0.5.0-rc.1", "v1.36.3", "v3.6.16"), "lite rollback", "lite rollback"},
		"older Kubernetes":        {info("v0.6.0", "v1.35.9", "v3.6.16"), "older than v1.36.3", "older than v1.36.3"},
		"older etcd":              {info("v0.6.0", "v1.36.3", "v3.5.20"), "older than v3.6.16", "older than v3.6.16"},
		"other build":             {info("v0.5.0+abc", "v1.36.3", "v3.6.16"), "", ""},
		"no version":              {info("next", "v1.36.3", "v3.6.16"), "is not a version", "is not a version"},
		"no version of a part":    {info("v0.6.0", "unknown", "v3.6.16"), "is not a version", "is not a version"},
	} {
		t.Run(name, func(t *testing.T) {
			says(t, checkVersions(now, test.next, true), test.server)
			says(t, checkVersions(now, test.next, false), test.agent)
		})
	}
}

func TestServerSkew(t *testing.T) {
	for name, test := range map[string]struct {
		other member
		want  string
	}{
		"agent alike":             {member{Kubelet: "v1.36.3"}, ""},
		"agent one older":         {member{Kubelet: "v1.35.0"}, ""},
		"agent three older":       {member{Kubelet: "v1.33.9"}, ""},
		"agent four older":        {member{Kubelet: "v1.32.9"}, "upgrade it first"},
		"agent newer":             {member{Kubelet: "v1.37.0"}, "newer than v1.36.3"},
		"agent newer patch":       {member{Kubelet: "v1.36.9"}, ""},
		"agent not ready":         {member{Kubelet: "v1.36.3", Ready: false}, ""},
		"agent without a version": {member{Kubelet: ""}, "not a version"},
		"server one older":        {member{Server: true, Ready: true, Kubelet: "v1.35.9"}, ""},
		"server two older":        {member{Server: true, Ready: true, Kubelet: "v1.34.9"}, "servers may be one apart"},
		"server one newer":        {member{Server: true, Ready: true, Kubelet: "v1.37.0"}, "newer"},
		"server not ready":        {member{Server: true, Kubelet: "v1.36.3"}, "one by one"},
	} {
		t.Run(name, func(t *testing.T) {
			test.other.Name = "other"
			err := checkServerSkew("v1.36.3", []member{test.other})
			says(t, err, test.want)
			if err != nil {
				says(t, err, "other")
			}
		})
	}
	says(t, checkServerSkew("v1.36.3", nil), "")
}

func TestAgentSkew(t *testing.T) {
	for name, test := range map[string]struct {
		servers []string
		want    string
	}{
		"alike":              {[]string{"v1.36.3"}, ""},
		"newer patch":        {[]string{"v1.36.0"}, ""},
		"older":              {[]string{"v1.37.0"}, ""},
		"three older":        {[]string{"v1.39.0"}, ""},
		"four older":         {[]string{"v1.40.0"}, "choose a later version"},
		"newer":              {[]string{"v1.35.9"}, "upgrade all servers first"},
		"newer than one":     {[]string{"v1.36.3", "v1.35.9"}, "upgrade all servers first"},
		"nobody asked":       {nil, "no server has reported its version"},
		"no version":         {[]string{"head"}, "not a version"},
		"another generation": {[]string{"v2.0.0"}, "choose a later version"},
	} {
		t.Run(name, func(t *testing.T) {
			var servers []apiServer
			for _, v := range test.servers {
				servers = append(servers, apiServer{"192.0.2.1:6443", v})
			}
			says(t, checkAgentSkew("v1.36.3", servers), test.want)
		})
	}
}

// A node that is not well is not upgraded, unless that is what shall heal it.
func TestHealth(t *testing.T) {
	sick := &Instance{Status: status.Node{Components: []status.Component{
		{Name: "etcd", State: component.Ready}, {Name: "apiserver", State: component.Starting, Reason: "no answer"}, {Name: "kubelet", State: component.Waiting},
	}}}
	for _, test := range []struct {
		node  *Instance
		force bool
		want  string
		warns int
	}{
		{&Instance{Status: status.Node{Ready: true}}, false, "", 0},
		{sick, false, "not every component of this node is ready: apiserver is starting (no answer); fix that first, or continue with --force", 0},
		{sick, true, "", 1},
	} {
		p := &Plan{Node: test.node}
		says(t, p.checkHealth(test.force), test.want)
		if len(p.Warnings) != test.warns {
			t.Errorf("warnings: %q", p.Warnings)
		}
	}
}
