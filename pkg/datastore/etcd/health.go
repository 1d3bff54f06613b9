package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
)

// Health is how the members of the cluster do, as one of them sees it.
type Health struct {
	Members []MemberHealth `json:"members"`
	// MayFail is how many more of the members that vote may fail before the rest is no quorum. Below
	// zero it is how many are missing now.
	MayFail int `json:"mayFail"`
}

// MemberHealth is how one of them does.
type MemberHealth struct {
	Member
	Reachable bool   `json:"reachable"`
	Reason    string `json:"reason,omitempty"` // why it is not
	// Behind is how many entries of the log it has to catch up with; nil if it has not said how far it is.
	Behind *uint64 `json:"behind,omitempty"`
}

// Position is how far a member is in the log.
type Position struct {
	ID        string `json:"id"`
	Committed uint64 `json:"committed"` // as far as it knows
	Applied   uint64 `json:"applied"`
}

// probeTimeout is how long a member that is up may take to answer.
const probeTimeout = 2 * time.Second

// Position is that of this member.
func (e *Etcd) Position() (Position, error) {
	server := e.server.Load()
	if server == nil {
		return Position{}, errNotOpen
	}
	s := server.Server
	return Position{ID: s.MemberID().String(), Committed: s.CommittedIndex(), Applied: s.AppliedIndex()}, nil
}

// Health asks each member whether it is up; positions is what others have said of theirs, and may lack any.
func (e *Etcd) Health(ctx context.Context, positions []Position) (Health, error) {
	members, err := e.Members()
	if err != nil {
		return Health{}, err
	}
	own, err := e.Position()
	if err != nil {
		return Health{}, err
	}
	h := Health{Members: make([]MemberHealth, len(members))}
	var asked sync.WaitGroup
	for i, m := range members {
		h.Members[i] = MemberHealth{Member: m, Reachable: m.Self}
		if m.Self {
			continue
		}
		asked.Go(func() {
			err := e.probe(ctx, m)
			if h.Members[i].Reachable = err == nil; err != nil {
				h.Members[i].Reason = err.Error()
			}
		})
	}
	asked.Wait()
	h.place(append(positions, own))
	h.MayFail = margin(h.Members)
	return h, nil
}

// place says who is behind whoever is farthest, which is the one that leads.
func (h *Health) place(positions []Position) {
	var farthest uint64
	for _, p := range positions {
		farthest = max(farthest, p.Committed, p.Applied)
	}
	for i, m := range h.Members {
		for _, p := range positions {
			if behind := farthest - p.Applied; p.ID == m.ID {
				h.Members[i].Behind = &behind
			}
		}
	}
}

// margin is MayFail of members.
func margin(members []MemberHealth) int {
	voters, up := 0, 0
	for _, m := range members {
		if m.Learner {
			continue
		}
		voters++
		if m.Reachable {
			up++
		}
	}
	return up - quorum(voters)
}

// quorum is how many of so many members have to agree.
func quorum(voters int) int { return voters/2 + 1 }

// Risk says in one line what a cluster of several servers cannot bear; "" if it can bear a loss, or is one server.
func (h Health) Risk() string {
	down := h.down()
	switch {
	case len(h.Members) < 2:
		return ""
	case h.MayFail < 0:
		return fmt.Sprintf("the datastore has no quorum: %s not reachable; start lite there, or see `lite server --reset-to-single`", are(down))
	case h.MayFail > 0:
		return ""
	case len(down) > 0:
		return fmt.Sprintf("the loss of one more server stops the cluster: %s not reachable; start lite there, or replace it", are(down))
	case h.voters() == 2:
		return "two servers are less available than one: the loss of either stops the cluster; add a third"
	}
	return "the loss of one more server stops the cluster; add one"
}

func (h Health) voters() (n int) {
	for _, m := range h.Members {
		if !m.Learner {
			n++
		}
	}
	return n
}

// down is the names of members that vote and do not answer.
func (h Health) down() (names []string) {
	for _, m := range h.Members {
		if !m.Learner && !m.Reachable {
			names = append(names, m.Called())
		}
	}
	return names
}

// are is names and the verb that fits.
func are(names []string) string {
	if len(names) == 1 {
		return names[0] + " is"
	}
	return strings.Join(names, ", ") + " are"
}

// Called is what to call a member: a learner that has not started has no name yet.
func (m Member) Called() string { return cmp.Or(m.Name, m.ID) }

// Role is what it does among them, in one word.
func (m Member) Role() string {
	switch {
	case m.Learner:
		return "learner"
	case m.Leader:
		return "leader"
	}
	return "voter"
}

// Margin says in one line how many members may fail.
func (h Health) Margin() string {
	switch risk := h.Risk(); {
	case risk != "":
		return risk
	case len(h.Members) < 2:
		return "this is the only member: without it there is no datastore"
	case h.MayFail == 1:
		return "1 more member may fail"
	default:
		return fmt.Sprintf("%d more members may fail", h.MayFail)
	}
}

// probe asks a member for its version, which it tells whatever else it waits for.
func (e *Etcd) probe(ctx context.Context, m Member) error {
	through, err := e.transport()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	for _, url := range strings.Split(m.PeerURL, ",") {
		if err = ask(ctx, through, url+"/version"); err == nil {
			return nil
		}
	}
	return err
}

func ask(ctx context.Context, through http.RoundTripper, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := through.RoundTrip(request)
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("it does not answer")
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<10)) // else the connection is not used again
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// transport reaches other members as etcd does.
func (e *Etcd) transport() (http.RoundTripper, error) {
	e.reach.Lock()
	defer e.reach.Unlock()
	if e.through != nil {
		return e.through, nil
	}
	through, err := rafthttp.NewRoundTripper(e.config.PeerTLSInfo, probeTimeout)
	if err == nil {
		e.through = through
	}
	return through, err
}

// warnOfTwo tells who makes two servers of one what that costs.
func warnOfTwo(members int) {
	if members == 2 {
		slog.Warn("A cluster of two servers is less available than one of one: both must be up. Add a third server")
	}
}

// refusal is why a member must not be removed, and what is safe; nil if it may be.
func (h Health) refusal(gone Member) error {
	rest := Health{Members: slices.DeleteFunc(slices.Clone(h.Members), func(m MemberHealth) bool { return m.ID == gone.ID })}
	rest.MayFail = margin(rest.Members)
	down := rest.down()
	switch {
	case h.MayFail < 0:
		return fmt.Errorf("the datastore has no quorum, so no member can be removed: %s not reachable; start lite there, or, if they are lost for good, stop lite on one server that is left and run `lite server --reset-to-single` there once", are(h.down()))
	case gone.Learner:
		return nil
	case rest.voters() == 0:
		return fmt.Errorf("%s is the only member of the datastore that votes; to end the cluster, run `lite uninstall` there", gone.Called())
	case rest.MayFail < 0:
		return fmt.Errorf("without %s the datastore has no quorum: %d of the %d other members would have to be up, and %s not reachable; start lite there first, or, if lost for good, remove that one in place of %s",
			gone.Called(), quorum(rest.voters()), rest.voters(), are(down), gone.Called())
	}
	return nil
}
