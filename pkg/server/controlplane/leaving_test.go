package controlplane

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
)

// webhooks is the plugin that asks users' webhooks.
type webhooks struct {
	*admission.Handler
	err error
}

func (w webhooks) Validate(context.Context, admission.Attributes, admission.ObjectInterfaces) error {
	return w.err
}

// Who removes members is asked about Nodes that are deleted, by name or with others, and after all who may refuse.
func TestLeaving(t *testing.T) {
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		resource, subresource string
		operation             admission.Operation
		gone                  runtime.Object
		webhook, answer       error
		want                  string // the node that was asked about
	}{
		"deleted":          {resource: "nodes", operation: admission.Delete, gone: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, want: "a"},
		"refused":          {resource: "nodes", operation: admission.Delete, gone: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, answer: refused, want: "a"},
		"a webhook denies": {resource: "nodes", operation: admission.Delete, gone: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, webhook: refused},
		"a pod":            {resource: "pods", operation: admission.Delete, gone: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}},
		"updated":          {resource: "nodes", operation: admission.Update, gone: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}},
		"a part":           {resource: "nodes", subresource: "proxy", operation: admission.Delete, gone: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}},
		"all, not yet":     {resource: "nodes", operation: admission.Delete},
	} {
		var asked string
		l := leaving{func(_ context.Context, node string, dry bool) error {
			if !dry {
				t.Errorf("%s: a try is none", name)
			}
			asked = node
			return c.answer
		}}
		plugin := l.Decorate(webhooks{admission.NewHandler(admission.Delete, admission.Update), c.webhook}, validating.PluginName)
		err := plugin.(admission.ValidationInterface).Validate(t.Context(), admission.NewAttributesRecord(nil, c.gone, schema.GroupVersionKind{}, "", "",
			schema.GroupVersionResource{Version: "v1", Resource: c.resource}, c.subresource, c.operation, &metav1.DeleteOptions{}, true, nil), nil)
		if fails := c.webhook != nil || c.answer != nil; asked != c.want || errors.Is(err, refused) != fails || !fails && err != nil {
			t.Errorf("%s: asked about %q, %v", name, asked, err)
		}
	}
	other := webhooks{Handler: admission.NewHandler(admission.Delete)}
	if got := (leaving{func(context.Context, string, bool) error { return nil }}).Decorate(other, "NodeRestriction"); got != admission.Interface(other) {
		t.Error("another plugin is changed")
	}
	if got := (leaving{}).Decorate(other, validating.PluginName); got != admission.Interface(other) {
		t.Error("with nobody to ask it is changed")
	}
}
