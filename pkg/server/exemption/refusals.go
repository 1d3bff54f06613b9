package exemption

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/admission"
)

const (
	// remember is how long a refusal is told: longer than the longest pause of a
	// controller that tries again (1000 s).
	remember = 20 * time.Minute
	// most is how many kinds of requests are remembered.
	most = 64
)

// refusals is what was refused because a webhook could not be called or a policy
// not be evaluated. It is told by the requests themselves, so it costs nothing
// while there is none.
type refusals struct {
	kept atomic.Int32 // how many entries there are, for a look without the lock
	mu   sync.Mutex
	last map[attempt]refusal
}

// attempt is a kind of request to a plugin. When one passes, those before it are
// past.
type attempt struct {
	plugin, resource, namespace string
	operation                   admission.Operation
}

type refusal struct {
	culprit, why string
	times        int
	at           time.Time
}

// add takes note of what came of a request.
func (r *refusals) add(plugin string, a admission.Attributes, err error) {
	if err == nil && r.kept.Load() == 0 {
		return
	}
	key := attempt{plugin, resource(a), a.GetNamespace(), a.GetOperation()}
	culprit, why := blame(plugin, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.kept.Store(int32(len(r.last))) }()
	switch was, known := r.last[key]; {
	case err == nil:
		delete(r.last, key)
	case culprit == "" || !known && len(r.last) == most:
	default:
		if r.last == nil {
			r.last = map[attempt]refusal{}
		}
		r.last[key] = refusal{culprit, why, was.times + 1, time.Now()}
	}
}

// Note is one line that names the webhooks and policies that hold something up,
// or "".
func (e *Exemption) Note() string { return e.refusals.note(time.Now()) }

func (r *refusals) note(now time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.last, func(_ attempt, f refusal) bool { return now.Sub(f.at) > remember })
	r.kept.Store(int32(len(r.last)))
	type sum struct {
		refusal
		attempt
	}
	all := map[string]sum{}
	for key, f := range r.last {
		s := all[f.culprit]
		f.times += s.times
		if s.at.After(f.at) {
			s.times = f.times
			all[f.culprit] = s
			continue
		}
		all[f.culprit] = sum{f, key}
	}
	var lines []string
	for _, culprit := range slices.Sorted(maps.Keys(all)) {
		s := all[culprit]
		where := ""
		if s.namespace != "" {
			where = " in namespace " + s.namespace
		}
		lines = append(lines, fmt.Sprintf("%s (requests refused: %d, last %s ago: %s %s%s): %s",
			culprit, s.times, now.Sub(s.at).Round(time.Second), strings.ToLower(string(s.operation)), s.attempt.resource, where, s.why))
	}
	return strings.Join(lines, "; ")
}

// blame finds in a plugin's error who could not be asked, and why. Upstream has made
// text of it by then, in which the name of a webhook whose conditions fail is missing
// (1.37).
func blame(plugin string, err error) (culprit, why string) {
	if err == nil {
		return "", ""
	}
	text := err.Error()
	if _, rest, ok := strings.Cut(text, "failed calling webhook "); ok {
		if name, err := strconv.QuotedPrefix(rest); err == nil {
			return "webhook " + name + " cannot be called", strings.TrimPrefix(rest[len(name):], ": ")
		}
	}
	if i := strings.Index(text, "expression '"); i >= 0 && strings.Contains(text[i:], "' resulted in error: ") &&
		slices.Contains(webhooks, plugin) && !strings.Contains(text, " denied the request") {
		return "a webhook's matchConditions cannot be evaluated", strings.TrimSuffix(text[i:], "]")
	}
	if before, why, ok := strings.Cut(text, unconfigured); ok {
		// …Policy 'name' with binding 'name', or policy "name"
		if i := max(strings.LastIndex(before, "Policy "), strings.LastIndex(before, "policy ")); i >= 0 {
			return "policy" + before[i+len("policy"):] + " cannot be evaluated", "failed to configure " + why
		}
	}
	return "", ""
}
