// Package etcd runs an etcd member inside the process.
package etcd

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/features"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/pki"
)

const (
	// quota is the size of the store at which etcd refuses writes and raises
	// an alarm. Kubernetes' own scalability tests fit into half of it.
	quota = 4 << 30

	// commitEvery and commitAt are when etcd writes into its database what the log has: after that time, or
	// so many changes. etcd's own 100 ms make an idle server write twice as much. With etcd's 10,000 changes
	// and our time, each read would copy as many, the quota would notice as many too late, and all that
	// would be in memory; with 200 there are as many commits as etcd's where 2,000 objects a second are written.
	commitEvery, commitAt = time.Minute, 200

	// defragAt is how many MiB a restart must be able to give back to the
	// file system for the rewriting to be worth it.
	defragAt = 100
)

// Config is what a member has to be told.
type Config struct {
	Name string
	Dir  string // data directory, made 0700 if it is not there
	// Address is where other members reach this one, once there may be some; the zero value is loopback.
	Address netip.Addr
	// Admit asks a running cluster to let in a member that is reached at a URL, and returns all members as
	// name=URL,…; nil for the first member of a cluster. It is called when there are no data.
	Admit func(ctx context.Context, peerURL string) (initialCluster string, err error)
	// Several is whether there may be other members already.
	Several bool
	PKI     pki.Dir // holds etcd/server, etcd/peer and the etcd authority
	// Metrics is the addresses, besides loopback, at which it tells its figures to everybody; none =
	// nowhere, not on loopback either.
	Metrics []netip.Addr
	Args    []string // the user's own flags of etcd, key=value, applied last
	// Event posts what somebody should see to as an event of the node; nil for nowhere.
	Event func(ctx context.Context, reason, message string) error
}

// Etcd is the component.
type Etcd struct {
	config *embed.Config
	args   []string
	server atomic.Pointer[embed.Etcd]
	failed chan log.Fatal // holds one

	admit   func(ctx context.Context, peerURL string) (string, error)
	waiting atomic.Pointer[error] // why the cluster has not let it in yet

	running context.Context
	sharing sync.Mutex
	shared  chan struct{} // see Shared

	learners sync.Mutex
	silent   map[types.ID]time.Time // learners that do not answer, since when

	reach   sync.Mutex
	through http.RoundTripper // to other members; nil before it is used

	tending
}

// New checks the configuration; nothing is touched before Run.
func New(c Config) (*Etcd, error) {
	cfg, flags, err := configure(c)
	if err != nil {
		return nil, err
	}
	e := &Etcd{
		config: cfg, args: arguments(flags), failed: make(chan log.Fatal, 1), admit: c.Admit,
		shared: make(chan struct{}),
	}
	if c.Several {
		close(e.shared)
	}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log.Zap("etcd", e.fatal))
	e.disk, e.event, e.differs = newDisk(), c.Event, make(chan error, 1)
	return e, nil
}

// Endpoint is the URL at which clients reach the member.
func Endpoint() string { return "https://" + layout.Local(layout.EtcdPort) }

// configuration is configure without the flags.
func configuration(c Config) (*embed.Config, error) {
	cfg, _, err := configure(c)
	return cfg, err
}

