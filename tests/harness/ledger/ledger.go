// Package ledger shows what a cluster does to its clients while it is being hurt. A
// [Ledger] writes objects, keeps what was acknowledged and what nobody knows the outcome
// of, and proves that a store without faults could have answered so. [Requests] counts
// what users of a Service see.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/time/rate"
)

// Store is where a ledger writes.
type Store interface {
	// Do makes a request about an object. The error says why it was refused or its
	// outcome is unknown.
	Do(ctx context.Context, key string, r Request) (Answer, error)
	// List reads all objects, in as many ways as the store can be read: each must be
	// right by itself.
	List(ctx context.Context) ([]Snapshot, error)
}

// Snapshot is all objects as a list of them shows them.
type Snapshot struct {
	From    string // who has answered
	Objects map[string]Answer
}

const (
	// Rate is how many writes a second a ledger tries.
	Rate = 50
	// writers share the keys, so that they are in each other's way now and then.
	writers = 6
	keys    = 8
	// A key is left for a new one after so many requests, or so many of which nobody knows
	// what became: with each the proof doubles in the worst case.
	retireAfter   = 100
	retireUnknown = 3
)

// Ledger is a client that writes objects and does not believe in the store.
type Ledger struct {
	store Store
	limit *rate.Limiter
	start time.Time
	stop  func()

	mu      sync.Mutex
	live    []*key
	all     map[string]*key
	counts  map[Outcome]int
	reasons map[string]int
	// acknowledged is when writes were, in order.
	acknowledged []time.Duration
	revisions    map[int64]string // by which write
	wrong        []string         // what was seen to be wrong at once
}

// key is an object's life.
type key struct {
	name     string
	history  []porcupine.Operation
	unknown  int
	requests int
	last     Answer // what was heard of it last
	before   int64  // a revision that it had earlier
	sequence int    // of values
}

// Start begins to write. It ends with Stop.
func Start(store Store) *Ledger {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Ledger{
		store: store, limit: rate.NewLimiter(Rate, 5), start: time.Now(),
		all: map[string]*key{}, counts: map[Outcome]int{}, reasons: map[string]int{}, revisions: map[int64]string{},
	}
	var work sync.WaitGroup
	for id := range writers {
		work.Go(func() { l.write(ctx, id) })
	}
	l.stop = func() { cancel(); work.Wait() }
	return l
}

// Stop ends the writers, and waits for the requests that they have made.
func (l *Ledger) Stop() { l.stop() }

func (l *Ledger) write(ctx context.Context, id int) {
	for l.limit.Wait(ctx) == nil {
		k, request, at := l.begin(id)
		// Not ctx: what was begun is brought to an end, so that its outcome is known.
		answer, err := l.store.Do(context.WithoutCancel(ctx), k.name, request)
		l.end(k, at, answer, err)
	}
}

// begin makes up a request, and takes down that it is under way: who reads the object
// meanwhile may see what it does. It returns where in the history it is.
func (l *Ledger) begin(id int) (k *key, r Request, at int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, r = l.next()
	k.history = append(k.history, porcupine.Operation{
		ClientId: id, Input: r, Call: int64(time.Since(l.start)), Output: Answer{Outcome: Unknown}, Return: math.MaxInt64,
	})
	return k, r, len(k.history) - 1
}

// next makes up a request about one of the live keys.
func (l *Ledger) next() (*key, Request) {
	l.live = slices.DeleteFunc(l.live, func(k *key) bool { return k.requests >= retireAfter || k.unknown >= retireUnknown })
	for len(l.live) < keys {
		k := &key{name: fmt.Sprintf("ledger-%d", len(l.all)), last: Answer{Outcome: Missing}}
		l.all[k.name] = k
		l.live = append(l.live, k)
	}
	k := l.live[rand.IntN(len(l.live))]
	k.requests++
	k.sequence++
	value := fmt.Sprintf("%s.%d", k.name, k.sequence)
	revision := k.last.Revision
	if k.before != 0 && rand.IntN(20) == 0 {
		revision = k.before // must not be heeded
	}
	switch {
	case k.last.Outcome == Missing:
		return k, Request{Kind: Create, Value: value}
	case revision == 0:
		return k, Request{Kind: Read}
	case rand.IntN(6) == 0:
		return k, Request{Kind: Delete, Revision: revision}
	default:
		return k, Request{Kind: Update, Value: value, Revision: revision}
	}
}

// end takes down what became of a request.
func (l *Ledger) end(k *key, at int, a Answer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[a.Outcome]++
	if err != nil {
		l.reasons[err.Error()]++
	}
	operation := &k.history[at]
	r := operation.Input.(Request)
	operation.Output = a
	switch {
	case a.Outcome == Refused || r.Kind == Read && a.Outcome == Unknown:
		k.requests--
		return
	case a.Outcome == Unknown: // it may take effect at any time from now on, or never
		k.unknown++
		k.last = a
		return
	}
	returned := time.Since(l.start)
	operation.Return = int64(returned)
	if r.Kind != Read && a.Outcome == Done {
		l.acknowledged = append(l.acknowledged, returned)
		l.unique(k, r, a)
	}
	k.learn(r, a)
}

// tells reports whether an operation says anything of its object.
func tells(o porcupine.Operation) bool {
	r, a := o.Input.(Request), o.Output.(Answer)
	return a.Outcome != Refused && (r.Kind != Read || a.Outcome != Unknown)
}

