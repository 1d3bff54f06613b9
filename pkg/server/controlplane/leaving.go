package controlplane

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
)

// leaving has somebody asked before a Node is deleted, after all others have agreed: what he does cannot be undone. He
// may be asked twice for one deletion, if the Node changes meanwhile. He is asked together with the plugin that asks
// users' webhooks.
type leaving struct {
	ask func(ctx context.Context, node string, dryRun bool) error
}

// Decorate implements admission.Decorator.
func (l leaving) Decorate(handler admission.Interface, name string) admission.Interface {
	if name != validating.PluginName || l.ask == nil {
		return handler
	}
	return asked{handler, l}
}

type asked struct {
	admission.Interface
	leaving
}

// Validate implements admission.ValidationInterface. A Node is there as the old object where one is being deleted, of many
// that are deleted at once too.
func (k asked) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if plugin, ok := k.Interface.(admission.ValidationInterface); ok && k.Handles(a.GetOperation()) {
		if err := plugin.Validate(ctx, a, o); err != nil {
			return err
		}
	}
	if r := a.GetResource(); r.Group != "" || r.Resource != "nodes" || a.GetSubresource() != "" || a.GetOperation() != admission.Delete || a.GetOldObject() == nil {
		return nil
	}
	node, err := meta.Accessor(a.GetOldObject())
	if err != nil {
		return err
	}
	return k.ask(ctx, node.GetName(), a.IsDryRun())
}