// configure makes a configuration, and the flags that stand for it.
func configure(c Config) (*embed.Config, *flag.FlagSet, error) {
	cfg := embed.NewConfig()
	// Adding the flags sets every field to upstream's default, so it is done
	// before our own settings; the user's come last.
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	cfg.AddFlags(flags)

	cfg.Name = c.Name
	cfg.Dir = c.Dir
	cfg.ListenClientUrls = []url.URL{mustParse(Endpoint())}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	cfg.ListenPeerUrls = []url.URL{peerURL(netip.Addr{})}
	if c.Several {
		cfg.ListenPeerUrls = []url.URL{peerURL(c.Address)}
	}
	// Whom it sends something to answers there, also who does not know the members yet.
	cfg.AdvertisePeerUrls = []url.URL{peerURL(c.Address)}
	cfg.InitialCluster = cfg.InitialClusterFromName(c.Name)
	cfg.ClientTLSInfo = mutualTLS(c.PKI, pki.EtcdServer)
	cfg.PeerTLSInfo = mutualTLS(c.PKI, pki.EtcdPeer)
	// Its default is TLS 1.2 at least; with nothing older than 1.3 it takes no list.
	if version, _ := kube.Value(c.Args, "tls-min-version"); version != "TLS1.3" {
		cfg.CipherSuites = kube.CipherSuites()
	}

	// A member that is alone elects itself; waiting the default second for
	// somebody else's heartbeat would be most of a start. It waits up to five
	// ticks; each tick wakes the process for as long as it runs.
	if !c.Several && !kube.Yields("etcd", "heartbeat-interval", c.Args) && !kube.Yields("etcd", "election-timeout", c.Args) {
		cfg.TickMs, cfg.ElectionMs = 100, 500
	}

	// A commit rewrites a handful of pages for each object in it, and an idle cluster renews one every few
	// seconds. Nothing waits for a commit: what is acknowledged is in the log, and is applied again
	// after a crash.
	if !kube.Yields("etcd", "backend-batch-interval", c.Args) && !kube.Yields("etcd", "backend-batch-limit", c.Args) {
		cfg.BackendBatchInterval, cfg.BackendBatchLimit = commitEvery, commitAt
	}

	// The API server compacts as well; this is for a store that it is not
	// talking to.
	if !kube.Yields("etcd", "auto-compaction-retention", c.Args) {
		cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	}
	cfg.QuotaBackendBytes = quota
	cfg.BootstrapDefragThresholdMegabytes = defragAt

	// Entries behind the last snapshot are kept in memory for members that
	// lag; nobody lags behind a single member.
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 2000, 500

	cfg.EnableGRPCGateway = false
	cfg.ListenMetricsUrls = metricsURLs(c.Metrics)
	if err := apply(flags, c.Args); err != nil {
		return cfg, flags, err
	}
	return cfg, flags, checkBounds(cfg)
}

const (
	// leastQuota is room for a new cluster; a running one grows beyond it within hours.
	leastQuota = 64 << 20
	// leastRequest is what Kubernetes lets a ConfigMap or Secret have.
	leastRequest = 1 << 20
)

// checkBounds refuses bounds within which no cluster works: the start would wait for ever.
// Mostly somebody took another unit than bytes.
func checkBounds(cfg *embed.Config) error {
	for _, b := range []struct {
		flag        string
		said, least int64
	}{
		// With 0 etcd takes its default, with less than that no bound.
		{"quota-backend-bytes", cfg.QuotaBackendBytes, leastQuota},
		{"max-request-bytes", int64(cfg.MaxRequestBytes), leastRequest},
	} {
		if b.said < b.least && (b.said > 0 || b.flag == "max-request-bytes") {
			return fmt.Errorf("etcd-arg %q: too few bytes for a cluster; use %d or more, or remove the argument", fmt.Sprintf("%s=%d", b.flag, b.said), b.least)
		}
	}
	return nil
}

// arguments is what an etcd of its own would have to be told to run like this.
func arguments(flags *flag.FlagSet) (args []string) {
	flags.VisitAll(func(f *flag.Flag) {
		if value := f.Value.String(); value != f.DefValue {
			args = append(args, "--"+f.Name+"="+value)
		}
	})
	return args
}

