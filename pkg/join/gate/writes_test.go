package gate

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/kubernetes/pkg/apis/certificates"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/plugin/pkg/admission/noderestriction"

	"lite.io/lite/pkg/layout"
)

// passes is a plugin that has nothing against anything.
type passes struct{}

func (passes) Handles(admission.Operation) bool { return true }

// writing is a write of about that many bytes.
func writing(who, resource string, op admission.Operation, bytes int) admission.Attributes {
	meta, text := metav1.ObjectMeta{Name: "x"}, strings.Repeat("a", bytes)
	var object runtime.Object
	gvr := schema.GroupVersionResource{Version: "v1", Resource: resource}
	switch resource {
	case "events":
		object = &core.Event{ObjectMeta: meta, Message: text}
	case "certificatesigningrequests":
		gvr.Group = "certificates.k8s.io"
		meta.Annotations = map[string]string{"a": text}
		object = &certificates.CertificateSigningRequest{ObjectMeta: meta}
	case "pods":
		meta.Annotations = map[string]string{"a": text}
		object = &core.Pod{ObjectMeta: meta}
	default:
		object = &core.Node{ObjectMeta: meta, Status: core.NodeStatus{Conditions: []core.NodeCondition{{Message: text}}}}
	}
	return admission.NewAttributesRecord(object, nil, schema.GroupVersionKind{}, "", "x", gvr, "", op, nil, false, &user.DefaultInfo{Name: who})
}

// One agent filled the datastore of the whole cluster within a minute: by its own Node, by
// events, by what it makes.
func TestANodeThatWritesWithoutEnd(t *testing.T) {
	const h2, h3, token, owner = layout.NodeUser + "h2", layout.NodeUser + "h3", layout.TokenUser + "abcdef", "owner"
	for _, test := range []struct {
		who, resource string
		op            admission.Operation
		bytes         int
		most          int // how many bytes are let through in ten minutes
	}{
		{h2, "nodes", admission.Update, 1 << 20, burstPerNode + 600*perNode},
		{h2, "events", admission.Create, 1 << 20, burstOfEvents + 600*eventsOfNode},
		{h2, "pods", admission.Create, 250 << 10, burstOfMade + 600*madeByNode},
		{token, "certificatesigningrequests", admission.Create, 40 << 10, burstOfMade + 600*madeByNode},
	} {
		t.Run(fmt.Sprint(test.who, " ", test.resource), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				plugin := (&Writes{}).Decorate(passes{}, noderestriction.PluginName).(admission.ValidationInterface)
				through, refused := 0, error(nil)
				for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
					if err := plugin.Validate(t.Context(), writing(test.who, test.resource, test.op, test.bytes), nil); err != nil {
						refused = err
					} else {
						through += test.bytes
					}
				}
				if through > test.most || through < test.most/2 {
					t.Errorf("%d MiB were let through, want up to %d", through>>20, test.most>>20)
				}
				if !apierrors.IsTooManyRequests(refused) || !strings.Contains(refused.Error(), test.who) || !strings.Contains(refused.Error(), "lite node revoke") {
					t.Errorf("it is told %v", refused)
				}
				for _, others := range []admission.Attributes{writing(h3, "nodes", admission.Update, 20<<10), writing(owner, "pods", admission.Create, 1<<20)} {
					if err := plugin.Validate(t.Context(), others, nil); err != nil {
						t.Errorf("%s meanwhile: %v", others.GetUserInfo().GetName(), err)
					}
				}
			})
		})
	}
}

func TestARequestForACertificateIsShort(t *testing.T) {
	plugin := (&Writes{}).Decorate(passes{}, noderestriction.PluginName).(admission.ValidationInterface)
	for bytes, ok := range map[int]bool{2 << 10: true, 60 << 10: true, 70 << 10: false, 1 << 20: false} {
		for _, who := range []string{layout.NodeUser + "h2", layout.TokenUser + "abcdef"} {
			err := plugin.Validate(t.Context(), writing(who, "certificatesigningrequests", admission.Create, bytes), nil)
			if (err == nil) != ok || !ok && !apierrors.IsRequestEntityTooLargeError(err) {
				t.Errorf("%s, %d bytes: %v", who, bytes, err)
			}
		}
	}
	if other := (&Writes{}).Decorate(passes{}, "Priority"); other != (admission.Interface)(passes{}) {
		t.Error("other plugins are changed")
	}
}

// Half a thousand pods that restart all the time are no attack.
func TestANodeThatHasMuchToSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plugin := (&Writes{}).Decorate(passes{}, noderestriction.PluginName).(admission.ValidationInterface)
		for range 3600 {
			for _, what := range []admission.Attributes{
				writing(layout.NodeUser+"h2", "nodes", admission.Update, 30<<10), writing(layout.NodeUser+"h2", "pods", admission.Update, 400<<10),
				writing(layout.NodeUser+"h2", "events", admission.Create, 50<<10),
			} {
				if err := plugin.Validate(t.Context(), what, nil); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
	})
}
