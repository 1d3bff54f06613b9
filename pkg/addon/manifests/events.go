package manifests

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"lite.io/lite/pkg/kube/apply"
)

// status is what there is to report about a file.
type status struct {
	dirty    bool     // it has changed since the last report
	late     bool     // that was while lite ran, not before
	owns     bool     // it has got an object that it did not own
	applied  int      // objects, since it changed
	pruned   int      // objects, since it changed
	stuck    []string // what cannot be removed
	failures int      // how often it has failed since it changed
	reported string   // the problem that was reported last
}

// reset forgets all but the last report.
func (n *status) reset() {
	*n = status{dirty: true, late: n.late, reported: n.reported}
}

// unreported is whether there is something new to report about a file.
func (n *status) unreported(f *file) bool {
	return f.known() && (n.dirty || f.problem() != n.reported)
}

// known is whether anything can be reported about a file.
func (f *file) known() bool { return !f.skipped && !f.foreign() }

// done is whether the cluster matches the file.
func (f *file) done() bool {
	return f.known() && f.wants != nil && len(f.left) == 0 && len(f.status.stuck) == 0
}

// problem is all that is wrong with a file, "" if nothing is.
func (f *file) problem() string {
	if f.broken != nil {
		return flat(f.broken)
	}
	var all []string
	for _, p := range f.left {
		if p.err != nil {
			all = append(all, p.problem())
		}
	}
	return strings.Join(append(all, f.status.stuck...), "; ")
}

// immutable is parts of Kubernetes' messages about fields that cannot be changed (1.37).
var immutable = []string{"immutable", "Forbidden: updates to", "cannot change roleRef", "may not change once set",
	"Forbidden: pod updates may not"}

func (p *pending) problem() string {
	name := p.GetName()
	if p.GetNamespace() != "" {
		name = p.GetNamespace() + "/" + name
	}
	text := fmt.Sprintf("line %d, %s %s: %s", p.line, p.GetKind(), name, flat(p.err))
	if apierrors.IsInvalid(p.err) && slices.ContainsFunc(immutable, func(words string) bool { return strings.Contains(text, words) }) {
		text += fmt.Sprintf("; to recreate it: lite kubectl delete %s %s", strings.ToLower(p.GetKind()), p.GetName())
		if p.GetNamespace() != "" {
			text += " -n " + p.GetNamespace()
		}
	}
	return text
}

// flat puts an error on one line.
func flat(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// cut shortens a text to n bytes.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n-len("…")], "") + "…"
}

// transient is whether all problems of a file may pass in a moment, and are not worth an
// event yet.
func (f *file) transient() bool {
	if f.broken != nil {
		return errors.Is(f.broken, errBusy)
	}
	for _, p := range f.left {
		if p.err != nil && !errors.As(p.err, &apply.UnknownKind{}) && !errors.Is(p.err, errDeleting) {
			return false
		}
	}
	return f.status.failures < patience/2
}

// report reports what is new about all files, in an event on the file's record and in the
// log.
func (a *applier) report(ctx context.Context) error {
	for _, f := range a.sorted() {
		if err := a.reportFile(ctx, f); apply.Absent(err) {
			return err
		} else if err != nil {
			slog.Warn("Cannot post an event about a manifest", "file", f.path, "err", err)
		}
	}
	return nil
}

func (a *applier) reportFile(ctx context.Context, f *file) error {
	problem := f.problem()
	switch {
	case !f.known():
		f.status = status{}
		return nil
	case problem != "":
		f.status.dirty = false
		if f.status.failures++; problem == f.status.reported || f.transient() {
			return nil
		}
		slog.Warn("A manifest is not applied", "file", f.path, "problem", problem)
		f.status.reported = problem
		// A file that never had an object has no record yet to post the event on.
		if err := a.session.save(ctx, f.record); err != nil {
			return err
		}
		return a.session.event(ctx, f.record, corev1.EventTypeWarning, "ManifestFailed", f.path+": "+problem)
	case !f.done():
		return nil
	}
	n := f.status
	f.status = status{}
	if n.reported == "" && !n.owns && n.pruned == 0 && (!n.dirty || !n.late) {
		return nil // as it was when lite was started
	}
	slog.Info("Applied a manifest", "file", f.path, "objects", n.applied, "removed", n.pruned)
	if f.record.uid == "" {
		return nil
	}
	return a.session.event(ctx, f.record, corev1.EventTypeNormal, "ManifestApplied",
		fmt.Sprintf("%s: applied %d objects, removed %d", f.path, n.applied, n.pruned))
}

// maxProblem is how much of a problem lite status shows, and maxProblems of how many files.
const (
	maxProblem  = 300
	maxProblems = 5
)

// outcome is what there is to report and to do after a scan.
type outcome struct {
	note  string
	again bool // something is left to be tried again
	kinds bool // something waits for its kind
}

func (a *applier) outcome() outcome {
	var o outcome
	var wrong []string
	total, done, skipped := 0, 0, 0
	for _, f := range a.sorted() {
		o.again = o.again || f.known() && (f.present && f.unread || f.wants != nil && !f.done())
		for _, p := range f.left {
			o.kinds = o.kinds || errors.As(p.err, &apply.UnknownKind{})
		}
		switch {
		case f.skipped:
			skipped++
		case f.foreign():
			wrong = append(wrong, fmt.Sprintf("%s does not exist here: what %s has applied of it stays", f.path, f.record.server))
		case f.problem() != "":
			wrong = append(wrong, cut(f.path+": "+f.problem(), maxProblem))
		}
		if f.present && !f.skipped {
			total++
			if f.done() {
				done++
			}
		}
	}
	var parts []string
	if done == total && total > 0 {
		parts = append(parts, count(total, "file")+" applied")
	} else if total > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s applied", done, count(total, "file")))
	}
	if skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", skipped))
	}
	if n := len(wrong) - maxProblems; n > 0 {
		wrong = append(wrong[:maxProblems], fmt.Sprintf("and %d more", n))
	}
	o.note = strings.Join(append(parts, wrong...), "; ")
	return o
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