// metricsURLs is where figures are told. What is served there is in package series.
func metricsURLs(addresses []netip.Addr) (urls []url.URL) {
	if len(addresses) == 0 {
		return nil
	}
	for _, a := range append([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, addresses...) {
		urls = append(urls, url.URL{Scheme: "http", Host: netip.AddrPortFrom(a, layout.EtcdMetricsPort).String()})
	}
	return urls
}

func mutualTLS(dir pki.Dir, leaf string) transport.TLSInfo {
	return transport.TLSInfo{
		CertFile:       dir.Cert(leaf),
		KeyFile:        dir.Key(leaf),
		TrustedCAFile:  dir.CA(pki.EtcdCA),
		ClientCertAuth: true,
	}
}

var (
	// decided is the flags that would part etcd from the rest of the node.
	decided = []string{"name", "data-dir", "wal-dir", "initial-cluster", "initial-cluster-state", "initial-cluster-token", "force-new-cluster"}
	// certified is the flags by which the API server and etcd would not know each
	// other any more.
	certified = []string{"cert-file", "key-file", "trusted-ca-file"}
	// logged is the flags of etcd's own log.
	logged = []string{"logger", "log-level", "log-format", "enable-log-rotation", "log-rotation-config-json"}
	// unserved is the flags that only etcd's own main function carries into
	// its configuration (3.7): here they would have no effect.
	unserved = []string{
		"cipher-suites", "max-concurrent-streams", "client-cert-allowed-hostname", "peer-cert-allowed-hostname",
		"peer-cert-allowed-cn", "cors", "host-whitelist", "discovery-endpoints", "log-outputs",
	}
)

// apply sets the user's flags, named as etcd names them.
func apply(flags *flag.FlagSet, args []string) error {
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		if key == "listen-metrics-urls" {
			return fmt.Errorf("etcd-arg %q: the metrics of all other components would be served there too; use etcd-expose-metrics", arg)
		}
		if strings.Contains(key, "urls") || slices.Contains(decided, key) {
			return fmt.Errorf("etcd-arg %q: lite decides where its etcd listens, its name and where its data is; remove the argument", arg)
		}
		if slices.Contains(certified, key) {
			return fmt.Errorf("etcd-arg %q: the API server and etcd use certificates of lite's own authority; remove the argument", arg)
		}
		if slices.Contains(logged, key) {
			return fmt.Errorf("etcd-arg %q: all components of lite share one log; remove the argument, or set --log-level or --log-format", arg)
		}
		if slices.Contains(unserved, key) {
			return fmt.Errorf("etcd-arg %q: an etcd inside another process does not support this; remove the argument", arg)
		}
		if now := successor(flags, key, value); now != "" {
			return fmt.Errorf("etcd-arg %q: etcd 3.7 no longer has this flag; use %s", arg, now)
		}
		if err := flags.Set(key, value); err != nil {
			return fmt.Errorf("etcd-arg %q: %w; `etcd --help` of the version in `lite version` lists the flags", arg, err)
		}
	}
	return nil
}

// successor is what a flag that was experimental until etcd 3.6 is called now, or
// the gate that it became; "" if it is neither.
func successor(flags *flag.FlagSet, key, value string) string {
	name, was := strings.CutPrefix(key, "experimental-")
	if !was || flags.Lookup(key) != nil {
		return ""
	}
	if flags.Lookup(name) != nil {
		return name
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "enable-"), "-enabled")
	for gate := range features.DefaultEtcdServerFeatureGates {
		if strings.EqualFold(string(gate), strings.ReplaceAll(name, "-", "")) {
			return fmt.Sprintf("feature-gates=%s=%s", gate, cmp.Or(value, "true"))
		}
	}
	return ""
}

// Name implements component.Component.
func (e *Etcd) Name() string { return "etcd" }

