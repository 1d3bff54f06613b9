package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.uber.org/zap"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// Member is one of those that hold the store together.
type Member struct {
	Name    string `json:"name"` // of its node; "" if it has not started yet
	ID      string `json:"id"`
	PeerURL string `json:"peerURL"`
	Learner bool   `json:"learner"` // it does not vote yet
	Leader  bool   `json:"leader"`
	Self    bool   `json:"self"` // it is the one that was asked
	// Applied is how far it has come in the log; of itself alone.
	Applied uint64 `json:"applied,omitempty"`
}

// Admission is what a server asks for that wants to be a member, as JSON.
type Admission struct {
	Name    string `json:"name"`
	PeerURL string `json:"peerURL"`
	Server  string `json:"server"` // URL of its API, by which it can admit others
}

// Admitted is what it is answered, as JSON.
type Admitted struct {
	InitialCluster string `json:"initialCluster"` // name=URL,…
}

// BusyError is why a cluster cannot admit a member at the moment.
type BusyError struct{ Reason string }

func (e *BusyError) Error() string { return e.Reason }

// UnknownError is that no member has a name or ID.
type UnknownError struct{ Which string }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no member of the datastore has the name or ID %q; `lite member list` shows them", e.Which)
}

var errNotOpen = errors.New("the datastore of this server is not open yet")

const (
	// enterEvery is how often a cluster is asked to admit this server, and to promote it.
	enterEvery = time.Second
	// deadAfter is how long a learner may be unreachable until another server may take its turn.
	deadAfter = 30 * time.Second
)

func peerURL(address netip.Addr) url.URL {
	if !address.IsValid() {
		return url.URL{Scheme: "https", Host: layout.Local(layout.EtcdPeerPort)}
	}
	return url.URL{Scheme: "https", Host: netip.AddrPortFrom(address, layout.EtcdPeerPort).String()}
}

// enter has the cluster admit this member if it is to be a further one and has no data: a
// member that has a log knows the others by that.
func (e *Etcd) enter(ctx context.Context) error {
	if e.admit == nil || hasLog(e.config.Dir) {
		return nil
	}
	return e.ask(ctx, nil)
}

// ask asks the cluster until it admits this member; because is what is wrong with the data that it has.
func (e *Etcd) ask(ctx context.Context, because error) error {
	for {
		cluster, err := e.admit(ctx, e.config.AdvertisePeerUrls[0].String())
		if err == nil {
			e.config.InitialCluster, e.config.ClusterState = cluster, embed.ClusterStateFlagExisting
			return nil
		}
		if because != nil {
			err = fmt.Errorf("%w; it needs the data of the other servers: %w", err, because)
		}
		if before := e.waiting.Swap(&err); before == nil || (*before).Error() != err.Error() {
			slog.Info("Waiting for the cluster to admit this server", "because", err)
		}
		if !kube.Sleep(ctx, enterEvery) {
			return nil
		}
	}
}

// settle makes a member that has caught up one that votes, and tells the others where it is
// reached now.
func (e *Etcd) settle(ctx context.Context, server *embed.Etcd) {
	s := server.Server
	for told := ""; s.IsLearner() && ctx.Err() == nil; {
		_, err := s.PromoteMember(ctx, uint64(s.MemberID()))
		if err == nil {
			slog.Info("This server is a member of the datastore that votes")
			warnOfTwo(len(s.Cluster().Members()))
			continue
		}
		if told != err.Error() {
			told = err.Error()
			slog.Info("This server is catching up with the others", "etcd", err)
		}
		kube.Sleep(ctx, enterEvery)
	}
	self := s.Cluster().Member(s.MemberID())
	here := types.URLs(e.config.AdvertisePeerUrls).StringSlice()
	for self != nil && !slices.Equal(self.PeerURLs, here) && ctx.Err() == nil {
		moved := self.Clone()
		moved.PeerURLs = here
		_, err := s.UpdateMember(ctx, *moved)
		if err == nil {
			slog.Info("Other servers reach the datastore of this one at another address now", "before", strings.Join(self.PeerURLs, ","), "now", strings.Join(here, ","))
			return
		}
		kube.Sleep(ctx, enterEvery)
	}
}

