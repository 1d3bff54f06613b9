// Package exemption keeps webhooks and admission policies of users away from what
// the control plane and nodes write to become ready, so that a policy engine that
// is down holds up what it checks and not the cluster that would bring it back.
// It remembers which of them could not be asked about all the rest.
package exemption

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/admission"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
)

var (
	webhooks = []string{mutatingwebhook.PluginName, validatingwebhook.PluginName}
	policies = []string{mutatingpolicy.PluginName, validatingpolicy.PluginName}
)

// Exemption decorates the API server's admission plugins that ask users' webhooks
// and policies.
type Exemption struct {
	refusals refusals
}

// Decorate implements admission.Decorator.
func (e *Exemption) Decorate(handler admission.Interface, name string) admission.Interface {
	policy := slices.Contains(policies, name)
	if !policy && !slices.Contains(webhooks, name) {
		return handler
	}
	return asker{handler, name, policy, &e.refusals}
}

// asker is a plugin that is asked about what is not exempt.
type asker struct {
	admission.Interface
	name     string
	policy   bool
	refusals *refusals
}

// Admit implements admission.MutationInterface.
func (k asker) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	plugin, ok := k.Interface.(admission.MutationInterface)
	if !ok {
		return nil
	}
	return k.ask(a, func() error { return plugin.Admit(ctx, a, o) })
}

// Validate implements admission.ValidationInterface.
func (k asker) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	plugin, ok := k.Interface.(admission.ValidationInterface)
	if !ok {
		return nil
	}
	return k.ask(a, func() error { return plugin.Validate(ctx, a, o) })
}

func (k asker) ask(a admission.Attributes, plugin func() error) error {
	r := find(a)
	if r != nil && !(k.policy && r.judged) {
		return nil
	}
	err := plugin()
	if r == nil {
		k.refusals.add(k.name, a, err)
		return err
	}
	if unusable(err) {
		return nil
	}
	return err
}

// unusable reports whether a policy has refused a request because it could not be
// evaluated: its parameters, or their kind, are not there. Upstream has no type
// for that (1.37), and names only the first policy that refuses.
func unusable(err error) bool { return err != nil && strings.Contains(err.Error(), unconfigured) }

const unconfigured = " denied request: failed to configure "