// serve runs the member on the data that are there.
func (e *Etcd) serve(ctx context.Context) (err error) {
	if err := e.enter(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	server, err := e.start()
	if err != nil {
		return err
	}
	var stop context.CancelFunc
	e.running, stop = context.WithCancel(ctx)
	defer stop()
	e.server.Store(server)
	if err := reserve(databaseFile(e.config.Dir)); err != nil {
		slog.Debug("On a full disk the datastore cannot grow", "err", err)
	}
	ended := e.tended(ctx, server)
	select {
	case <-ctx.Done():
	case err = <-server.Err():
		err = e.stopped(server, fmt.Errorf("serve: %w", err))
	case <-server.Server.StopNotify():
		err = e.stopped(server, errors.New("the member stopped"))
	case err = <-e.differs:
	case reason := <-e.failed:
		// It stands still with its locks held: closing it would wait for them.
		return fmt.Errorf("write to %s: %w; acknowledged writes are safe: fix the cause and start again", e.config.Dir, reason)
	}
	ended()
	server.Close()
	return err
}

// fatal is called where etcd would end the process, because it cannot write for
// example. While it starts, start recovers from the panic. Later it happens in a
// goroutine of etcd's, which must not go on.
func (e *Etcd) fatal(reason log.Fatal) {
	if e.server.Load() == nil {
		panic(reason)
	}
	select {
	case e.failed <- reason:
	default:
	}
	select {}
}

// start starts the member. etcd answers damage with a fatal log line, which
// our logger makes a panic.
func (e *Etcd) start() (server *embed.Etcd, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = opened(fmt.Errorf("open %s: %v; restore a snapshot or a copy of it, or move it away to start an empty cluster", e.config.Dir, r))
		}
	}()
	if err := verify(e.config.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(e.config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the data directory of etcd: %w", err)
	}
	server, err = embed.StartEtcd(e.config)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", e.config.Dir, err)
	}
	return server, nil
}

// Used reports whether a member has worked in a data directory. Either of a log
// and a database shows it: what is encrypted in one of them needs its keys even
// if the other is lost.
func Used(dir string) bool {
	if hasLog(dir) {
		return true
	}
	database, err := os.Stat(databaseFile(dir))
	return err == nil && database.Size() > 0
}

func hasLog(dir string) bool { return wal.Exist(walDir(dir)) }

func walDir(dir string) string { return filepath.Join(memberDir(dir), "wal") }

