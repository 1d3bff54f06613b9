package cis

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"sigs.k8s.io/yaml"
)

// What of the API server's settings stands in files that its arguments name. Only
// what is judged is read out of them: what else there is may be secret.

// authorizers is who decides what requests may do.
func (n *Node) authorizers(a args) (modes []string, seen string, err error) {
	file, given := a.value("authorization-config")
	if !given {
		return values(a, "authorization-mode"), a.shown("authorization-mode"), nil
	}
	var c struct {
		Authorizers []struct {
			Type string `json:"type"`
		} `json:"authorizers"`
	}
	if err := n.parse(file, &c); err != nil {
		return nil, "", err
	}
	for _, one := range c.Authorizers {
		modes = append(modes, one.Type)
	}
	return modes, file + " has " + strings.Join(modes, ","), nil
}

// unreadable is what cannot be judged because of a file that is named.
func unreadable(err error) finding {
	return finding{status: Unknown, seen: err.Error(), remedy: "make sure that the file exists and is correct"}
}

func (n *Node) parse(file string, into any) error {
	data, err := n.read(file)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		// The error may quote what is in the file.
		return fmt.Errorf("%s is not YAML as the API server reads it", file)
	}
	return nil
}

// authorization judges the list of authorizers. An empty one lets everybody do
// anything.
func authorization(mode string, want bool) judge {
	return withArguments(apiserverPart, func(n *Node, a args) finding {
		modes, seen, err := n.authorizers(a)
		if err != nil {
			return unreadable(err)
		}
		return as(len(modes) > 0 && slices.Contains(modes, mode) == want, seen)
	})
}

// anonymous judges what requests without credentials may do. lite admits them to four paths
// (package controlplane) unless the user configures otherwise.
func anonymous(n *Node, a args) finding {
	if _, given := a.value("anonymous-auth"); given {
		return as(!a.on("anonymous-auth", true), a.shown("anonymous-auth"))
	}
	var c struct {
		Anonymous *struct {
			Enabled    bool `json:"enabled"`
			Conditions []struct {
				Path string `json:"path"`
			} `json:"conditions"`
		} `json:"anonymous"`
	}
	if file, _ := a.value("authentication-config"); file != "" {
		if err := n.parse(file, &c); err != nil {
			return unreadable(err)
		}
	}
	switch {
	case c.Anonymous == nil:
		return decide("not configured: they reach /livez, /readyz, /healthz and the ConfigMap cluster-info, and nothing else")
	case !c.Anonymous.Enabled:
		return pass("authentication-config has them off")
	case len(c.Anonymous.Conditions) == 0:
		return fail("authentication-config allows them to get everything")
	}
	var paths []string
	for _, one := range c.Anonymous.Conditions {
		paths = append(paths, one.Path)
	}
	return decide("authentication-config allows them to get " + few(paths))
}

// providers judges what Secrets are encrypted by: the first provider for them is the
// one that writes.
func providers(n *Node, a args) finding {
	file, _ := a.value("encryption-provider-config")
	if file == "" {
		return fail(a.shown("encryption-provider-config"))
	}
	var c struct {
		Resources []struct {
			Resources []string         `json:"resources"`
			Providers []map[string]any `json:"providers"`
		} `json:"resources"`
	}
	if err := n.parse(file, &c); err != nil {
		return unreadable(err)
	}
	for _, r := range c.Resources {
		if !slices.ContainsFunc(r.Resources, func(name string) bool { return name == "secrets" || name == "*." || name == "*.*" }) ||
			len(r.Providers) == 0 {
			continue
		}
		for name := range r.Providers[0] {
			return as(slices.Contains([]string{"aescbc", "kms", "secretbox"}, name), "Secrets are written by "+name)
		}
	}
	return fail(file + " does not mention Secrets")
}

// auditPolicy is set for those that there is a log for.
func auditPolicy(n *Node, a args) finding {
	if !a.audits() {
		return fail("there is no audit log")
	}
	file, _ := a.value("audit-policy-file")
	return as(file != "", a.shown("audit-policy-file"))
}

func (a args) audits() bool {
	path, _ := a.value("audit-log-path")
	hook, _ := a.value("audit-webhook-config-file")
	return path != "" || hook != ""
}

// request is one that an audit log should have.
type request struct{ verb, group, resource, subresource string }

func (r request) String() string {
	if r.subresource != "" {
		return r.verb + " " + r.resource + "/" + r.subresource
	}
	return r.verb + " " + r.resource
}

