package controlplane

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
)

type lines struct {
	audit.Backend
	events []*auditinternal.Event
}

func (l *lines) ProcessEvents(events ...*auditinternal.Event) bool {
	l.events = append(l.events, events...)
	return true
}

// One request wrote a line of a megabyte, by its path, its name, or what a proxy's header says.
func TestLinesOfTheAuditLogAreShort(t *testing.T) {
	long := strings.Repeat("é", 1<<19)
	var through []string
	for i := range 1 << 16 {
		through = append(through, fmt.Sprintf("192.0.%d.%d", i>>8, i&255))
	}
	for name, e := range map[string]auditinternal.Event{
		"path":    {RequestURI: "/api/v1/" + long},
		"name":    {ObjectRef: &auditinternal.ObjectReference{Name: long, Namespace: long, Resource: long}},
		"refusal": {ResponseStatus: &metav1.Status{Message: long, Details: &metav1.StatusDetails{Name: long, Causes: []metav1.StatusCause{{Message: long}}}}},
		"causes":  {ResponseStatus: &metav1.Status{Details: &metav1.StatusDetails{Causes: make([]metav1.StatusCause, 1<<16)}}},
		"proxies": {SourceIPs: append(through, "198.51.100.7")},
		"reason":  {Annotations: map[string]string{"authorization.k8s.io/reason": long}},
		"ID":      {AuditID: "x" + "y", Verb: long},
	} {
		t.Run(name, func(t *testing.T) {
			before, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			l := &lines{}
			if !(shortLines{l}).ProcessEvents(&e) || len(l.events) != 1 {
				t.Fatal("the event is lost")
			}
			line, err := json.Marshal(l.events[0])
			if err != nil {
				t.Fatal(err)
			}
			if len(line) > 5*mostText {
				t.Errorf("the line has %d bytes", len(line))
			}
			if got := l.events[0].SourceIPs; name == "proxies" && got[len(got)-1] != "198.51.100.7" {
				t.Errorf("who was connected is lost: %v", got)
			}
			if after, err := json.Marshal(e); err != nil || string(after) != string(before) {
				t.Error("the event itself has changed")
			}
		})
	}
	ordinary := auditinternal.Event{RequestURI: "/api/v1/pods?limit=500", SourceIPs: []string{"192.0.2.1"}, ResponseStatus: &metav1.Status{Code: 200}}
	if got, want := fmt.Sprint(shorten(&ordinary)), fmt.Sprint(&ordinary); len(got) != len(want) {
		t.Errorf("got %s, want %s", got, want)
	}
}
