package cis

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	rbacrules "k8s.io/kubernetes/pkg/apis/rbac/v1"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
	"sigs.k8s.io/yaml"

	"lite.io/lite/manifests"
)

// right is something that a role may allow.
type right struct {
	verbs                        []string // any of them
	group, resource, subresource string
}

func (r right) in(rules []rbacv1.PolicyRule) bool {
	full := r.resource
	if r.subresource != "" {
		full += "/" + r.subresource
	}
	return slices.ContainsFunc(rules, func(rule rbacv1.PolicyRule) bool {
		return rbacrules.APIGroupMatches(&rule, r.group) && rbacrules.ResourceMatches(&rule, full, r.subresource) &&
			slices.ContainsFunc(r.verbs, func(verb string) bool { return rbacrules.VerbMatches(&rule, verb) })
	})
}

// grant is who has been given a role by which binding.
type grant struct {
	binding string
	subject string
}

func (g grant) String() string { return g.subject + " by " + g.binding }

// grants is whom bindings give a role that fits.
func (a Access) grants(fits func(kind, name string, rules []rbacv1.PolicyRule) bool) (all []grant) {
	rules := map[string][]rbacv1.PolicyRule{}
	for _, r := range a.ClusterRoles {
		rules["ClusterRole "+r.Name] = r.Rules
	}
	for _, r := range a.Roles {
		rules["Role "+r.Namespace+"/"+r.Name] = r.Rules
	}
	add := func(binding, namespace string, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
		key := ref.Kind + " " + ref.Name
		if ref.Kind == "Role" {
			key = "Role " + namespace + "/" + ref.Name
		}
		if !fits(ref.Kind, ref.Name, rules[key]) {
			return
		}
		for _, s := range subjects {
			name := s.Name
			if s.Kind == rbacv1.ServiceAccountKind {
				name = s.Namespace + "/" + name
			}
			all = append(all, grant{binding, s.Kind + " " + name})
		}
	}
	for _, b := range a.ClusterRoleBindings {
		add("ClusterRoleBinding "+b.Name, "", b.RoleRef, b.Subjects)
	}
	for _, b := range a.RoleBindings {
		add("RoleBinding "+b.Namespace+"/"+b.Name, b.Namespace, b.RoleRef, b.Subjects)
	}
	return all
}

// given is the access that every cluster of lite has, read once.
func (n *Node) given() (Access, error) {
	if n.usual == nil {
		a, err := Given()
		if err != nil {
			return a, err
		}
		n.usual = &a
	}
	return *n.usual, nil
}

// Given is Kubernetes' own access, and that of the embedded manifests.
func Given() (Access, error) {
	a := Access{
		ClusterRoles:        append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...),
		ClusterRoleBindings: append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...),
	}
	for namespace, roles := range bootstrappolicy.NamespaceRoles() {
		for _, r := range roles {
			r.Namespace = namespace
			a.Roles = append(a.Roles, r)
		}
	}
	for namespace, bindings := range bootstrappolicy.NamespaceRoleBindings() {
		for _, b := range bindings {
			b.Namespace = namespace
			a.RoleBindings = append(a.RoleBindings, b)
		}
	}
	return a, fs.WalkDir(manifests.FS, ".", func(file string, e fs.DirEntry, err error) error {
		if err != nil || path.Ext(file) != ".yaml" {
			return err
		}
		data, err := manifests.FS.ReadFile(file)
		if err != nil {
			return err
		}
		for _, document := range bytes.Split(data, []byte("\n---\n")) {
			if err := a.add(document); err != nil {
				return fmt.Errorf("manifest %s: %w", file, err)
			}
		}
		return nil
	})
}

// add adds an object if it is one of access.
func (a *Access) add(document []byte) error {
	var head struct {
		Kind string `json:"kind"`
	}
	if err := yaml.Unmarshal(document, &head); err != nil {
		return err
	}
	switch head.Kind {
	case "ClusterRole":
		return decode(document, &a.ClusterRoles)
	case "Role":
		return decode(document, &a.Roles)
	case "ClusterRoleBinding":
		return decode(document, &a.ClusterRoleBindings)
	case "RoleBinding":
		return decode(document, &a.RoleBindings)
	}
	return nil
}

func decode[T any](document []byte, all *[]T) error {
	var one T
	if err := yaml.Unmarshal(document, &one); err != nil {
		return err
	}
	*all = append(*all, one)
	return nil
}

// beyond is who has matching rights that neither Kubernetes nor lite grants. A role of
// theirs that somebody has extended counts with the extension.
func beyond(n *Node, o *Objects, fits func(kind, name string, rules []rbacv1.PolicyRule) bool) ([]string, error) {
	byDefault, err := n.given()
	if err != nil {
		return nil, err
	}
	known := byDefault.grants(fits)
	var more []string
	for _, g := range o.grants(fits) {
		if !slices.Contains(known, g) {
			more = append(more, g.String())
		}
	}
	slices.Sort(more)
	return more, nil
}

// rarely passes while only components of Kubernetes and lite have a right. Whoever else has
// it is for a person to judge.
func rarely(rights ...right) judge {
	return onlyGiven(func(_, _ string, rules []rbacv1.PolicyRule) bool {
		return slices.ContainsFunc(rights, func(r right) bool { return r.in(rules) })
	})
}

func onlyGiven(fits func(kind, name string, rules []rbacv1.PolicyRule) bool) judge {
	return among(func(n *Node, o *Objects) finding {
		more, err := beyond(n, o, fits)
		switch {
		case err != nil:
			return unknown(err.Error())
		case len(more) > 0:
			return decide("besides the components of Kubernetes and lite: " + few(more))
		}
		return pass("only components of Kubernetes and lite")
	})
}

// wildcards judges roles with * for a group, a resource or a verb.
func wildcards(n *Node, o *Objects) finding {
	byDefault, err := n.given()
	if err != nil {
		return unknown(err.Error())
	}
	stars := func(a Access) (names []string) {
		any := func(rules []rbacv1.PolicyRule) bool {
			return slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool {
				return slices.Contains(r.Verbs, "*") || slices.Contains(r.Resources, "*") || slices.Contains(r.APIGroups, "*")
			})
		}
		for _, r := range a.ClusterRoles {
			if any(r.Rules) {
				names = append(names, "ClusterRole "+r.Name)
			}
		}
		for _, r := range a.Roles {
			if any(r.Rules) {
				names = append(names, "Role "+r.Namespace+"/"+r.Name)
			}
		}
		return names
	}
	known := stars(byDefault)
	more := slices.DeleteFunc(stars(o.Access), func(name string) bool { return slices.Contains(known, name) })
	if len(more) > 0 {
		slices.Sort(more)
		return decide("besides Kubernetes' own: " + few(more))
	}
	return pass("only roles of Kubernetes itself")
}