var (
	// hushed may be logged by their metadata alone: their content is secret.
	hushed = []request{
		{"get", "", "secrets", ""}, {"create", "", "secrets", ""}, {"update", "", "secrets", ""},
		{"create", "", "configmaps", ""}, {"create", "authentication.k8s.io", "tokenreviews", ""},
	}
	// noted should be logged in some way.
	noted = []request{
		{"create", "", "pods", ""}, {"update", "", "pods", ""}, {"patch", "", "pods", ""}, {"delete", "", "pods", ""},
		{"create", "apps", "deployments", ""}, {"update", "apps", "deployments", ""}, {"patch", "apps", "deployments", ""},
		{"delete", "apps", "deployments", ""},
		{"create", "", "pods", "exec"}, {"create", "", "pods", "portforward"}, {"get", "", "pods", "proxy"}, {"get", "", "services", "proxy"},
	}
)

// auditCovers asks upstream's own rules what an ordinary user's requests would leave
// in the log.
func auditCovers(n *Node, a args) finding {
	file, _ := a.value("audit-policy-file")
	if !a.audits() || file == "" {
		return fail("there is no audit log with a policy")
	}
	data, err := n.read(file)
	if err != nil {
		return unreadable(err)
	}
	p, err := policy.LoadPolicyFromBytes(bytes.TrimSpace(data))
	if err != nil {
		return unreadable(fmt.Errorf("%s is not an audit policy", file))
	}
	rules := policy.NewPolicyRuleEvaluator(p)
	level := func(r request) audit.Level {
		return rules.EvaluatePolicyRule(authorizer.AttributesRecord{
			User: &user.DefaultInfo{Name: "somebody", Groups: []string{user.AllAuthenticated}}, Verb: r.verb, Namespace: "somewhere", Name: "something",
			APIGroup: r.group, APIVersion: "v1", Resource: r.resource, Subresource: r.subresource, ResourceRequest: true,
		}).Level
	}
	var lacks, tells []string
	for _, r := range noted {
		if level(r) == audit.LevelNone {
			lacks = append(lacks, r.String())
		}
	}
	for _, r := range hushed {
		switch level(r) {
		case audit.LevelNone:
			lacks = append(lacks, r.String())
		case audit.LevelRequest, audit.LevelRequestResponse:
			tells = append(tells, r.String())
		}
	}
	switch {
	case len(tells) > 0:
		return fail("the policy writes content that is secret into the log: " + few(tells))
	case len(lacks) > 0:
		return decide("the policy leaves out: " + few(lacks))
	}
	return pass("the policy has Secrets, ConfigMaps and TokenReviews by their metadata, changes of pods and Deployments, and exec, port-forward and proxy")
}

// ownAuthority wants etcd to trust another authority than the API server does.
func ownAuthority(n *Node, a args) finding {
	ca, _ := a.value("trusted-ca-file")
	if ca == "" {
		return fail(a.shown("trusted-ca-file"))
	}
	clients, _ := args(n.Components[apiserverPart].Arguments).value("client-ca-file")
	one, err := n.read(ca)
	if err != nil {
		return unreadable(err)
	}
	other, err := n.read(clients)
	if err != nil {
		return unreadable(err)
	}
	if ca == clients || bytes.Equal(bytes.TrimSpace(one), bytes.TrimSpace(other)) {
		return fail(ca + " is the authority of the cluster's clients too")
	}
	return pass(ca + " is another authority than " + clients)
}

// podSecurityDefault is what Pod Security enforces in namespaces without a label, and the
// namespaces that are exempt.
func (n *Node) podSecurityDefault() (level string, exempt []string, err error) {
	a := args(n.Components[apiserverPart].Arguments)
	file, _ := a.value("admission-control-config-file")
	if file == "" {
		return "", nil, nil
	}
	var c struct {
		Plugins []struct {
			Name          string      `json:"name"`
			Path          string      `json:"path"`
			Configuration podDefaults `json:"configuration"`
		} `json:"plugins"`
	}
	if err := n.parse(file, &c); err != nil {
		return "", nil, err
	}
	for _, p := range c.Plugins {
		if p.Name != "PodSecurity" {
			continue
		}
		d := p.Configuration
		if p.Path != "" {
			path := p.Path
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(file), path)
			}
			if err := n.parse(path, &d); err != nil {
				return "", nil, err
			}
		}
		return d.Defaults.Enforce, d.Exemptions.Namespaces, nil
	}
	return "", nil, nil
}

type podDefaults struct {
	Defaults struct {
		Enforce string `json:"enforce"`
	} `json:"defaults"`
	Exemptions struct {
		Namespaces []string `json:"namespaces"`
	} `json:"exemptions"`
}
