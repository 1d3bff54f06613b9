// Package policy enforces NetworkPolicies on a node, by nftables.
//
// There is one table of ours, and none while the cluster has no policy. It is the
// same on every node: what a pod may send is decided where the packet enters the
// pod network, what a pod may get both there and where the pod is. So a client
// from outside is judged by its own address, whichever node it comes by, before
// kube-proxy hides it behind the node's.
//
// filter computes what the table should hold and how that differs from what it
// holds, touching nothing; table writes it; Policy listens to the API.
package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// Config is the configuration of the component.
type Config struct {
	Client      *kube.Client
	Nodes       *kube.Nodes
	ClusterCIDR []netip.Prefix // has the IP families of pods
	Runtime     string         // unix:// URL of the CRI
	// Firewall notices when somebody removes the table, or something in it.
	Firewall *firewall.Watcher
}

const (
	// checkEvery is how often the table and the settings for bridges are checked without an
	// event, in case one was lost.
	checkEvery = 30 * time.Second
	// checkTimeout is how long to wait for a check of the table. While it is being written,
	// or that fails, there is nothing to find out.
	checkTimeout = 5 * time.Second
	// askEvery is the first pause between requests that find out whether the node may list
	// policies. Without an API, they become less frequent.
	askEvery, askAtLast = 250 * time.Millisecond, 4 * time.Second
	// A failed write is retried after retryFirst, then less and less often.
	retryFirst, retryLast = time.Second, 30 * time.Second
)

// Policy is the component.
type Policy struct {
	config  Config
	changed chan struct{} // holds one; something that the filter has to know has
	checks  chan chan<- bool

	mu     sync.Mutex
	filter *filter
	own    []uint32 // generations of the packet filter that this process last made

	synced  atomic.Bool
	reason  atomic.Pointer[error]  // why it is not synced
	problem atomic.Pointer[string] // why policies are not in force
}

// New makes the component; nothing is touched before Run.
func New(c Config) *Policy {
	return &Policy{config: c, changed: make(chan struct{}, 1), checks: make(chan chan<- bool), filter: newFilter(families(c.ClusterCIDR))}
}

// Name implements component.Component.
func (*Policy) Name() string { return "networkpolicy" }

// Settings implements component.Configured. It has none, which distinguishes it from
// Absent.
func (*Policy) Settings() (component.Settings, error) { return component.Settings{}, nil }

// Ready implements component.Component.
func (p *Policy) Ready(context.Context) error {
	if p.synced.Load() {
		return nil
	}
	if reason := p.reason.Load(); reason != nil {
		return *reason
	}
	return errors.New("waiting for the API")
}

// Note implements component.Noter.
func (p *Policy) Note() string {
	if problem := p.problem.Load(); problem != nil {
		return *problem
	}
	return ""
}

// Run implements component.Component. It leaves the table as it is when it stops: pods
// outlive the process, and so do their policies.
func (p *Policy) Run(ctx context.Context) error {
	client, err := p.config.Client.Clientset()
	if err != nil {
		return err
	}
	p.awaitPermission(ctx, client)
	leave, err := kube.Follow(ctx, p.policies(client))
	defer leave()
	if err != nil {
		return err
	}
	e := &enforcer{Policy: p, client: client}
	defer e.stopWatching()
	defer p.config.Firewall.Keep(firewall.Awake(layout.PolicyTable))()
	defer p.config.Firewall.Keep(firewall.Part{Missing: p.missing, Restore: func(context.Context) error { return nil }})()
	for ctx.Err() == nil {
		e.step(ctx)
	}
	return nil
}

// awaitPermission asks until the API lets this node list policies. At the first
// start of a cluster it may not yet; an informer would wait ever longer.
func (p *Policy) awaitPermission(ctx context.Context, client kubernetes.Interface) {
	for pause := askEvery; ctx.Err() == nil; pause = min(2*pause, askAtLast) {
		_, err := client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{Limit: 1})
		if err == nil {
			p.reason.Store(nil)
			return
		}
		if apierrors.IsForbidden(err) {
			pause = askEvery / 2
			err = errors.New("waiting for the permission to list NetworkPolicies, which a server grants")
		} else {
			err = fmt.Errorf("list NetworkPolicies: %w", err)
		}
		p.reason.Store(&err)
		kube.Sleep(ctx, pause)
	}
}

// missing has the table checked when somebody else has removed something from it. If the
// table is not right, it is rewritten.
func (p *Policy) missing(ctx context.Context, lost firewall.Lost) ([]string, error) {
	if !lost.Unknown && !slices.ContainsFunc(lost.Changes, func(c firewall.Change) bool {
		return c.Table == firewall.Table{Family: "inet", Name: layout.PolicyTable} && !p.wrote(c.Generation)
	}) {
		return nil, nil
	}
	ctx, stop := context.WithTimeout(ctx, checkTimeout)
	defer stop()
	right := make(chan bool, 1)
	select {
	case p.checks <- right:
	case <-ctx.Done():
		return nil, nil
	}
	select {
	case ok := <-right:
		if ok {
			return nil, nil
		}
		return []string{"table inet " + layout.PolicyTable}, nil
	case <-ctx.Done():
		return nil, nil
	}
}

// wrote reports whether this process has made a generation of the packet filter.
func (p *Policy) wrote(generation uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.own, generation)
}

// change lets f change the filter.
func (p *Policy) change(f func(*filter)) {
	p.mu.Lock()
	f(p.filter)
	p.mu.Unlock()
	p.notify()
}