// stopped says why a member has stopped by itself; err is what it said.
func (e *Etcd) stopped(server *embed.Etcd, err error) error {
	if e.isRemoved(server) {
		return fmt.Errorf("this server was removed from the cluster, and its copy of the datastore in %s is out of date; nothing was changed: to let it join again with the cluster's data, run `lite member rejoin` here, and start it", e.config.Dir)
	}
	return err
}

// isRemoved asks the other members whether this one is none any more. A member that was away
// when it was removed does not have that in its own log.
func (e *Etcd) isRemoved(server *embed.Etcd) bool {
	s := server.Server
	if s.IsIDRemoved(uint64(s.MemberID())) {
		return true
	}
	through, err := e.transport()
	if err != nil {
		return false
	}
	// One that was removed as well, and is up, may not know it yet.
	return slices.ContainsFunc(s.Cluster().Members(), func(m *membership.Member) bool {
		if m.ID == s.MemberID() {
			return false
		}
		now, err := etcdserver.GetClusterFromRemotePeers(zap.NewNop(), m.PeerURLs, through)
		return err == nil && now.Member(s.MemberID()) == nil
	})
}

// Members is the members of the cluster as this one knows them.
func (e *Etcd) Members() ([]Member, error) {
	server := e.server.Load()
	if server == nil {
		return nil, errNotOpen
	}
	s := server.Server
	var all []Member
	for _, m := range s.Cluster().Members() {
		member := Member{
			Name: m.Name, ID: m.ID.String(), PeerURL: strings.Join(m.PeerURLs, ","),
			Learner: m.IsLearner, Leader: m.ID == s.Leader(), Self: m.ID == s.MemberID(),
		}
		if member.Self {
			member.Applied = s.AppliedIndex()
		}
		all = append(all, member)
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// Admit lets a member in, as one that learns: it returns all members for it to start with. One
// at a time enters (etcd's own bound); whoever begins again with no data gets another identity.
// An error of type BusyError is one that time mends.
func (e *Etcd) Admit(ctx context.Context, name, peer string) (initialCluster string, err error) {
	server := e.server.Load()
	if server == nil {
		return "", &BusyError{"the datastore of the server that was asked is not open yet"}
	}
	s := server.Server
	if _, err := s.MemberList(ctx, &etcdserverpb.MemberListRequest{Linearizable: true}); err != nil {
		return "", &BusyError{fmt.Sprintf("the datastore has no quorum: %v", err)}
	}
	urls, err := types.NewURLs([]string{peer})
	if err != nil {
		return "", fmt.Errorf("peer URL %q: %w", peer, err)
	}
	if self := s.Cluster().Member(s.MemberID()); self != nil && (self.Name == name || slices.Contains(self.PeerURLs, peer)) {
		return "", fmt.Errorf("the server that was asked has this name or address itself: %s at %s; choose another --node-name", self.Name, strings.Join(self.PeerURLs, ","))
	}
	for _, m := range s.Cluster().Members() {
		switch known := m.Name == name || slices.Contains(m.PeerURLs, peer); {
		case known && m.IsLearner && !m.IsStarted():
			return e.roll(name, m.ID), nil // it asks again
		case known && slices.ContainsFunc(m.PeerURLs, answers):
			return "", &BusyError{fmt.Sprintf("server %s, which is reached at %s, is up; stop it, or choose another --node-name", m.Name, strings.Join(m.PeerURLs, ","))}
		case known && m.Name == name && m.IsStarted() && !slices.Contains(m.PeerURLs, peer):
			// Such as a machine that was cloned: it would take the place of one that is only switched off.
			return "", &BusyError{fmt.Sprintf("server %s is a member that is reached at %s, and does not answer; if that machine is gone for good, run `lite member remove %[1]s` on another server; otherwise choose another --node-name",
				m.Name, strings.Join(m.PeerURLs, ","))}
		case known:
			// Its data are gone: what it voted for is forgotten, so it must not vote under that identity.
			slog.Warn("A server begins again without data: the member that it was is removed", "member", m.ID, "name", m.Name, "url", peer)
		case m.IsLearner && !e.dead(m):
			return "", &BusyError{fmt.Sprintf("server %s is joining", cmp.Or(m.Name, strings.Join(m.PeerURLs, ",")))}
		case m.IsLearner:
			slog.Warn("A server that was joining does not answer: another takes its turn", "member", m.ID, "url", strings.Join(m.PeerURLs, ","))
		default:
			continue
		}
		if err := propose(ctx, func(ctx context.Context) error { _, err := s.RemoveMember(ctx, uint64(m.ID)); return err }); err != nil {
			return "", &BusyError{fmt.Sprintf("member %s (%s) cannot be removed yet: %v", m.ID, m.Name, err)}
		}
	}
	now := time.Now()
	added := membership.NewMemberAsLearner("", urls, e.config.InitialClusterToken, &now)
	if err := propose(ctx, func(ctx context.Context) error { _, err := s.AddMember(ctx, *added); return err }); err != nil {
		return "", &BusyError{fmt.Sprintf("the datastore takes no member now: %v", err)}
	}
	s.Backend().ForceCommit() // whoever reads the database of a server that was killed sees that it is not alone
	slog.Info("A server joins the datastore", "name", name, "url", peer, "member", added.ID)
	warnOfTwo(len(s.Cluster().Members()))
	return e.roll(name, added.ID), nil
}

// roll is all members as name=URL, where the one with an ID has a name to come.
func (e *Etcd) roll(name string, id types.ID) string {
	var all []string
	for _, m := range e.server.Load().Server.Cluster().Members() {
		known := m.Name
		if m.ID == id {
			known = name
		}
		for _, u := range m.PeerURLs {
			all = append(all, cmp.Or(known, m.ID.String())+"="+u)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// dead reports whether a learner has not answered for deadAfter.
func (e *Etcd) dead(m *membership.Member) bool {
	e.learners.Lock()
	defer e.learners.Unlock()
	if e.silent == nil {
		e.silent = map[types.ID]time.Time{}
	}
	if slices.ContainsFunc(m.PeerURLs, answers) {
		delete(e.silent, m.ID)
		return false
	}
	if _, known := e.silent[m.ID]; !known {
		e.silent[m.ID] = time.Now()
	}
	return time.Since(e.silent[m.ID]) > deadAfter
}

// answers reports whether somebody speaks TLS at a URL. Who it is the datastore finds out.
func answers(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	conn, err := net.DialTimeout("tcp", u.Host, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	t := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // nothing is sent, and nothing believed
	err = t.Handshake()
	var closed *net.OpError
	return err == nil || !errors.As(err, &closed) || !closed.Timeout()
}

// Remove takes a member out by its name or ID, if those that stay have a quorum without it. An error of type
// BusyError is one that time mends.
func (e *Etcd) Remove(ctx context.Context, which string) (Member, error) {
	gone, err := e.Removable(ctx, which)
	if err != nil {
		return gone, err
	}
	id, err := types.IDFromString(gone.ID)
	if err != nil {
		return gone, err
	}
	err = propose(ctx, func(ctx context.Context) error {
		_, err := e.server.Load().Server.RemoveMember(ctx, uint64(id))
		return err
	})
	switch {
	case errors.Is(err, etcderrors.ErrNotEnoughStartedMembers):
		return gone, fmt.Errorf("without %s the datastore has no quorum: too few of the other members have started; wait until they are ready: %w", which, err)
	case errors.Is(err, etcderrors.ErrUnhealthy):
		return gone, &BusyError{fmt.Sprintf("not all members have been connected with each other for 5 s; try again: %v", err)}
	case err != nil:
		return gone, fmt.Errorf("remove member %s: %w", which, err)
	}
	slog.Info("A member of the datastore was removed", "name", gone.Name, "member", gone.ID)
	return gone, nil
}

// Removable is the error that Remove would return, as far as it can be foreseen.
func (e *Etcd) Removable(ctx context.Context, which string) (Member, error) {
	health, err := e.Health(ctx, nil)
	if err != nil {
		return Member{}, &BusyError{err.Error()}
	}
	i := slices.IndexFunc(health.Members, func(m MemberHealth) bool { return m.Name == which || m.ID == which })
	if i < 0 {
		return Member{}, &UnknownError{which}
	}
	gone := health.Members[i].Member
	return gone, health.refusal(gone)
}
