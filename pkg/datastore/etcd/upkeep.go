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

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/etcd/server/v3/storage"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

const (
	// lookEvery is how often a member looks after its store. It reads a few numbers in memory; its raft
	// ticks six hundred times meanwhile.
	lookEvery = time.Minute
	// quietBelow is how many entries the log may have got since the last look for a moment to be quiet: an idle
	// server makes thirty, and a node six more; somebody who works makes many thousands.
	quietBelow = 1500
	// pauseBytes is how much a running member copies when it defragments at a quiet moment. It answers nobody
	// meanwhile: 1.5 s for so much on a busy machine, 11 s for ten times as much, in which no request fails and no
	// lease ends. More waits for the next start, or for the quota.
	pauseBytes = 128 << 20
	// fullAt and roomAt are percents of the quota: where it is told, and below which the alarm is lifted.
	fullAt, roomAt = 80, 90
	// tellEvery is how often an event is posted anew, which the API forgets after an hour.
	tellEvery = 50 * time.Minute
	// turn is the key that a member of several holds while it defragments, and turnTTL after how many
	// seconds it is free again if that member has died.
	turn, turnTTL = layout.DefragmentingKey, 600
	// callTimeout bounds one request to the cluster.
	callTimeout = 10 * time.Second
)

// tending is what a member has for its own upkeep.
type tending struct {
	event  func(ctx context.Context, reason, message string) error
	disk   *disk
	cannot atomic.Pointer[string] // why no space is given back

	copying atomic.Bool // nobody is answered meanwhile

	differs chan error             // its data are not those of the others; one at most
	agreed  atomic.Bool            // they are, as far as anybody knows
	odd     atomic.Pointer[string] // whose data are others, where that is not this member
}

// upkeep looks after the store of a running member.
type upkeep struct {
	*etcdserver.EtcdServer
	etcd *Etcd
	disk *disk

	applied uint64    // by the last look
	told    time.Time // when the quota was an event
}

// tended starts what a member does besides serving, and returns what ends that.
func (e *Etcd) tended(ctx context.Context, server *embed.Etcd) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	e.agreed.Store(false)
	go func() {
		defer close(ended)
		e.tend(ctx, server)
	}()
	return func() {
		cancel()
		<-ended // nothing is defragmented in a store that closes
	}
}

// tend begins when the member knows itself and the others.
func (e *Etcd) tend(ctx context.Context, server *embed.Etcd) {
	select {
	case <-server.Server.ReadyNotify():
	case <-ctx.Done():
		return
	}
	u := &upkeep{EtcdServer: server.Server, etcd: e, disk: e.disk}
	u.disk.sample()
	if err := u.compare(ctx); err != nil {
		e.differs <- err
		return
	}
	e.agreed.Store(true)
	e.settle(ctx, server)
	for n := 1; ; n++ {
		u.look(ctx)
		if !kube.Sleep(ctx, lookEvery) {
			return
		}
		if n%compareEvery == 0 && text(&e.odd) != "" {
			if err := u.compare(ctx); err != nil {
				e.differs <- err
				return
			}
		}
	}
}

// look is one round.
func (u *upkeep) look(ctx context.Context) {
	u.disk.sample()
	applied := u.AppliedIndex()
	quiet := applied-u.applied < quietBelow // not at the first look
	u.applied = applied

	full, err := u.relieve(ctx)
	if be := u.Backend(); !full && quiet && worthwhile(be.Size(), be.SizeInUse()) && be.SizeInUse() <= pauseBytes {
		err = u.exclusively(ctx, u.defragment)
	}
	u.waits(err)
	u.tellQuota(ctx)
}

// worthwhile reports whether a database is worth rewriting: half of it, and as much as a start gives back, is free.
// Below that, what is free is what will be written next.
func worthwhile(size, used int64) bool {
	free := size - used
	return free >= defragAt<<20 && free >= size/2
}

// waits logs why something was not done, once.
func (u *upkeep) waits(err error) {
	why := component.Line(err)
	before := u.etcd.cannot.Swap(&why)
	if why != "" && (before == nil || *before != why) {
		slog.Warn("The datastore cannot give back space yet", "because", why)
	}
}

