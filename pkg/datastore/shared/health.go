// Package shared is what the datastores have in common that are not the process's own etcd: how they are doing, who is
// told when they were gone, and whose they are.
package shared

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// brief is how long a store may be gone without anybody hearing of it: a restart of a database, or one that another
// takes the place of.
const brief = 5 * time.Second

// Outage is that a store has not worked for a while, and works again.
type Outage struct {
	Since  time.Time
	For    time.Duration
	Reason error
}

// Health is how a store is doing, as its users see it: reads and writes by themselves, because a store that is full, or
// a standby, still answers.
type Health struct {
	mu     sync.Mutex
	since  [2]time.Time
	reason [2]error
	ended  chan Outage
}

// NewHealth is of a store of which nothing bad is known.
func NewHealth() *Health { return &Health{ended: make(chan Outage, 1)} }

// Saw records how an access went: err is nil, or why the store did not work.
func (h *Health) Saw(write bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := 0
	if write {
		i = 1
	}
	switch began := h.since[i]; {
	case err != nil && began.IsZero():
		h.since[i], h.reason[i] = time.Now(), err
		slog.Warn("The datastore does not work", "err", err)
	case err != nil:
		h.reason[i] = err
	case !began.IsZero():
		h.over(Outage{began, time.Since(began), h.reason[i]})
		h.since[i], h.reason[i] = time.Time{}, nil
	}
}

func (h *Health) over(o Outage) {
	slog.Info("The datastore works again", "after", o.For.Round(time.Second))
	if o.For < brief {
		return
	}
	select {
	case h.ended <- o:
	default: // who reports it has not even reported the one before
	}
}

// Err is why the store does not work, if it does not.
func (h *Health) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, since := range h.since {
		if !since.IsZero() {
			return fmt.Errorf("for %s: %w", time.Since(since).Round(time.Second), h.reason[i])
		}
	}
	return nil
}

// Reporter is the component that tells of outages by events. It cannot while they last: an event is an object, too.
type Reporter struct {
	Health   *Health
	Client   *kube.Client
	NodeName string
}

// Name implements component.Component.
func (*Reporter) Name() string { return "datastore-events" }

// Ready implements component.Component.
func (*Reporter) Ready(context.Context) error { return nil }

// Run implements component.Component.
func (r *Reporter) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-r.Health.ended:
			r.report(ctx, o)
		}
	}
}

// report retries for a minute: the API server has just found its store again.
func (r *Reporter) report(ctx context.Context, o Outage) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := r.create(ctx, o)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			slog.Debug("An outage of the datastore could not be reported", "err", err)
			return
		case <-time.After(2 * time.Second):
		}
	}
}

func (r *Reporter) create(ctx context.Context, o Outage) error {
	client, err := r.Client.Clientset()
	if err != nil {
		return err
	}
	first, last := metav1.NewTime(o.Since), metav1.NewTime(o.Since.Add(o.For))
	_, err = client.CoreV1().Events(metav1.NamespaceDefault).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: r.NodeName + "-datastore-", Namespace: metav1.NamespaceDefault},
		InvolvedObject: corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: r.NodeName},
		Type:           corev1.EventTypeWarning,
		Reason:         "DatastoreUnavailable",
		Message:        fmt.Sprintf("The datastore of this server did not work for %s: %v", o.For.Round(time.Second), o.Reason),
		Source:         corev1.EventSource{Component: layout.Manager, Host: r.NodeName},
		FirstTimestamp: first, LastTimestamp: last, Count: 1,
	}, metav1.CreateOptions{FieldManager: layout.Manager})
	return err
}