// learn takes down what the next request may be built on.
func (k *key) learn(r Request, a Answer) {
	switch {
	case a.Outcome == Missing, r.Kind == Delete && a.Outcome == Done:
		k.last = Answer{Outcome: Missing}
	case a.Outcome == Done:
		if k.last.Revision != 0 {
			k.before = k.last.Revision
		}
		k.last = a
	default: // it exists, at a revision that has to be read
		k.last = Answer{Outcome: Conflict}
	}
}

// unique wants each acknowledged write to have a revision of its own, in all the store.
func (l *Ledger) unique(k *key, r Request, a Answer) {
	if a.Revision == 0 {
		return // of a deletion nobody tells
	}
	this := k.name + " " + describe(r, a)
	if other, there := l.revisions[a.Revision]; there {
		l.wrong = append(l.wrong, fmt.Sprintf("two writes have one revision: %s, %s", other, this))
	}
	l.revisions[a.Revision] = this
}

// Check proves that all answers so far, and what the store holds now, are those of a
// store that loses nothing, does nothing twice and never goes back. The writers may go on.
func (l *Ledger) Check(ctx context.Context) error {
	called := time.Since(l.start)
	snapshots, err := l.store.List(ctx)
	if err != nil {
		return fmt.Errorf("list what was written: %w", err)
	}
	returned := time.Since(l.start)
	l.mu.Lock()
	histories := map[string][]porcupine.Operation{}
	for name, k := range l.all {
		for _, s := range snapshots {
			a, there := s.Objects[name]
			if !there {
				a = Answer{Outcome: Missing}
			}
			k.history = append(k.history, porcupine.Operation{
				ClientId: writers, Input: Request{Kind: Read}, Call: int64(called), Output: a, Return: int64(returned),
			})
		}
		histories[name] = slices.DeleteFunc(slices.Clone(k.history), func(o porcupine.Operation) bool { return !tells(o) })
	}
	wrong := slices.Clone(l.wrong)
	l.mu.Unlock()
	for _, s := range snapshots {
		for name := range s.Objects {
			if histories[name] == nil {
				wrong = append(wrong, fmt.Sprintf("%s has %s, which nobody has written", s.From, name))
			}
		}
	}
	// A list is seldom wrong in one key alone, and one history is enough to look at.
	for name, history := range histories {
		switch porcupine.CheckOperationsTimeout(model, history, time.Minute) {
		case porcupine.Illegal:
			wrong = append(wrong, "no store without faults answers so:\n"+print(name, history))
		case porcupine.Unknown:
			wrong = append(wrong, "not decided within a minute:\n"+print(name, history))
		}
	}
	return errors.Join(asErrors(wrong)...)
}

func asErrors(texts []string) []error {
	const most = 5
	var errs []error
	for _, text := range texts[:min(len(texts), most)] {
		errs = append(errs, errors.New(text))
	}
	if len(texts) > most {
		errs = append(errs, fmt.Errorf("and %d more", len(texts)-most))
	}
	return errs
}

// print shows the life of a key, in the order in which requests were made.
func print(name string, history []porcupine.Operation) string {
	slices.SortStableFunc(history, func(a, b porcupine.Operation) int { return int(min(max(a.Call-b.Call, -1), 1)) })
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n", name)
	for _, o := range history {
		until := "ever"
		if o.Return != math.MaxInt64 {
			until = time.Duration(o.Return).Round(time.Millisecond).String()
		}
		fmt.Fprintf(&text, "  %s to %s, %d: %s\n", time.Duration(o.Call).Round(time.Millisecond), until, o.ClientId,
			describe(o.Input.(Request), o.Output.(Answer)))
	}
	return text.String()
}

// Now is a moment of the ledger.
func (l *Ledger) Now() time.Duration { return time.Since(l.start) }

// Acknowledged counts the writes that were since a moment.
func (l *Ledger) Acknowledged(since time.Duration) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearch(l.sorted(), since)
	return len(l.acknowledged) - i
}

// Outage is the longest time without an acknowledged write from a moment until now.
func (l *Ledger) Outage(since time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearch(l.sorted(), since)
	longest, last := time.Duration(0), since
	for _, at := range append(slices.Clone(l.acknowledged[i:]), time.Since(l.start)) {
		longest, last = max(longest, at-last), at
	}
	return longest
}

// sorted is the acknowledged writes in order: two that end together may be noted in the other one.
func (l *Ledger) sorted() []time.Duration {
	slices.Sort(l.acknowledged)
	return l.acknowledged
}

// Reasons returns why requests were refused or their outcome is unknown, since it was
// last called, the most frequent first.
func (l *Ledger) Reasons() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for reason, n := range l.reasons {
		lines = append(lines, fmt.Sprintf("%5d × %s", n, reason))
	}
	slices.Sort(lines)
	slices.Reverse(lines)
	clear(l.reasons)
	return lines
}

// String is what has come of all requests, in one line.
func (l *Ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var parts []string
	for _, o := range []Outcome{Done, Exists, Missing, Conflict, Refused, Unknown} {
		parts = append(parts, fmt.Sprintf("%d %s", l.counts[o], o))
	}
	return fmt.Sprintf("%d writes acknowledged to %d objects; requests: %s", len(l.acknowledged), len(l.all), strings.Join(parts, ", "))
}