// verify reads the write-ahead log and the database's own description without
// changing anything: etcd opens its database for writing, in a goroutine that
// nobody can catch the panic of, before it finds that the log is damaged. A last
// record that a power cut tore is no damage; etcd drops it.
func verify(dir string) error {
	if err := inPlace(dir); err != nil {
		return err
	}
	logDir, database := walDir(dir), databaseFile(dir)
	damaged := func(what string, err error) error {
		return &damageError{fmt.Errorf("%s is damaged: %w; nothing was changed: %s", what, err, remedy(dir))}
	}
	if !hasLog(dir) {
		applied, err := appliedAlone(dir)
		if err != nil {
			return damaged("the database "+database, err)
		}
		// etcd would make a new log, in which what the database holds has
		// never been agreed upon, and wait for ever (3.7).
		if applied > 0 {
			return damaged("the write-ahead log in "+logDir, fmt.Errorf("it is missing, and the database contains entry %d", applied))
		}
		return nil
	}
	begins, logged, err := lastLogged(logDir)
	if err != nil {
		return damaged("the write-ahead log in "+logDir, err)
	}
	applied, err := lastApplied(database)
	if errors.Is(err, os.ErrNotExist) {
		if begins == 0 {
			return nil // made from the log
		}
		return damaged("the database "+database, fmt.Errorf("it is missing, and the log contains only what came after entry %d", begins))
	}
	if err != nil {
		return damaged("the database "+database, err)
	}
	// What is missing between the two came from another member, and is beside them, or
	// has been lost with a database that was newer.
	if from := filepath.Join(filepath.Dir(database), fmt.Sprintf("%016x.snap.db", begins)); applied < begins && !exists(from) {
		return damaged("the database "+database, fmt.Errorf("it contains entries up to %d, and the log only entries after %d", applied, begins))
	}
	// etcd takes a record whose length is damaged for one that was never whole,
	// and drops it with all that follows (3.7). But nothing is applied before
	// it is safe in the log.
	if logged < applied {
		return damaged("the write-ahead log in "+logDir, fmt.Errorf("it is readable up to entry %d, and the database contains entry %d", logged, applied))
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// appliedAlone is lastApplied where there is no log. etcd makes the database
// before the log: a first start that was cut short leaves one that holds nothing,
// or a file without content, and may be repeated.
func appliedAlone(dir string) (uint64, error) {
	database, err := os.Stat(databaseFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if _, err := os.Stat(walDir(dir)); database.Size() == 0 && errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return lastApplied(databaseFile(dir))
}

// lastLogged is the index of the last entry of a write-ahead log, and of the one
// that it begins after.
func lastLogged(logDir string) (begins, last uint64, err error) {
	begins, _, entries, err := readLog(logDir)
	if err != nil || len(entries) == 0 {
		return begins, begins, err
	}
	return begins, entries[len(entries)-1].GetIndex(), nil
}

// readLog reads what a write-ahead log has after its newest snapshot, which is of entry begins, and changes nothing.
func readLog(logDir string) (begins uint64, metadata []byte, entries []*raftpb.Entry, err error) {
	newest, err := newestSnapshot(logDir)
	if err != nil {
		return 0, nil, nil, err
	}
	w, err := wal.OpenForRead(zap.NewNop(), logDir, newest)
	if err != nil {
		return 0, nil, nil, err
	}
	defer w.Close()
	if metadata, _, entries, err = w.ReadAll(); err != nil {
		return 0, nil, nil, err
	}
	return newest.GetIndex(), metadata, entries, nil
}

// newestSnapshot is where a log is to be read from.
func newestSnapshot(logDir string) (*walpb.Snapshot, error) {
	snapshots, err := wal.ValidSnapshotEntries(zap.NewNop(), logDir)
	if err != nil {
		return nil, err
	}
	if len(snapshots) == 0 {
		// Every log begins with an entry for the empty snapshot.
		return nil, errors.New("its beginning is missing")
	}
	return snapshots[len(snapshots)-1], nil
}

// lastApplied is the index of the last entry that a database holds, all of which can be
// read.
func lastApplied(database string) (index uint64, err error) {
	db, err := bbolt.Open(database, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	// Where pages are damaged, or the file was cut short, etcd's own look ends the process
	// in a goroutine that nobody can catch (3.7). What is beyond the end of a file that is
	// mapped is a fault.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it is not readable to its end: %v", r)
		}
	}()
	err = db.View(func(tx *bbolt.Tx) error {
		// Names and form are those of etcd's storage/schema (3.7).
		if meta := tx.Bucket([]byte("meta")); meta != nil {
			if value := meta.Get([]byte("consistent_index")); len(value) == 8 {
				index = binary.BigEndian.Uint64(value)
			}
		}
		return readAll(tx)
	})
	return index, err
}

// readAll touches the end of each entry of a database: as much as etcd looks at when it
// opens it, which finds all that in memory then.
func readAll(tx *bbolt.Tx) error {
	var sum byte
	touch := func(key, value []byte) error {
		for _, part := range [][]byte{key, value} {
			if len(part) > 0 {
				sum ^= part[len(part)-1]
			}
		}
		return nil
	}
	err := tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error { return bucket.ForEach(touch) })
	runtime.KeepAlive(sum)
	return err
}

// Settings implements component.Configured.
func (e *Etcd) Settings() (component.Settings, error) {
	return component.Settings{Arguments: e.args}, nil
}

// Ready implements component.Component: the member has a leader and no alarm.
func (e *Etcd) Ready(context.Context) error {
	server := e.server.Load()
	if why := e.waiting.Load(); server == nil && why != nil {
		return fmt.Errorf("waiting for the cluster to admit this server: %w", *why)
	}
	if server == nil {
		return errors.New("opening the store")
	}
	select {
	case <-server.Server.ReadyNotify():
	default:
		return errors.New("electing a leader")
	}
	if server.Server.IsLearner() {
		return errors.New("catching up with the other servers")
	}
	if !e.agrees(server) {
		return errors.New("comparing its data with those of the other servers")
	}
	alarms := server.Server.Alarms()
	if slices.ContainsFunc(alarms, func(a *etcdserverpb.AlarmMember) bool { return a.Alarm == etcdserverpb.AlarmType_NOSPACE }) {
		return e.full()
	}
	if len(alarms) > 0 {
		return fmt.Errorf("alarm %s: the store is damaged; restore a snapshot", alarms[0].Alarm)
	}
	return nil
}

func mustParse(s string) url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err) // a constant of this file
	}
	return *u
}
