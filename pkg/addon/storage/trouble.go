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
	// What went wrong is tried again, at first after retryFirst, at last after retryLast.
	retryFirst = time.Second
	retryLast  = time.Minute
	// sayAgain is before the event of the same trouble is forgotten, which the API
	// server does after an hour.
	sayAgain = 30 * time.Minute
)

// trouble is what is wrong with claims and volumes, said to their users.
type trouble struct {
	client kubernetes.Interface
	host   string // the node that says it; "" = the controller

	mu   sync.Mutex
	said map[string]saying // by the name of the claim or volume
}

type saying struct {
	text string
	at   time.Time
}

// tell makes an event of a problem, unless it did so a while ago; nil is the end
// of one.
func (t *trouble) tell(ctx context.Context, name string, about *v1.ObjectReference, reason string, problem error) {
	t.mu.Lock()
	before := t.said[name]
	if problem == nil {
		delete(t.said, name)
		t.mu.Unlock()
		return
	}
	now := saying{problem.Error(), time.Now()}
	known := before.text == now.text && now.at.Sub(before.at) < sayAgain
	if !known && ctx.Err() == nil {
		if t.said == nil {
			t.said = map[string]saying{}
		}
		t.said[name] = now
	}
	t.mu.Unlock()
	if known || ctx.Err() != nil {
		return
	}
	slog.Warn("A volume has a problem", "of", name, "err", problem)
	message := now.text
	if t.host != "" {
		message = "On node " + t.host + ": " + message
	}
	t.event(ctx, about, v1.EventTypeWarning, reason, message)
}

// keep forgets all but the given names, and reports whether anything is wrong.
func (t *trouble) keep(names map[string]bool) (well bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.said, func(name string, _ saying) bool { return !names[name] })
	return len(t.said) == 0
}

// note says it in one line; "" = nothing is wrong.
func (t *trouble) note() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.said) == 0 {
		return ""
	}
	name := slices.Min(slices.Collect(maps.Keys(t.said)))
	return fmt.Sprintf("with problems: %d; %s: %s", len(t.said), name, t.said[name].text)
}

// event makes an event. They are rare, so nothing has to collect and count them.
func (t *trouble) event(ctx context.Context, about *v1.ObjectReference, kind, reason, message string) {
	now := metav1.Now()
	namespace := cmp.Or(about.Namespace, metav1.NamespaceDefault)
	_, err := t.client.CoreV1().Events(namespace).Create(ctx, &v1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: about.Name[:min(len(about.Name), 200)] + ".", Namespace: namespace},
		InvolvedObject: *about,
		Reason:         reason,
		Message:        message[:min(len(message), 1024)],
		Type:           kind,
		Source:         v1.EventSource{Component: layout.Provisioner, Host: t.host},
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