// relieve lifts the NOSPACE alarm of this member, having made the room that can be made: while there is one, the API
// server can write nothing, not even that it compacts.
func (u *upkeep) relieve(ctx context.Context) (full bool, err error) {
	first := uint64(0)
	for _, a := range u.Alarms() {
		if a.GetAlarm() != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		full = true
		switch id := a.GetMemberID(); {
		case u.Cluster().Member(types.ID(id)) != nil && (first == 0 || id < first):
			first = id
		case u.Cluster().Member(types.ID(id)) == nil && u.Leader() == u.MemberID():
			u.lift(ctx, id) // of one that was removed
		}
	}
	// All know the same alarms, so they agree on whose turn it is without writing.
	if first != uint64(u.MemberID()) {
		return full, nil
	}
	if err := u.compact(ctx); err != nil {
		return full, err
	}
	if be := u.Backend(); !u.hasRoom(be.Size()) && u.hasRoom(be.SizeInUse()) {
		if err := u.defragment(ctx); err != nil {
			return full, err
		}
	}
	if u.hasRoom(u.Backend().Size()) {
		u.lift(ctx, first)
	}
	return full, nil
}

func (u *upkeep) hasRoom(bytes int64) bool {
	quota := u.etcd.quota()
	return quota <= 0 || bytes <= quota/100*roomAt
}

func (u *upkeep) lift(ctx context.Context, id uint64) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := u.Alarm(ctx, &etcdserverpb.AlarmRequest{
		Action: etcdserverpb.AlarmRequest_DEACTIVATE, MemberID: id, Alarm: etcdserverpb.AlarmType_NOSPACE,
	})
	if err != nil {
		slog.Warn("Cannot disarm the NOSPACE alarm of the datastore, which has space again", "member", types.ID(id), "err", err)
		return
	}
	slog.Info("The datastore has space again: disarmed its NOSPACE alarm", "member", types.ID(id))
}

// compact drops the history of all keys.
func (u *upkeep) compact(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	if u.KV().Rev() <= u.KV().FirstRev() {
		return nil
	}
	_, err := u.Compact(ctx, &etcdserverpb.CompactionRequest{Revision: u.KV().Rev(), Physical: true})
	if err != nil && !errors.Is(err, mvcc.ErrCompacted) {
		return fmt.Errorf("compact the datastore: %w", err)
	}
	u.recount()
	return nil
}

// recount has etcd count what is free, which it does when it commits changes; what one of them frees counts in the next.
func (u *upkeep) recount() {
	for range 2 {
		tx := u.Backend().BatchTx()
		tx.LockOutsideApply()
		tx.UnsafeCreateBucket(schema.Key) // it is there: this only counts as a change (3.7)
		tx.Unlock()
		u.Backend().ForceCommit()
	}
}

// quota is the size at which writes are refused; none if it is not positive.
func (e *Etcd) quota() int64 {
	if e.config.QuotaBackendBytes == 0 {
		return storage.DefaultQuotaBytes
	}
	return e.config.QuotaBackendBytes
}

// defragment rewrites the database of this member without what is free in it. It answers nobody meanwhile, so
// another has to lead, and all others have to be there.
func (u *upkeep) defragment(ctx context.Context) error {
	database := databaseFile(u.etcd.config.Dir)
	if err := hasSpace(filepath.Dir(database), u.Backend().SizeInUse()); err != nil {
		return err
	}
	others, err := u.others(ctx)
	if err != nil {
		return err
	}
	if len(others) > 0 && u.Leader() == u.MemberID() {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if err := u.MoveLeader(ctx, u.Lead(), uint64(others[0].ID)); err != nil {
			return fmt.Errorf("let server %s lead the datastore: %w", others[0].Name, err)
		}
	}
	u.etcd.copying.Store(true)
	defer u.etcd.copying.Store(false)
	began, before := time.Now(), u.Backend().Size()
	if err := u.Defragment(); err != nil {
		return fmt.Errorf("defragment %s: %w", database, err)
	}
	slog.Info("Defragmented the datastore", "MiB before", before>>20, "MiB now", u.Backend().Size()>>20, "took", time.Since(began).Round(time.Millisecond))
	if err := reserve(database); err != nil { // it is another file now
		slog.Debug("On a full disk the datastore cannot grow", "err", err)
	}
	return nil
}

