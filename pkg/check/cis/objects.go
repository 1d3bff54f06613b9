package cis

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Objects is what a cluster holds that entries are about. There are no Secrets and no
// ConfigMaps among it.
type Objects struct {
	Access
	Namespaces      []corev1.Namespace
	ServiceAccounts []corev1.ServiceAccount
	Pods            []corev1.Pod
	Policies        []networkingv1.NetworkPolicy
}

// Access is who may do what.
type Access struct {
	ClusterRoles        []rbacv1.ClusterRole
	Roles               []rbacv1.Role
	ClusterRoleBindings []rbacv1.ClusterRoleBinding
	RoleBindings        []rbacv1.RoleBinding
}

// ReadObjects reads them from the API, in pages.
func ReadObjects(ctx context.Context, c kubernetes.Interface) (*Objects, error) {
	o := &Objects{}
	for _, ask := range []func() error{
		pages("ClusterRoles", &o.ClusterRoles, func(l metav1.ListOptions) ([]rbacv1.ClusterRole, string, error) {
			list, err := c.RbacV1().ClusterRoles().List(ctx, l)
			return list.Items, list.Continue, err
		}),
		pages("Roles", &o.Roles, func(l metav1.ListOptions) ([]rbacv1.Role, string, error) {
			list, err := c.RbacV1().Roles("").List(ctx, l)
			return list.Items, list.Continue, err
		}),
		pages("ClusterRoleBindings", &o.ClusterRoleBindings, func(l metav1.ListOptions) ([]rbacv1.ClusterRoleBinding, string, error) {
			list, err := c.RbacV1().ClusterRoleBindings().List(ctx, l)
			return list.Items, list.Continue, err
		}),
		pages("RoleBindings", &o.RoleBindings, func(l metav1.ListOptions) ([]rbacv1.RoleBinding, string, error) {
			list, err := c.RbacV1().RoleBindings("").List(ctx, l)
			return list.Items, list.Continue, err
		}),
		pages("Namespaces", &o.Namespaces, func(l metav1.ListOptions) ([]corev1.Namespace, string, error) {
			list, err := c.CoreV1().Namespaces().List(ctx, l)
			return list.Items, list.Continue, err
		}),
		pages("ServiceAccounts", &o.ServiceAccounts, func(l metav1.ListOptions) ([]corev1.ServiceAccount, string, error) {
			list, err := c.CoreV1().ServiceAccounts("").List(ctx, l)
			return list.Items, list.Continue, err
		}),
		pages("Pods", &o.Pods, func(l metav1.ListOptions) ([]corev1.Pod, string, error) {
			list, err := c.CoreV1().Pods("").List(ctx, l)
			return list.Items, list.Continue, err
		}),
		pages("NetworkPolicies", &o.Policies, func(l metav1.ListOptions) ([]networkingv1.NetworkPolicy, string, error) {
			list, err := c.NetworkingV1().NetworkPolicies("").List(ctx, l)
			return list.Items, list.Continue, err
		}),
	} {
		if err := ask(); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// pages appends all pages of a list.
func pages[T any](what string, all *[]T, list func(metav1.ListOptions) ([]T, string, error)) func() error {
	return func() error {
		options := metav1.ListOptions{Limit: 500}
		for {
			items, next, err := list(options)
			if err != nil {
				return fmt.Errorf("list %s: %w", what, err)
			}
			*all = append(*all, items...)
			if next == "" {
				return nil
			}
			options.Continue = next
		}
	}
}

// among judges the objects of the cluster.
func among(assess func(*Node, *Objects) finding) judge {
	return func(n *Node) finding {
		if n.Objects == nil {
			return finding{status: Unknown, seen: n.NoObjects, remedy: n.ObjectsRemedy}
		}
		return assess(n, n.Objects)
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
