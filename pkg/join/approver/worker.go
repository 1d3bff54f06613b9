package approver

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	certificates "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"

	"lite.io/lite/pkg/layout"
)

// Waiting is the condition of a request that is neither approved nor denied
// yet. Its message says why, for people; who joins may read it.
const Waiting certificates.RequestConditionType = layout.WaitingCondition

// worker takes requests from its queue to the judge, and writes the verdicts.
type worker struct {
	client kubernetes.Interface
	judge  judge
	queue  workqueue.TypedRateLimitingInterface[item]
	names  locks // of one node one request at a time is decided
}

// workers is how many requests are decided at a time: on a busy machine most of a decision is waiting.
const workers = 4

func newWorker(client kubernetes.Interface, j judge) *worker {
	retry := workqueue.NewTypedItemExponentialFailureRateLimiter[item](100*time.Millisecond, 30*time.Second)
	inTurn := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[item]{Queue: &turns{}})
	delaying := workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[item]{Queue: inTurn})
	return &worker{client: client, judge: j, queue: workqueue.NewTypedRateLimitingQueueWithConfig(retry,
		workqueue.TypedRateLimitingQueueConfig[item]{DelayingQueue: delaying})}
}

// next takes one request from the queue; it returns false when the queue is shut down.
func (w *worker) next(ctx context.Context) bool {
	i, closed := w.queue.Get()
	if closed {
		return false
	}
	defer w.queue.Done(i)
	again, err := w.handle(ctx, i.name)
	if err != nil {
		if ctx.Err() == nil {
			slog.Warn("Cannot decide a certificate signing request; retrying", "request", i.name, "err", err)
		}
		w.queue.AddRateLimited(i)
		return true
	}
	w.queue.Forget(i)
	if again > 0 {
		w.queue.AddAfter(i, again)
	}
	return true
}

// handle decides one request; it returns after how long to check it again, 0
// for never.
func (w *worker) handle(ctx context.Context, name string) (time.Duration, error) {
	// One call that hangs must not keep the others waiting.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	csr, err := w.client.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the request: %w", err)
	}
	w.judge.requests.put(csr)
	if node := w.judge.requests.nodeOf(name); node != "" {
		defer w.names.hold(node)()
	}
	if !pending(csr) || !slices.Contains(signers[:], csr.Spec.SignerName) {
		return 0, nil
	}
	v, err := w.judge.decide(ctx, csr)
	if apierrors.IsConflict(err) {
		return 100 * time.Millisecond, nil // the record of its token has changed
	}
	if err != nil {
		return 0, err
	}
	// The request has been read above: the update fails if it has changed since,
	// and everything is checked again.
	err = w.record(ctx, csr, v)
	switch {
	case apierrors.IsNotFound(err):
		return 0, nil
	case apierrors.IsConflict(err):
		return 100 * time.Millisecond, nil
	case err != nil:
		return 0, fmt.Errorf("write the decision: %w", err)
	}
	return v.retryAfter, nil
}

// record writes the verdict into the request, and what is worth it into the log.
func (w *worker) record(ctx context.Context, csr *certificates.CertificateSigningRequest, v verdict) error {
	old := condition(csr, Waiting)
	if v.kind == Waiting && old != nil && old.Reason == v.reason && old.Message == v.message {
		return nil
	}
	announced := old != nil && old.Reason == v.reason
	next := csr.DeepCopy()
	next.Status.Conditions = slices.DeleteFunc(next.Status.Conditions, func(c certificates.CertificateSigningRequestCondition) bool {
		return c.Type == Waiting
	})
	next.Status.Conditions = append(next.Status.Conditions, certificates.CertificateSigningRequestCondition{
		Type: v.kind, Status: v1.ConditionTrue, Reason: v.reason, Message: v.message, LastUpdateTime: metav1.Now(),
	})
	next, err := w.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, next, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	w.judge.requests.put(next)
	switch {
	case v.kind == certificates.CertificateApproved:
		slog.Info("Approved a certificate", "what", v.message, "request", csr.Name)
	case v.kind == certificates.CertificateDenied:
		slog.Warn("Denied a certificate", "why", v.message, "requester", csr.Spec.Username, "request", csr.Name)
	case v.reason == NameHeld && !announced:
		slog.Info("A machine is waiting for its name", "why", v.message, "requester", csr.Spec.Username, "request", csr.Name)
		w.postEvent(ctx, csr, v)
	}
	return nil
}

// postEvent posts an event. That it may fail changes nothing for the request.
func (w *worker) postEvent(ctx context.Context, csr *certificates.CertificateSigningRequest, v verdict) {
	now := metav1.Now()
	_, err := w.client.CoreV1().Events(metav1.NamespaceDefault).Create(ctx, &v1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: csr.Name + "-"},
		InvolvedObject: v1.ObjectReference{
			APIVersion: certificates.SchemeGroupVersion.String(), Kind: "CertificateSigningRequest", Name: csr.Name, UID: csr.UID,
		},
		Type: v1.EventTypeWarning, Reason: v.reason, Message: v.message,
		Source:         v1.EventSource{Component: layout.Manager},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	if err != nil {
		slog.Warn("Cannot post an event", "request", csr.Name, "err", err)
	}
}

// condition returns the request's condition of a type, or nil.
func condition(csr *certificates.CertificateSigningRequest,
	kind certificates.RequestConditionType) *certificates.CertificateSigningRequestCondition {
	for i, c := range csr.Status.Conditions {
		if c.Type == kind {
			return &csr.Status.Conditions[i]
		}
	}
	return nil
}
