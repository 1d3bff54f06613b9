package approver

import (
	"sync"
	"time"

	certificates "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/types"
)

// index finds the requests for a client certificate of one node: to list and parse
// all for each decision takes longer the more there are, and who floods makes that
// many. It is fed by the watch, and by what the worker has read and written itself: a
// decision counts for the next one, though the watch may not have told yet.
type index struct {
	mu       sync.Mutex
	byObject map[string]*entry
	byNode   map[string]map[string]*entry
}

// entry is what counts of a request once it is known to be of the right form.
type entry struct {
	object   string // its name
	uid      types.UID
	node     string
	key      string
	from     string // the address of who has asked; "" if that is not known
	joins    bool
	created  time.Time
	approved time.Time // zero if it was not
	decided  bool
	issued   bool
}

func newIndex() *index {
	return &index{byObject: map[string]*entry{}, byNode: map[string]map[string]*entry{}}
}

// put takes a request in as it is now. It goes by what is further: the watch may be
// behind what the worker has written.
func (x *index) put(csr *certificates.CertificateSigningRequest) {
	if csr.Spec.SignerName != certificates.KubeAPIServerClientKubeletSignerName {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.byObject[csr.Name]
	if e == nil || e.uid != csr.UID {
		x.remove(csr.Name)
		r, wrong := parse(csr)
		if wrong != nil {
			return // nobody has to wait for it
		}
		e = r.entry()
		x.byObject[e.object] = e
		if x.byNode[e.node] == nil {
			x.byNode[e.node] = map[string]*entry{}
		}
		x.byNode[e.node][e.object] = e
	}
	e.decided = e.decided || !pending(csr)
	e.issued = e.issued || len(csr.Status.Certificate) > 0
	if c := condition(csr, certificates.CertificateApproved); c != nil {
		e.approved = c.LastUpdateTime.Time
	}
}

// keep drops all requests but those that are there.
func (x *index) keep(there map[string]bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for name := range x.byObject {
		if !there[name] {
			x.remove(name)
		}
	}
}

func (x *index) drop(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(name)
}

func (x *index) remove(name string) {
	e := x.byObject[name]
	if e == nil {
		return
	}
	delete(x.byObject, name)
	if delete(x.byNode[e.node], name); len(x.byNode[e.node]) == 0 {
		delete(x.byNode, e.node)
	}
}

// nodeOf is the node that a request is for; "" if it is not known.
func (x *index) nodeOf(object string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.byObject[object]; e != nil {
		return e.node
	}
	return ""
}

// others returns the other requests for a certificate of the same node, as they are.
func (x *index) others(r *request) (others []entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for name, e := range x.byNode[r.name] {
		if name != r.object.Name {
			others = append(others, *e)
		}
	}
	return others
}

// lastIssued is the entry whose certificate is the newest, or nil.
func lastIssued(entries []entry) (last *entry) {
	for i, e := range entries {
		if e.issued && (last == nil || e.approved.After(last.approved)) {
			last = &entries[i]
		}
	}
	return last
}
