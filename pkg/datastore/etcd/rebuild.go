package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"lite.io/lite/pkg/kube"
)

// damageError is that the data of this member are not what was written.
type damageError struct{ error }

func (e *damageError) Unwrap() error { return e.error }

// opened is an error of etcd's when it opens a store: what it cannot decode is damaged.
func opened(err error) error {
	if strings.Contains(err.Error(), "unmarshal") {
		return &damageError{err}
	}
	return err
}

// Run implements component.Component. A member whose data are damaged gets them from the others.
func (e *Etcd) Run(ctx context.Context) error {
	for {
		err := e.serve(ctx)
		var damage *damageError
		if !errors.As(err, &damage) || e.admit == nil || ctx.Err() != nil {
			return err
		}
		e.server.Store(nil)
		slog.Error("The data of this server are damaged: it asks the other servers for theirs", "problem", damage)
		// Only who is admitted again needs its own data no more.
		if err := e.ask(ctx, damage); err != nil || ctx.Err() != nil {
			return err
		}
		if err := SetAside(e.config.Dir, Damaged(e.config.Dir)); err != nil {
			return fmt.Errorf("%w; %w: empty %s, and start again", damage, err, memberDir(e.config.Dir))
		}
		slog.Warn("The damaged data are set aside", "dir", Damaged(e.config.Dir))
	}
}

// Damaged is where data that were replaced by those of the other servers are, until others follow.
func Damaged(dir string) string { return filepath.Join(dir, "damaged") }

// agrees reports whether nobody doubts the data of a member.
func (e *Etcd) agrees(server *embed.Etcd) bool {
	return e.agreed.Load() || len(server.Server.Cluster().Members()) == 1
}

const (
	// compareTries is how often data are compared: those of a member that has not caught up cannot be.
	compareTries = 5
	// compareEvery is after how many looks data are compared again, while they differ.
	compareEvery = 10
	// compareTimeout is how long one of the others may take: it reads all that it has.
	compareTimeout = 30 * time.Second
)

// compare returns an error if most members have other data than this one. A database has no checksums: a bit that is
// wrong in a value is found in no other way. This is done when a member starts, as kubeadm has etcd do it; but there,
// one that is right refuses to start too while one is up that is wrong. Each member reads all of its data for it, one
// after the other.
func (u *upkeep) compare(ctx context.Context) error {
	if u.IsLearner() { // it has just got them
		return nil
	}
	var b ballot
	whole := 0
	for try := 0; try < compareTries && ctx.Err() == nil; try++ {
		others := slices.DeleteFunc(u.Cluster().Members(), func(m *membership.Member) bool { return m.ID == u.MemberID() || m.IsLearner })
		if len(others) == 0 {
			return nil
		}
		whole = len(others) + 1
		var err error
		if b, err = u.vote(ctx, others); err == nil && len(b.late) == 0 {
			break
		}
		kube.Sleep(ctx, time.Second)
	}
	for _, names := range b.differ {
		slices.Sort(names)
		if len(names) > whole/2 {
			return &damageError{fmt.Errorf("the data in %s are not those of the other servers %s: a bit of them has changed on the disk; to let this server get theirs, run `lite member rejoin` here", u.etcd.config.Dir, strings.Join(names, " and "))}
		}
	}
	u.etcd.odd.Store(b.odd(whole))
	return nil
}

// ballot is whose data are the same as those of this member.
type ballot struct {
	same   []string
	differ map[uint32][]string // by their checksum
	late   []string            // they are at another revision
}

// odd says whose data are wrong if that is not this member; nil if nobody's are.
func (b ballot) odd(whole int) *string {
	if len(b.differ) == 0 {
		return nil
	}
	var names []string
	for _, n := range b.differ {
		names = append(names, n...)
	}
	slices.Sort(names)
	text := fmt.Sprintf("the data of this server and of %s are not the same, and no majority says which are right: start all servers, or restore a snapshot", strings.Join(names, " and "))
	if len(b.same)+1 > whole/2 {
		text = fmt.Sprintf("the data of server %s are damaged: restart it, and it gets those of the others", strings.Join(names, " and "))
	}
	slog.Error("The data of the servers differ", "problem", text)
	return &text
}

// vote asks each of the other members for the checksum of its data at the revision of this one.
func (u *upkeep) vote(ctx context.Context, others []*membership.Member) (ballot, error) {
	b := ballot{differ: map[uint32][]string{}}
	own, _, err := u.KV().HashStorage().HashByRev(0)
	if err != nil {
		return b, err
	}
	dial, err := u.etcd.dial()
	if err != nil {
		return b, err
	}
	client := &http.Client{Transport: dial}
	for _, m := range others {
		theirs, late, err := u.checksum(ctx, client, m, own.Revision)
		switch {
		case late, err == nil && theirs.CompactRevision != own.CompactRevision:
			b.late = append(b.late, m.Name)
		case err != nil:
			slog.Debug("Cannot compare data with those of another server", "server", m.Name, "err", err)
		case theirs.Hash == own.Hash:
			b.same = append(b.same, m.Name)
		default:
			b.differ[theirs.Hash] = append(b.differ[theirs.Hash], m.Name)
		}
	}
	return b, nil
}

func (u *upkeep) checksum(ctx context.Context, client *http.Client, m *membership.Member, revision int64) (sum mvcc.KeyValueHash, late bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	for _, address := range m.PeerURLs {
		got, e := etcdserver.HashByRev(ctx, u.Cluster().ID(), client, address, revision)
		if e == nil {
			return mvcc.KeyValueHash{Hash: got.GetHash(), CompactRevision: got.GetCompactRevision()}, false, nil
		}
		late, err = late || errors.Is(e, rpctypes.ErrFutureRev) || errors.Is(e, rpctypes.ErrCompacted), e
	}
	return sum, late, err
}

// text is what was stored; "" for nothing.
func text(p *atomic.Pointer[string]) string {
	if s := p.Load(); s != nil {
		return *s
	}
	return ""
}
