package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/kubernetes/plugin/pkg/admission/noderestriction"

	"lite.io/lite/pkg/layout"
)

// Writes bounds what a node writes, and a machine with a token. A node may write little
// more than its own Node, but that as often as it likes and at a megabyte, and events: one
// agent filled the datastore of the whole cluster within a minute, and nobody could write
// any more. It is asked together with the plugin NodeRestriction.
type Writes struct {
	mu    sync.Mutex
	rates recent[*rate.Limiter]
}

// What of a node goes into the datastore, in bytes a second. It holds everything until it
// is compacted, within 5 to 10 minutes, events for an hour, and what else is made until
// somebody removes it. A node of 500 pods stays below.
const (
	perNode, burstPerNode       = 512 << 10, 128 << 20
	eventsOfNode, burstOfEvents = 64 << 10, 16 << 20
	madeByNode, burstOfMade     = 16 << 10, 16 << 20
)

// mostOfRequest is how long a certificate signing request may be; a kubelet's has 2 KiB.
const mostOfRequest = 64 << 10

// Decorate implements admission.Decorator.
func (w *Writes) Decorate(handler admission.Interface, name string) admission.Interface {
	if name != noderestriction.PluginName {
		return handler
	}
	return weighed{handler, w}
}

// weighed is a plugin that measures what is written once it is complete.
type weighed struct {
	admission.Interface
	writes *Writes
}

// Admit implements admission.MutationInterface.
func (k weighed) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if plugin, ok := k.Interface.(admission.MutationInterface); ok {
		return plugin.Admit(ctx, a, o)
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (k weighed) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if plugin, ok := k.Interface.(admission.ValidationInterface); ok {
		if err := plugin.Validate(ctx, a, o); err != nil {
			return err
		}
	}
	return k.writes.weigh(a)
}

func (w *Writes) weigh(a admission.Attributes) error {
	u := a.GetUserInfo()
	if u == nil || a.GetObject() == nil || !strings.HasPrefix(u.GetName(), layout.NodeUser) &&
		!strings.HasPrefix(u.GetName(), layout.TokenUser) {
		return nil
	}
	group := a.GetResource().Group
	if group == "authentication.k8s.io" || group == "authorization.k8s.io" || a.GetSubresource() == "token" {
		return nil // answers, which are kept nowhere
	}
	text, err := json.Marshal(a.GetObject())
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("what %s writes cannot be measured: %v", u.GetName(), err))
	}
	if group == "certificates.k8s.io" && len(text) > mostOfRequest {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("a certificate signing request of a node may have %d KiB at most", mostOfRequest>>10))
	}
	if !w.allow(u.GetName(), kindOf(a), len(text)) {
		return tooMuch(u.GetName(), a.GetResource().Resource)
	}
	return nil
}

// kindOf reports how long something is kept.
func kindOf(a admission.Attributes) string {
	switch {
	case a.GetResource().Resource == "events":
		return "events"
	case a.GetOperation() == admission.Create:
		return "made"
	}
	return ""
}

func (w *Writes) allow(who, kind string, size int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	all := w.rates.of(who, func() *rate.Limiter { return rate.NewLimiter(perNode, burstPerNode) })
	own := all
	switch kind {
	case "events":
		own = w.rates.of(who+"\n"+kind, func() *rate.Limiter { return rate.NewLimiter(eventsOfNode, burstOfEvents) })
	case "made":
		own = w.rates.of(who+"\n"+kind, func() *rate.Limiter { return rate.NewLimiter(madeByNode, burstOfMade) })
	}
	return own.AllowN(now, size) && (own == all || all.AllowN(now, size))
}

// tooMuch is an answer after which Kubernetes' clients ask again.
func tooMuch(who, what string) error {
	const seconds = 10
	return apierrors.NewTooManyRequests(fmt.Sprintf(
		"%s writes more than a node should, last %s; retry in %d s. If that is not its kubelet, revoke it with `lite node revoke`", who, what, seconds), seconds)
}
