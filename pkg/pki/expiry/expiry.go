// Package expiry reports certificates that expire: in `lite status`, the log, events on
// the Node and a metric, from thirty days before. What it reports about each is package
// pki's.
package expiry

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics/legacyregistry"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

// Config is what it has to be told.
type Config struct {
	NodeName string
	Client   *kube.Client // of the node's identity, which writes the events
	Files    []pki.File
	// Uses names the files that parts of the node cannot work without, by the parts'
	// names.
	Uses map[string][]string
}

// Watch is the component.
type Watch struct {
	config Config

	mu      sync.Mutex
	scanned time.Time
	stamps  []file.Stamp
	known   []*pki.Certificate
}

// New makes the component; nothing is touched before it is asked or run.
func New(c Config) *Watch { return &Watch{config: c} }

// Name implements component.Component.
func (*Watch) Name() string { return "certificates" }

// Ready implements component.Component. What has ended fails the parts that use it,
// see Veto: others need not suffer.
func (*Watch) Ready(context.Context) error { return nil }

// Note implements component.Noter.
func (w *Watch) Note() string {
	ended, soon := 0, 0
	now := time.Now()
	for _, c := range w.Due(now) {
		if c.Ended(now) {
			ended++
		} else {
			soon++
		}
	}
	switch {
	case ended > 0:
		return fmt.Sprintf("%d expired, %d expire soon: see below", ended, soon)
	case soon > 0:
		return fmt.Sprintf("%d expire soon: see below", soon)
	}
	return ""
}

// freshFor is how long nobody looks again: while a node starts all of its parts are
// asked fifty times a second.
const freshFor = time.Second

// certificates is what the files hold now. They are read when one has changed, so to
// look costs some twenty calls of stat.
func (w *Watch) certificates() []*pki.Certificate {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if !w.scanned.IsZero() && now.Sub(w.scanned) < freshFor {
		return w.known
	}
	w.scanned = now
	stamps := make([]file.Stamp, len(w.config.Files))
	for i, f := range w.config.Files {
		if info, err := os.Stat(f.Path); err == nil {
			stamps[i] = file.StampOf(info)
		}
	}
	if w.known == nil || !slices.Equal(stamps, w.stamps) {
		w.known, _ = pki.Scan(w.config.Files, os.ReadFile) // what is damaged fails who uses it
		w.stamps = stamps
	}
	return w.known
}

// Due is the certificates that somebody should see to.
func (w *Watch) Due(now time.Time) []*pki.Certificate { return pki.Due(w.certificates(), now) }

// Veto is why a part cannot work, whatever it says itself: it shows or trusts a
// certificate that has ended. A part that keeps its connections does not notice.
func (w *Watch) Veto(part string) error {
	uses := w.config.Uses[part]
	if len(uses) == 0 {
		return nil
	}
	now := time.Now()
	for _, c := range w.certificates() {
		if c.Ended(now) && slices.Contains(uses, c.Path) {
			return fmt.Errorf("%s expired on %s; %s", c.Path, stampOf(c.NotAfter), c.Remedy(now))
		}
	}
	return nil
}

const (
	// logEvery is how often the log repeats a notice.
	logEvery = 24 * time.Hour
	// eventEvery is how often an event is renewed, which the API forgets after an hour.
	// It stays one: its count grows.
	eventEvery = 50 * time.Minute
	// scanEvery is the longest between two scans: files change, and timers stand still
	// while the machine sleeps.
	scanEvery = 24 * time.Hour
)

// Run implements component.Component. It sleeps until the next certificate begins to
// be spoken of, or ends, and while one is, until its event has to be renewed.
func (w *Watch) Run(ctx context.Context) error {
	metric := newSeries(w)
	if err := legacyregistry.CustomRegister(metric); err != nil {
		return fmt.Errorf("register the metric: %w", err)
	}
	defer legacyregistry.Registerer().Unregister(metric)
	r := reporter{config: w.config}
	defer r.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			all, now := w.certificates(), time.Now()
			r.report(ctx, notices(pki.Due(all, now), now), now)
			timer.Reset(next(all, now))
		case <-ctx.Done():
			return nil
		}
	}
}

// next is how long there is nothing new to tell.
func next(all []*pki.Certificate, now time.Time) time.Duration {
	wait := scanEvery
	if len(pki.Due(all, now)) > 0 {
		wait = eventEvery
	}
	for _, c := range all {
		for _, at := range []time.Time{c.WarnFrom(), c.NotAfter} {
			if d := at.Sub(now); d >= 0 {
				wait = min(wait, d+time.Second) // the second after
			}
		}
	}
	return wait
}

// notice is what is reported about certificates with the same remedy.
type notice struct {
	ended bool
	text  string
}

// notices has one for each remedy. Their texts change when the facts do, not with the
// days: events that are alike are counted.
func notices(due []*pki.Certificate, now time.Time) (all []notice) {
	type key struct {
		ended  bool
		remedy string
	}
	first, more := map[key]*pki.Certificate{}, map[key]int{}
	var order []key
	for _, c := range due {
		k := key{c.Ended(now), c.Remedy(now)}
		if first[k] == nil {
			first[k], order = c, append(order, k)
		} else {
			more[k]++
		}
	}
	for _, k := range order {
		c := first[k]
		verb := map[bool]string{true: "expired", false: "expires"}[k.ended]
		text := fmt.Sprintf("certificate %s %s on %s", c.Path, verb, stampOf(c.NotAfter))
		if more[k] > 0 {
			text += fmt.Sprintf(", and %d more", more[k])
		}
		all = append(all, notice{k.ended, text + ": " + k.remedy})
	}
	return all
}

// reporter logs notices and posts events.
type reporter struct {
	config   Config
	logged   map[notice]time.Time
	events   record.EventBroadcaster // nil as long as there was nothing to report
	recorder record.EventRecorder
}

func (r *reporter) report(ctx context.Context, all []notice, now time.Time) {
	logged := map[notice]time.Time{}
	for _, n := range all {
		logged[n] = r.logged[n]
		if now.Sub(logged[n]) >= logEvery {
			slog.Warn("A certificate has to be renewed", "what", n.text)
			logged[n] = now
		}
		r.postEvent(ctx, n)
	}
	r.logged = logged
}

// postEvent posts or renews the event of a notice, with what client-go has for that.
func (r *reporter) postEvent(ctx context.Context, n notice) {
	if r.recorder == nil && r.connect(ctx) != nil {
		return // who needs the kubeconfig says so
	}
	reason := map[bool]string{true: "CertificateExpired", false: "CertificateExpiring"}[n.ended]
	node := &v1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: r.config.NodeName,
		UID: types.UID(r.config.NodeName)} // as the kubelet names its node
	r.recorder.Event(node, v1.EventTypeWarning, reason, n.text)
}

func (r *reporter) connect(ctx context.Context) error {
	client, err := r.config.Client.Clientset()
	if err != nil {
		return err
	}
	r.events = record.NewBroadcaster(record.WithContext(ctx))
	r.events.StartRecordingToSink(&corev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	r.recorder = r.events.NewRecorder(scheme.Scheme, v1.EventSource{Component: layout.CertificatesSource, Host: r.config.NodeName})
	return nil
}

func (r *reporter) stop() {
	if r.events != nil {
		r.events.Shutdown()
	}
}

func stampOf(t time.Time) string { return t.UTC().Format(time.RFC3339) }
