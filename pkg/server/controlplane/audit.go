package controlplane

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// boundAudit keeps the lines of the audit log short, whatever a request has in it. Upstream
// bounds the name of a client's program alone (1.37): a path, a name, headers of proxies and the
// error that quotes them fill a line with a megabyte, and by a few thousand such all older lines
// are gone. Its own bound leaves out a line that is too long, and so what somebody would hide.
func boundAudit(cfg *app.Config) {
	if backend := cfg.Aggregator.GenericConfig.AuditBackend; backend != nil {
		cfg.Aggregator.GenericConfig.AuditBackend = shortLines{backend}
	}
}

const (
	mostText  = 4 << 10 // of each text in a line
	mostParts = 16      // of each list
)

type shortLines struct{ audit.Backend }

// ProcessEvents implements audit.Sink. An event is not to be changed.
func (b shortLines) ProcessEvents(events ...*auditinternal.Event) bool {
	short := make([]*auditinternal.Event, len(events))
	for i, e := range events {
		short[i] = shorten(e)
	}
	return b.Backend.ProcessEvents(short...)
}

// shorten leaves what was sent and answered (RequestObject, ResponseObject) as it is: who wants
// that in the log says so in a policy.
func shorten(e *auditinternal.Event) *auditinternal.Event {
	s := *e
	s.AuditID, s.RequestURI, s.Verb = types.UID(cut(string(e.AuditID))), cut(e.RequestURI), cut(e.Verb)
	// The last is who was connected, and those before are what headers say.
	s.SourceIPs = slices.Clone(e.SourceIPs[max(0, len(e.SourceIPs)-mostParts):])
	if e.ObjectRef != nil {
		o := *e.ObjectRef
		for _, text := range []*string{&o.Resource, &o.Namespace, &o.Name, (*string)(&o.UID), &o.APIGroup, &o.APIVersion, &o.ResourceVersion,
			&o.Subresource} {
			*text = cut(*text)
		}
		s.ObjectRef = &o
	}
	if e.ResponseStatus != nil {
		s.ResponseStatus = shortStatus(e.ResponseStatus)
	}
	if len(e.Annotations) > 0 {
		s.Annotations = make(map[string]string, len(e.Annotations))
		for key, text := range e.Annotations {
			s.Annotations[key] = cut(text)
		}
	}
	return &s
}

func shortStatus(status *metav1.Status) *metav1.Status {
	s := *status
	s.Message = cut(s.Message)
	if status.Details != nil {
		d := *status.Details
		d.Name = cut(d.Name)
		d.Causes = slices.Clone(d.Causes[:min(len(d.Causes), mostParts)])
		for i := range d.Causes {
			d.Causes[i].Message, d.Causes[i].Field = cut(d.Causes[i].Message), cut(d.Causes[i].Field)
		}
		s.Details = &d
	}
	return &s
}

func cut(text string) string {
	if len(text) <= mostText {
		return text
	}
	return strings.ToValidUTF8(text[:mostText], "") + fmt.Sprintf("… (%d bytes)", len(text))
}