// hasSpace reports whether a disk has room for a copy, and for what else is written meanwhile.
func hasSpace(dir string, copied int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("find space in %s: %w", dir, err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < copied+4*reserved {
		return fmt.Errorf("%s has %d MiB free, and a copy of the database takes %d: make room on the disk", dir, free>>20, (copied+4*reserved)>>20)
	}
	return nil
}

// others is the other members, all of which vote and answer.
func (u *upkeep) others(ctx context.Context) (all []*membership.Member, err error) {
	all = slices.DeleteFunc(u.Cluster().Members(), func(m *membership.Member) bool { return m.ID == u.MemberID() })
	if len(all) == 0 {
		return nil, nil
	}
	dial, err := u.etcd.dial()
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.IsLearner {
			return nil, fmt.Errorf("server %s is joining", m.Name)
		}
		if _, err := etcdserver.GetClusterFromRemotePeers(zap.NewNop(), m.PeerURLs, dial); err != nil || ctx.Err() != nil {
			return nil, fmt.Errorf("server %s at %s does not answer: bring it back, or remove it with `lite member remove`", m.Name, strings.Join(m.PeerURLs, ","))
		}
	}
	return all, nil
}

// dial speaks to other members as a member.
func (e *Etcd) dial() (http.RoundTripper, error) {
	return rafthttp.NewRoundTripper(e.config.PeerTLSInfo, time.Second)
}

// exclusively does something when it is this member's turn: one at a time.
func (u *upkeep) exclusively(ctx context.Context, do func(context.Context) error) error {
	if len(u.Cluster().Members()) == 1 {
		return do(ctx)
	}
	grant, err := u.LeaseGrant(ctx, &etcdserverpb.LeaseGrantRequest{TTL: turnTTL})
	if err != nil {
		return err
	}
	defer func() { // also when the process is told to stop
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		_, _ = u.LeaseRevoke(ctx, &etcdserverpb.LeaseRevokeRequest{ID: grant.GetID()})
	}()
	got, err := u.Txn(ctx, &etcdserverpb.TxnRequest{
		Compare: []*etcdserverpb.Compare{{
			Key: []byte(turn), Target: etcdserverpb.Compare_CREATE, Result: etcdserverpb.Compare_EQUAL,
			TargetUnion: &etcdserverpb.Compare_CreateRevision{CreateRevision: 0},
		}},
		Success: []*etcdserverpb.RequestOp{{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: &etcdserverpb.PutRequest{
			Key: []byte(turn), Value: []byte(u.etcd.config.Name), Lease: grant.GetID(),
		}}}},
	})
	if err != nil || !got.GetSucceeded() {
		return err
	}
	return do(ctx)
}

// Note implements component.Noter.
func (e *Etcd) Note() string {
	server := e.server.Load()
	if server == nil {
		return ""
	}
	if e.copying.Load() {
		return "giving back space that is free in the database"
	}
	return component.Notes(e.nearlyFull(server.Server), e.disk.note(), text(&e.odd))
}

// nearlyFull says so; "" while there is room.
func (e *Etcd) nearlyFull(s *etcdserver.EtcdServer) string {
	quota, size := e.quota(), s.Backend().Size()
	if quota <= 0 || size < quota/100*fullAt {
		return ""
	}
	return fmt.Sprintf("the store has %d MiB, of which %d are in use; at its quota of %d MiB it refuses writes: delete objects that nobody needs, or raise it with --etcd-arg quota-backend-bytes=N",
		size>>20, s.Backend().SizeInUse()>>20, quota>>20)
}

// full is what Ready says while writes are refused.
func (e *Etcd) full() error {
	err := fmt.Errorf("alarm NOSPACE: the store has reached its quota of %d MiB and refuses writes; delete objects that nobody needs, and lite gives back their space and goes on within minutes, or raise it with --etcd-arg quota-backend-bytes=N", e.quota()>>20)
	if why := text(&e.cannot); why != "" {
		return fmt.Errorf("%w; not yet, because %s", err, why)
	}
	return err
}

// tellQuota makes it an event before writes fail: none can be written afterwards.
func (u *upkeep) tellQuota(ctx context.Context) {
	problem := u.etcd.nearlyFull(u.EtcdServer)
	if problem == "" {
		u.told = time.Time{}
		return
	}
	if time.Since(u.told) < tellEvery {
		return
	}
	slog.Warn("The datastore is nearly full", "problem", problem)
	u.told = time.Now()
	if u.etcd.event == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := u.etcd.event(ctx, "DatastoreNearlyFull", problem); err != nil {
		u.told = time.Time{} // at the next look
		slog.Debug("Cannot post an event", "err", err)
	}
}
