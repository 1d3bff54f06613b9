package storage

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/layout"
)

const (
	// What failed is retried, first after retryFirst, and at most every retryLast.
	retryFirst = time.Second
	retryLast  = time.Minute
	// repeatAfter is when the event of an unchanged problem is posted again: before the
	// API server forgets it, which it does after an hour.
	repeatAfter = 30 * time.Minute
)

// problems is what is wrong with claims and volumes. Their users read it in events.
type problems struct {
	client kubernetes.Interface
	host   string // the node that reports it; "" = the controller

	mu     sync.Mutex
	posted map[string]posted // by the name of the claim or volume
}

type posted struct {
	text string
	at   time.Time
}

// report posts an event about a problem, unless it did so a short while ago. nil ends a
// problem.
func (p *problems) report(ctx context.Context, name string, about *v1.ObjectReference, reason string, problem error) {
	p.mu.Lock()
	before := p.posted[name]
	if problem == nil {
		delete(p.posted, name)
		p.mu.Unlock()
		return
	}
	now := posted{problem.Error(), time.Now()}
	known := before.text == now.text && now.at.Sub(before.at) < repeatAfter
	if !known && ctx.Err() == nil {
		if p.posted == nil {
			p.posted = map[string]posted{}
		}
		p.posted[name] = now
	}
	p.mu.Unlock()
	if known || ctx.Err() != nil {
		return
	}
	slog.Warn("A volume has a problem", "of", name, "err", problem)
	message := now.text
	if p.host != "" {
		message = "On node " + p.host + ": " + message
	}
	p.event(ctx, about, v1.EventTypeWarning, reason, message)
}

// retain forgets the problems of all other names, and reports whether none is left.
func (p *problems) retain(names map[string]bool) (well bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.posted, func(name string, _ posted) bool { return !names[name] })
	return len(p.posted) == 0
}

// note is all problems in one line; "" = none.
func (p *problems) note() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.posted) == 0 {
		return ""
	}
	name := slices.Min(slices.Collect(maps.Keys(p.posted)))
	return fmt.Sprintf("with problems: %d; %s: %s", len(p.posted), name, p.posted[name].text)
}

// event posts an event. They are rare, so nothing has to aggregate them.
func (p *problems) event(ctx context.Context, about *v1.ObjectReference, kind, reason, message string) {
	now := metav1.Now()
	namespace := cmp.Or(about.Namespace, metav1.NamespaceDefault)
	_, err := p.client.CoreV1().Events(namespace).Create(ctx, &v1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: about.Name[:min(len(about.Name), 200)] + ".", Namespace: namespace},
		InvolvedObject: *about,
		Reason:         reason,
		Message:        message[:min(len(message), 1024)],
		Type:           kind,
		Source:         v1.EventSource{Component: layout.Provisioner, Host: p.host},
		FirstTimestamp: now,
		LastTimestamp:  now,
		Count:          1,
	}, metav1.CreateOptions{})
	if err != nil && ctx.Err() == nil {
		slog.Warn("Cannot post an event about a volume", "of", about.Name, "message", message, "err", err)
	}
}

// aboutVolume is what an event about a volume refers to.
func aboutVolume(pv *v1.PersistentVolume) *v1.ObjectReference {
	return &v1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolume", Name: pv.Name, UID: pv.UID}
}

// signal holds one: something has changed.
type signal chan struct{}

func (s signal) set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// work calls sync at once, at each change, and again after a while if not all
// went well, until ctx is done.
func (s signal) work(ctx context.Context, sync func(context.Context) (well bool)) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	pause := retryFirst
	for {
		select {
		case <-s:
		case <-retry.C:
		case <-ctx.Done():
			return
		}
		if sync(ctx) {
			retry.Stop()
			pause = retryFirst
		} else {
			retry.Reset(pause)
			pause = min(2*pause, retryLast)
		}
	}
}
