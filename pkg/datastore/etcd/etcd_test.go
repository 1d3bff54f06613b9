package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"lite.io/lite/pkg/pki"
	"lite.io/lite/tests/upstream"
)

// quietly keeps etcd's log away from the test's.
func quietly(t *testing.T) {
	t.Helper()
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	t.Cleanup(func() { slog.SetDefault(was) })
}

func sample(args ...string) Config {
	return Config{Name: "node-a", Dir: "/data/etcd", PKI: "/data/pki", Args: args}
}

func configured(t *testing.T, args ...string) *embed.Config {
	t.Helper()
	cfg, err := configuration(sample(args...))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestMemberListensOnLoopbackAlone(t *testing.T) {
	cfg := configured(t)
	all := map[string][]url.URL{
		"client": cfg.ListenClientUrls, "advertised client": cfg.AdvertiseClientUrls,
		"peer": cfg.ListenPeerUrls, "advertised peer": cfg.AdvertisePeerUrls,
	}
	for name, urls := range all {
		if len(urls) != 1 || urls[0].Scheme != "https" || !netip.MustParseAddr(urls[0].Hostname()).IsLoopback() {
			t.Errorf("%s: %v", name, urls)
		}
	}
	if len(cfg.ListenMetricsUrls)+len(cfg.ListenClientHttpUrls) > 0 {
		t.Errorf("also listens on %v %v", cfg.ListenMetricsUrls, cfg.ListenClientHttpUrls)
	}
	if got := Endpoint(); got != cfg.ListenClientUrls[0].String() {
		t.Errorf("clients are sent to %s", got)
	}
	if cfg.EnableGRPCGateway {
		t.Error("the HTTP gateway is on")
	}
}

func TestMemberAsksForCertificates(t *testing.T) {
	cfg := configured(t)
	for name, test := range map[string]struct{ got, want transport.TLSInfo }{
		"client": {cfg.ClientTLSInfo, transport.TLSInfo{CertFile: "/data/pki/etcd/server.crt", KeyFile: "/data/pki/etcd/server.key", TrustedCAFile: "/data/pki/etcd/ca.crt", ClientCertAuth: true}},
		"peer":   {cfg.PeerTLSInfo, transport.TLSInfo{CertFile: "/data/pki/etcd/peer.crt", KeyFile: "/data/pki/etcd/peer.key", TrustedCAFile: "/data/pki/etcd/ca.crt", ClientCertAuth: true}},
	} {
		if g, w := test.got, test.want; g.CertFile != w.CertFile || g.KeyFile != w.KeyFile || g.TrustedCAFile != w.TrustedCAFile || g.ClientCertAuth != w.ClientCertAuth || g.InsecureSkipVerify {
			t.Errorf("%s: got %v", name, g)
		}
	}
}

func TestMemberBoundsItsStore(t *testing.T) {
	cfg := configured(t)
	if cfg.QuotaBackendBytes != 4<<30 || cfg.AutoCompactionMode != "periodic" || cfg.AutoCompactionRetention != "1h" {
		t.Errorf("got %d, %s %s", cfg.QuotaBackendBytes, cfg.AutoCompactionMode, cfg.AutoCompactionRetention)
	}
	if cfg.Dir != "/data/etcd" || cfg.WalDir != "" || cfg.Name != "node-a" || cfg.InitialCluster != "node-a=https://127.0.0.1:2380" {
		t.Errorf("got %+v", cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestUsersArgumentsWin(t *testing.T) {
	for arg, got := range map[string]func(*embed.Config) bool{
		"quota-backend-bytes=134217728":          func(c *embed.Config) bool { return c.QuotaBackendBytes == 128<<20 },
		"quota-backend-bytes=0":                  func(c *embed.Config) bool { return c.QuotaBackendBytes == 0 },
		"quota-backend-bytes=-1":                 func(c *embed.Config) bool { return c.QuotaBackendBytes == -1 },
		"heartbeat-interval=100":                 func(c *embed.Config) bool { return c.TickMs == 100 },
		"auto-compaction-retention=5m":           func(c *embed.Config) bool { return c.AutoCompactionRetention == "5m" },
		"snapshot-count=7":                       func(c *embed.Config) bool { return c.SnapshotCount == 7 },
		"max-request-bytes=2097152":              func(c *embed.Config) bool { return c.MaxRequestBytes == 2<<20 },
		"unsafe-no-fsync=true":                   func(c *embed.Config) bool { return c.UnsafeNoFsync },
		"bootstrap-defrag-threshold-megabytes=1": func(c *embed.Config) bool { return c.BootstrapDefragThresholdMegabytes == 1 },
		"compaction-batch-limit=5":               func(c *embed.Config) bool { return c.CompactionBatchLimit == 5 },
	} {
		t.Run(arg, func(t *testing.T) {
			if cfg := configured(t, arg); !got(cfg) {
				t.Error("the argument has no effect")
			}
		})
	}
}

// Of two settings that bound each other, a user's takes the other of ours along.
func TestUsersArgumentsThatBoundOurs(t *testing.T) {
	for arg, want := range map[string]string{
		"":                              "100 500 periodic 1h",
		"heartbeat-interval=200":        "200 1000 periodic 1h",
		"election-timeout=3000":         "100 3000 periodic 1h",
		"auto-compaction-mode=revision": "100 500 revision 0",
		"auto-compaction-mode=periodic": "100 500 periodic 1h",
		"auto-compaction-retention=30m": "100 500 periodic 30m",
		"auto-compaction-mode=revision auto-compaction-retention=1000": "100 500 revision 1000",
	} {
		c, err := configuration(sample(strings.Fields(arg)...))
		if err != nil {
			t.Errorf("%s: %v", arg, err)
			continue
		}
		if got := fmt.Sprintf("%d %d %s %s", c.TickMs, c.ElectionMs, c.AutoCompactionMode, c.AutoCompactionRetention); got != want {
			t.Errorf("%s: got %s, want %s", arg, got, want)
		}
	}
}

// etcd's own main function copies some flags into its configuration by hand
// (3.7): those must have an effect here as well, or be refused.
func TestNoArgumentIsSilentlyIgnored(t *testing.T) {
	for arg, got := range map[string]func(*embed.Config) bool{
		"cipher-suites=TLS_AES_128_GCM_SHA256":        func(c *embed.Config) bool { return len(c.CipherSuites) == 1 },
		"max-concurrent-streams=9":                    func(c *embed.Config) bool { return c.MaxConcurrentStreams == 9 },
		"client-cert-allowed-hostname=a.example.test": func(c *embed.Config) bool { return len(c.ClientTLSInfo.AllowedHostnames) == 1 },
		"peer-cert-allowed-cn=a":                      func(c *embed.Config) bool { return len(c.PeerTLSInfo.AllowedCNs) == 1 },
		"host-whitelist=a.example.test":               func(c *embed.Config) bool { return len(c.HostWhitelist) == 1 },
	} {
		t.Run(arg, func(t *testing.T) {
			cfg, err := configuration(sample(arg))
			if err == nil && !got(cfg) {
				t.Error("the argument has no effect")
			}
		})
	}
}

// Which those are changes with etcd: its sources name them.
func TestFlagsThatOnlyEtcdsMainCarriesAreRefused(t *testing.T) {
	found := 0
	carries := regexp.MustCompile(`FromFlag\(cfg\.cf\.flagSet, "([^"]+)"\)`)
	upstream.Files(t, filepath.Join(upstream.Sources(t, "go.etcd.io/etcd/server/v3"), "etcdmain"), func(path, content string) {
		for _, m := range carries.FindAllStringSubmatch(content, -1) {
			found++
			_, err := configuration(sample(m[1] + "=a"))
			if err == nil || !strings.Contains(err.Error(), "does not support this") && !strings.Contains(err.Error(), "lite decides") && !strings.Contains(err.Error(), "use etcd-expose-metrics") {
				t.Errorf("%s: --%s has no effect here and is not refused: %v", path, m[1], err)
			}
		}
	})
	if found < 12 {
		t.Errorf("only %d flags were found: etcd carries them otherwise now", found)
	}
}

func TestArgumentsThatAreRefused(t *testing.T) {
	for arg, want := range map[string]string{
		"listen-client-urls=http://0.0.0.0:2379": `etcd-arg "listen-client-urls=http://0.0.0.0:2379": lite decides`,
		"initial-advertise-peer-urls=https://x":  `lite decides`,
		"listen-metrics-urls=http://0.0.0.0:1":   `use etcd-expose-metrics`,
		"name=other":                             `lite decides`,
		"initial-cluster=a=https://x":            `lite decides`,
		// It was answered with the advice to restore a snapshot.
		"log-level=verbose":                       `etcd-arg "log-level=verbose": all components of lite share one log; remove the argument, or set --log-level`,
		"cert-file=/other.crt":                    `etcd-arg "cert-file=/other.crt": the API server and etcd use certificates`,
		"trusted-ca-file=/other.crt":              `certificates of lite's own authority; remove the argument`,
		"quota-backend-byte=1":                    `etcd-arg "quota-backend-byte=1": no such flag -quota-backend-byte`,
		"quota-backend-bytes=1":                   `etcd-arg "quota-backend-bytes=1": too few bytes for a cluster; use 67108864 or more, or remove the argument`,
		"quota-backend-bytes=8192":                `etcd-arg "quota-backend-bytes=8192": too few bytes for a cluster`,
		"max-request-bytes=1000":                  `etcd-arg "max-request-bytes=1000": too few bytes for a cluster; use 1048576 or more`,
		"max-request-bytes=0":                     `etcd-arg "max-request-bytes=0": too few bytes`,
		"quota-backend-bytes=much":                `etcd-arg "quota-backend-bytes=much": parse error`,
		"quota-backend-bytes":                     `etcd-arg "quota-backend-bytes": parse error`,
		"experimental-compaction-batch-limit=5":   `etcd-arg "experimental-compaction-batch-limit=5": etcd 3.7 no longer has this flag; use compaction-batch-limit`,
		"experimental-initial-corrupt-check=true": `etcd-arg "experimental-initial-corrupt-check=true": etcd 3.7 no longer has this flag; use feature-gates=InitialCorruptCheck=true`,
	} {
		_, err := New(sample(arg))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %s", arg, err, want)
		}
	}
}

// Each experimental flag of etcd 3.6 is answered with what does the same in 3.7.
func TestExperimentalFlagsHaveSuccessors(t *testing.T) {
	for old, now := range map[string]string{
		"bootstrap-defrag-threshold-megabytes=9":  "bootstrap-defrag-threshold-megabytes",
		"compact-hash-check-enabled=true":         "feature-gates=CompactHashCheck=true",
		"compact-hash-check-time=1m":              "compact-hash-check-time",
		"compaction-batch-limit=5":                "compaction-batch-limit",
		"compaction-sleep-interval=1s":            "compaction-sleep-interval",
		"corrupt-check-time=1m":                   "corrupt-check-time",
		"distributed-tracing-address=a:1":         "distributed-tracing-address",
		"distributed-tracing-instance-id=a":       "distributed-tracing-instance-id",
		"distributed-tracing-sampling-rate=1":     "distributed-tracing-sampling-rate",
		"distributed-tracing-service-name=a":      "distributed-tracing-service-name",
		"downgrade-check-time=1s":                 "downgrade-check-time",
		"enable-distributed-tracing=true":         "enable-distributed-tracing",
		"enable-lease-checkpoint=true":            "feature-gates=LeaseCheckpoint=true",
		"enable-lease-checkpoint-persist=true":    "feature-gates=LeaseCheckpointPersist=true",
		"initial-corrupt-check":                   "feature-gates=InitialCorruptCheck=true",
		"memory-mlock=true":                       "memory-mlock",
		"peer-skip-client-san-verification=true":  "peer-skip-client-san-verification",
		"snapshot-catchup-entries=9":              "snapshot-catchup-entries",
		"stop-grpc-service-on-defrag=true":        "feature-gates=StopGRPCServiceOnDefrag=true",
		"txn-mode-write-with-shared-buffer=false": "feature-gates=TxnModeWriteWithSharedBuffer=false",
		"warning-apply-duration=1s":               "warning-apply-duration",
		"warning-unary-request-duration=1s":       "warning-unary-request-duration",
		"watch-progress-notify-interval=1s":       "watch-progress-notify-interval",
	} {
		_, err := New(sample("experimental-" + old))
		if err == nil || !strings.HasSuffix(err.Error(), "no longer has this flag; use "+now) {
			t.Errorf("experimental-%s: %v", old, err)
		}
	}
}

func TestNewTouchesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	e, err := New(Config{Name: "a", Dir: dir, PKI: pki.Dir(dir)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
	if err := e.Ready(t.Context()); err == nil || err.Error() != "opening the store" || e.Name() != "etcd" {
		t.Errorf("%s: got %v", e.Name(), err)
	}
}

// logOf makes a data directory whose write-ahead log has entries of 1 KiB.
func logOf(t *testing.T, entries int) (dir, segment string) {
	t.Helper()
	was := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = 64 << 10
	t.Cleanup(func() { wal.SegmentSizeBytes = was })
	dir = t.TempDir()
	logDir := filepath.Join(dir, "member", "wal")
	if err := os.MkdirAll(filepath.Dir(logDir), 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := wal.Create(zap.NewNop(), logDir, []byte("metadata"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SaveSnapshot(&walpb.Snapshot{Index: new(uint64(0)), Term: new(uint64(0))}); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(entries) {
		term := uint64(1)
		e := &raftpb.Entry{Term: &term, Index: new(i + 1), Data: bytes.Repeat([]byte{'a' + byte(i)}, 1<<10)}
		if err := w.Save(&raftpb.HardState{Term: &term, Commit: &i}, []*raftpb.Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(logDir, "*.wal"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no log: %v", err)
	}
	return dir, found[0]
}

// edit changes a file in place.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestVerify(t *testing.T) {
	last := func(data []byte, letter byte) int { return bytes.LastIndexByte(data, letter) }
	for name, test := range map[string]struct {
		change  func([]byte) []byte
		damaged bool
	}{
		"whole": {func(d []byte) []byte { return d }, false},
		"a flipped bit in the middle": {func(d []byte) []byte {
			d[last(d, 'b')-100] ^= 1
			return d
		}, true},
		"the file zeroed":       {func(d []byte) []byte { return make([]byte, len(d)) }, true},
		"the file emptied":      {func([]byte) []byte { return nil }, true},
		"the first record gone": {func(d []byte) []byte { return append(bytes.Repeat([]byte{0xff}, 64), d[64:]...) }, true},
		"the last record torn by a power cut": {func(d []byte) []byte {
			clear(d[last(d, 'e')-600:])
			return d
		}, false},
		"the file cut off in the last record": {func(d []byte) []byte { return d[:last(d, 'e')-600] }, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, segment := logOf(t, 5)
			edit(t, segment, test.change)
			before := contents(t, dir)
			err := verify(dir)
			if (err != nil) != test.damaged {
				t.Fatalf("got %v", err)
			}
			if test.damaged && (!strings.Contains(err.Error(), filepath.Dir(segment)) || !strings.Contains(err.Error(), "restore a snapshot") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("the error does not say what to do: %v", err)
			}
			if contents(t, dir) != before {
				t.Error("verify changed something")
			}
		})
	}
}

func TestVerifyOfAnEmptyDirectory(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{filepath.Join(dir, "none"), dir} {
		if err := verify(d); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
}

// contents is all files under dir, as one text.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		b.WriteString(path + "\n")
		b.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// member is an Etcd with certificates, on ports of its own.
func member(t *testing.T, dir string, args ...string) *Etcd {
	t.Helper()
	quietly(t)
	certs := pki.Dir(filepath.Join(t.TempDir(), "pki"))
	if _, err := pki.Ensure(certs, pki.Node{Name: "node-a", ClusterDomain: "cluster.local"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	e, err := New(Config{Name: "node-a", Dir: dir, PKI: certs, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	any := []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
	e.config.ListenClientUrls, e.config.AdvertiseClientUrls = any, any
	e.config.ListenPeerUrls, e.config.AdvertisePeerUrls = any, any
	e.config.InitialCluster = e.config.InitialClusterFromName("node-a")
	return e
}

// running starts e and returns what stops it.
func running(t *testing.T, e *Etcd) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	for e.Ready(ctx) != nil {
		select {
		case err := <-ended:
			cancel()
			t.Fatalf("ended before it was ready: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("did not stop cleanly: %v", err)
		}
	}
}

func put(t *testing.T, e *Etcd, key, value string) {
	t.Helper()
	if _, err := e.server.Load().Server.Put(t.Context(), &etcdserverpb.PutRequest{Key: []byte(key), Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

func value(t *testing.T, e *Etcd, key string) string {
	t.Helper()
	res, err := e.server.Load().Server.Range(t.Context(), &etcdserverpb.RangeRequest{Key: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Kvs) == 0 {
		return ""
	}
	return string(res.Kvs[0].Value)
}

func TestMemberKeepsWhatItAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	e := member(t, dir)
	stop := running(t, e)
	put(t, e, "key", "value")
	stop()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data directory: %v, %v", info.Mode(), err)
	}
	again := member(t, dir)
	defer running(t, again)()
	if got := value(t, again, "key"); got != "value" {
		t.Errorf("got %q after a restart", got)
	}
}

func TestMemberRefusesClientsWithoutCertificate(t *testing.T) {
	e := member(t, filepath.Join(t.TempDir(), "etcd"))
	defer running(t, e)()
	addr := e.server.Load().Clients[0].Addr().String()
	certs := pki.Dir(strings.TrimSuffix(e.config.ClientTLSInfo.TrustedCAFile, "/etcd/ca.crt"))
	try := func(leaf string) error {
		cfg := &tls.Config{InsecureSkipVerify: true}
		if leaf != "" {
			pair, err := tls.LoadX509KeyPair(certs.Cert(leaf), certs.Key(leaf))
			if err != nil {
				t.Fatal(err)
			}
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, cfg)
		if err != nil {
			return err
		}
		defer conn.Close()
		// A refusal arrives with the first read.
		if _, err := conn.Write([]byte("GET /health HTTP/1.0\r\n\r\n")); err != nil {
			return err
		}
		_, err = io.ReadAll(conn)
		return err
	}
	if err := try(pki.APIServerEtcdClient); err != nil {
		t.Errorf("the API server is refused: %v", err)
	}
	for _, leaf := range []string{"", pki.Admin, pki.FrontProxyClient} {
		if err := try(leaf); err == nil {
			t.Errorf("a client that shows %q is let in", leaf)
		}
	}
}

func TestMemberDoesNotOpenADamagedLog(t *testing.T) {
	dir, segment := logOf(t, 5)
	edit(t, segment, func(d []byte) []byte {
		d[bytes.LastIndexByte(d, 'b')-100] ^= 1
		return d
	})
	before := contents(t, dir)
	err := member(t, dir).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("got %v", err)
	}
	if contents(t, dir) != before {
		t.Error("something was changed")
	}
}

// etcd opens its database in a goroutine of its own, where it panics over one
// that is damaged (3.7): nobody could recover that and say what to do.
func TestVerifyFindsADamagedDatabase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	running(t, member(t, dir))()
	if err := verify(dir); err != nil {
		t.Fatalf("a clean stop leaves damage: %v", err)
	}
	db := filepath.Join(dir, "member", "snap", "db")
	edit(t, db, func(d []byte) []byte { return bytes.Repeat([]byte{0xff}, len(d)) })
	err := verify(dir)
	if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "restore a snapshot") {
		t.Errorf("got %v", err)
	}
}

func TestFullStoreIsReportedAndRecovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	e := member(t, dir)
	e.config.QuotaBackendBytes = 256 << 10
	stop := running(t, e)
	var err error
	for i := 0; i < 1000 && err == nil; i++ {
		_, err = e.server.Load().Server.Put(t.Context(), &etcdserverpb.PutRequest{Key: []byte{byte(i)}, Value: make([]byte, 16<<10)})
	}
	if err == nil {
		t.Fatal("the store takes more than its quota")
	}
	if _, err := e.server.Load().Server.Alarm(t.Context(), &etcdserverpb.AlarmRequest{Action: etcdserverpb.AlarmRequest_ACTIVATE, Alarm: etcdserverpb.AlarmType_NOSPACE}); err != nil {
		t.Fatal(err)
	}
	if err := e.Ready(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "alarm NOSPACE: ") || !strings.Contains(err.Error(), "quota-backend-bytes") {
		t.Errorf("got %v", err)
	}
	stop()

	// The alarm outlasts the restart; with more room it is lifted.
	larger := member(t, dir)
	defer running(t, larger)()
	put(t, larger, "key", "value")
}

// Wherever in what was acknowledged a log is damaged, it is found, also where
// etcd would hold a broken length for a write that was cut short.
func TestVerifyFindsDamageAnywhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	e := member(t, dir)
	stop := running(t, e)
	for i := range 50 {
		_, err := e.server.Load().Server.Put(t.Context(), &etcdserverpb.PutRequest{Key: []byte{byte(i)}, Value: make([]byte, 100+i)})
		if err != nil {
			t.Fatal(err)
		}
	}
	stop()
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("got %q, %v", logs, err)
	}
	good, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	written := len(bytes.TrimRight(good, "\x00"))
	const width, apart = 16, 37
	for at := 0; at < written-300; at += apart {
		bad := bytes.Clone(good[at : at+width])
		for i := range bad {
			bad[i] ^= 0xff
		}
		overwrite(t, logs[0], at, bad)
		if err := verify(dir); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("damage at byte %d of %d: got %v", at, written, err)
		}
		overwrite(t, logs[0], at, good[at:at+width])
	}
	if err := verify(dir); err != nil {
		t.Errorf("without damage: got %v", err)
	}
}

// overwrite replaces a few bytes of a file that is large.
func overwrite(t *testing.T, path string, at int, content []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(content, int64(at)); err != nil {
		t.Fatal(err)
	}
}

// A store that was put back goes on behind what its clients have seen, who learn
// that their view of it is too old.
func TestAdvance(t *testing.T) {
	quietly(t)
	dir, kept := filepath.Join(t.TempDir(), "etcd"), filepath.Join(t.TempDir(), "kept")
	e := member(t, dir)
	stop := running(t, e)
	put(t, e, "key", "before")
	put(t, e, "key", "kept")
	stop()
	if err := os.CopyFS(kept, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	e = member(t, dir)
	stop = running(t, e)
	for range 5 {
		put(t, e, "key", "dropped")
	}
	seen := e.server.Load().Server.KV().Rev()
	stop()

	for range 2 { // the second time it is done already
		if err := Advance(kept, dir); err != nil {
			t.Fatal(err)
		}
	}
	e = member(t, kept)
	stop = running(t, e)
	if got := value(t, e, "key"); got != "kept" {
		t.Errorf("the value is %q", got)
	}
	kv := e.server.Load().Server.KV()
	if now := kv.Rev(); now != seen+ahead {
		t.Errorf("it goes on at revision %d; clients have seen %d", now, seen)
	}
	if first := kv.FirstRev(); first <= seen {
		t.Errorf("revision %d counts as known still; clients have seen %d", first, seen)
	}
	put(t, e, "key", "after")
	if got := value(t, e, "key"); got != "after" {
		t.Errorf("the value is %q", got)
	}
	stop()
	if err := Advance(filepath.Join(t.TempDir(), "none"), dir); err != nil {
		t.Errorf("a store that was never used: %v", err)
	}
	if err := Advance(kept, filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("in the place of nothing: %v", err)
	}
}

// Who wants them told gets metrics at the node's addresses and on loopback, and nothing else.
func TestMetricsAreToldWhereItIsSaid(t *testing.T) {
	c := sample()
	c.Metrics = []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")}
	cfg, err := configuration(c)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range cfg.ListenMetricsUrls {
		got = append(got, u.String())
	}
	if want := "http://127.0.0.1:2381 http://192.0.2.10:2381 http://[2001:db8::10]:2381"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