func (p *Policy) notify() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// enforcer is what Run keeps while it runs.
type enforcer struct {
	*Policy
	client kubernetes.Interface
	table  *table // nil before the program nft was first found
	// stop ends what is watched besides policies; nil while there are none.
	stop    func()
	written bool      // the table is as the filter handed it out
	checked time.Time // when that was last seen to be so
	cleared bool      // there is no table
	backoff time.Duration
}

// step brings the kernel up to date and waits for something to do.
func (e *enforcer) step(ctx context.Context) {
	err := e.sync(ctx)
	if ctx.Err() != nil {
		return
	}
	var again, check <-chan time.Time // never
	if err != nil {
		e.complain(err)
		e.backoff = min(max(2*e.backoff, retryFirst), retryLast)
		t := time.NewTimer(e.backoff)
		defer t.Stop()
		again = t.C
	} else {
		e.backoff = 0
		e.problem.Store(nil)
	}
	e.synced.Store(true)
	if e.written {
		// Not from now: in a busy cluster, changes never end.
		t := time.NewTimer(time.Until(e.checked.Add(checkEvery)))
		defer t.Stop()
		check = t.C
	}
	select {
	case <-again:
	case <-check:
		e.check(ctx)
	case right := <-e.checks:
		right <- e.check(ctx)
	case <-e.changed:
		// While writing fails, changes do not cause more attempts.
		if err != nil {
			kube.Sleep(ctx, e.backoff)
		}
	case <-ctx.Done():
	}
}

// sync makes the table match the API, or removes it if there is no policy.
func (e *enforcer) sync(ctx context.Context) error {
	e.mu.Lock()
	none := len(e.filter.policies) == 0
	e.mu.Unlock()
	if none {
		return e.rest(ctx)
	}
	if e.stop == nil {
		if err := e.startWatching(ctx); err != nil {
			return err
		}
	}
	if e.table == nil {
		t, err := openTable(families(e.config.ClusterCIDR))
		if err != nil {
			return err
		}
		e.table = t
	}
	return e.write(ctx)
}

func (e *enforcer) write(ctx context.Context) error {
	e.mu.Lock()
	changes := e.filter.next()
	e.mu.Unlock()
	if changes.empty() {
		return nil
	}
	e.cleared = false
	if err := e.table.write(ctx, changes); err != nil {
		e.mu.Lock()
		e.filter.startOver()
		e.mu.Unlock()
		e.written = false
		return fmt.Errorf("write the rules: %w", err)
	}
	e.remember(e.table.right)
	if !e.written {
		e.checked = time.Now()
	}
	e.written = true
	return nil
}

// remember keeps the last generations that are ours, enough until their events arrive; 0 is
// none.
func (e *enforcer) remember(generation uint32) {
	const enough = 64
	if generation == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.own = append(e.own, generation)
	e.own = e.own[max(0, len(e.own)-enough):]
}

// rest leaves nothing behind that policies need: no table, no watch, no memory.
func (e *enforcer) rest(ctx context.Context) error {
	e.stopWatching()
	if e.cleared {
		return nil
	}
	e.mu.Lock()
	e.filter.forget()
	e.mu.Unlock()
	if err := Remove(ctx); err != nil {
		return err
	}
	e.written, e.cleared = false, true
	return nil
}

// check checks whether somebody has removed the table or flushed some of it. If so, it
// returns false, and the next step rewrites the table.
func (e *enforcer) check(ctx context.Context) (right bool) {
	if !e.written {
		return true
	}
	e.checked = time.Now()
	e.mu.Lock()
	settled := e.filter.settled()
	rules, elements := e.filter.size()
	e.mu.Unlock()
	if !settled { // a change has come just now: what is written is not known
		e.checked = time.Time{}
		return true
	}
	intact, err := e.table.intact(ctx, rules, elements)
	if err != nil {
		slog.Warn("Cannot check the rules of NetworkPolicies", "err", err)
	}
	if err == nil && !intact {
		slog.Warn("Somebody has changed the rules of NetworkPolicies; restoring them", "table", layout.PolicyTable)
		e.mu.Lock()
		e.filter.startOver()
		e.mu.Unlock()
	}
	return err != nil || intact
}

// complain reports why policies are not in force: in `lite status`, and in the log when
// that changes.
func (e *enforcer) complain(err error) {
	text := "NetworkPolicies are NOT in force: " + err.Error()
	if e.written {
		text = "changes to NetworkPolicies are not in force: " + err.Error()
	}
	if before := e.problem.Swap(&text); before == nil || *before != text {
		slog.Error("Cannot enforce NetworkPolicies", "err", err)
	}
}

// Absent stands in for the component where it is disabled: it removes what an
// earlier run has left on the node.
type Absent struct{ removed atomic.Bool }

// Name implements component.Component.
func (*Absent) Name() string { return "networkpolicy" }

// Ready implements component.Component.
func (a *Absent) Ready(context.Context) error {
	if !a.removed.Load() {
		return errors.New("removing the rules of NetworkPolicies")
	}
	return nil
}

// Note implements component.Noter.
func (*Absent) Note() string { return "disabled" }

// Run implements component.Component.
func (a *Absent) Run(ctx context.Context) error {
	if err := Remove(ctx); err != nil {
		slog.Warn("Cannot remove the rules of NetworkPolicies", "err", err, "remedy", "nft delete table inet "+layout.PolicyTable)
	}
	a.removed.Store(true)
	<-ctx.Done()
	return nil
}
