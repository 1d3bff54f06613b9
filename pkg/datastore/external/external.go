// Package external watches an etcd that somebody else runs. The API server reaches it by itself.
package external

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	utilversion "k8s.io/apimachinery/pkg/util/version"

	"lite.io/lite/pkg/datastore/shared"
)

const (
	// every is how often it is checked, which nothing else does that lite hears of.
	every = 5 * time.Second
	// patience is how long an answer may take.
	patience = 4 * time.Second
	// health is the key that the API server checks, too. It need not exist.
	health = "/registry/health"
)

// least is the oldest etcd that Kubernetes 1.37 knows how to ask for what it has not seen.
var least = utilversion.MustParseGeneric("3.5.13")

// Config is what has to be known of an etcd.
type Config struct {
	URLs                      []string
	CAFile, CertFile, KeyFile string // "" = none
	Owner                     func() (string, error)
}

// Etcd is the component.
type Etcd struct {
	config  Config
	health  *shared.Health
	waiting atomic.Pointer[error] // why it has not been reached yet; nil once it has been
}

// New makes the component; nothing is touched before Run.
func New(c Config) *Etcd {
	e := &Etcd{config: c, health: shared.NewHealth()}
	err := errors.New("connecting to " + e.String())
	e.waiting.Store(&err)
	return e
}

func (e *Etcd) String() string { return "etcd at " + strings.Join(e.config.URLs, ",") }

// Health is how the store is doing.
func (e *Etcd) Health() *shared.Health { return e.health }

// Name implements component.Component.
func (*Etcd) Name() string { return "datastore" }

// Note implements component.Noter.
func (e *Etcd) Note() string { return e.String() }

// Ready implements component.Component.
func (e *Etcd) Ready(context.Context) error {
	if err := e.waiting.Load(); err != nil {
		return *err
	}
	if err := e.health.Err(); err != nil {
		return e.explain(err)
	}
	return nil
}

// Run implements component.Component.
func (e *Etcd) Run(ctx context.Context) error {
	client, err := e.connect()
	if err != nil {
		return e.explain(err)
	}
	defer client.Close()
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, every) {
		err := e.begin(ctx, client)
		if err == nil || ctx.Err() != nil {
			break
		}
		err = e.explain(err)
		var p *shared.Problem
		if errors.As(err, &p) && p.Lasting {
			return err
		}
		e.waiting.Store(&err)
		if !sleep(ctx, wait) {
			return nil
		}
	}
	e.waiting.Store(nil)
	for sleep(ctx, every) {
		err := e.look(ctx, client)
		if ctx.Err() == nil {
			e.health.Saw(false, err)
			e.health.Saw(true, e.alarm(ctx, client))
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (e *Etcd) connect() (*clientv3.Client, error) {
	c, err := e.tls()
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{
		Endpoints: e.config.URLs, TLS: c, DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: 10 * time.Second, Logger: zap.NewNop(),
	})
}

func (e *Etcd) tls() (*tls.Config, error) {
	if !strings.HasPrefix(e.config.URLs[0], "https://") {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.config.CAFile != "" {
		pem, err := os.ReadFile(e.config.CAFile)
		if err != nil {
			return nil, shared.Lasting(err, "correct datastore-cafile")
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, shared.Lasting(fmt.Errorf("%s has no certificate", e.config.CAFile), "correct datastore-cafile")
		}
	}
	if e.config.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(e.config.CertFile, e.config.KeyFile); err != nil {
			return nil, shared.Lasting(err, "correct datastore-certfile and datastore-keyfile")
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(e.config.CertFile, e.config.KeyFile)
			return &pair, err
		}
	}
	return c, nil
}

// begin finds out whether it can be used.
func (e *Etcd) begin(ctx context.Context, client *clientv3.Client) error {
	if err := e.look(ctx, client); err != nil {
		return e.diagnose(ctx, err)
	}
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	status, err := client.Status(asked, e.config.URLs[0])
	if err == nil {
		if v, err := utilversion.ParseGeneric(status.Version); err == nil && v.LessThan(least) {
			return shared.Lasting(fmt.Errorf("etcd %s is too old", status.Version), fmt.Sprintf("upgrade it to %s or later", least))
		}
	}
	id, err := e.config.Owner()
	if err != nil {
		return err
	}
	return shared.Own(asked, keys{client}, id)
}

// look reads one key, which takes a quorum.
func (e *Etcd) look(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := client.Get(ctx, health, clientv3.WithKeysOnly())
	return err
}

// alarm reports that it is full, when it still answers.
func (e *Etcd) alarm(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	alarms, err := client.AlarmList(ctx)
	if err != nil {
		return nil // look tells
	}
	for _, a := range alarms.Alarms {
		if a.Alarm != etcdserverpb.AlarmType_NONE {
			return fmt.Errorf("alarm %s of member %x", a.Alarm, a.MemberID)
		}
	}
	return nil
}

// diagnose is why the client, which only tells that time is up, does not connect: what TLS says.
func (e *Etcd) diagnose(ctx context.Context, err error) error {
	c, _ := e.tls()
	for _, url := range e.config.URLs {
		address, secure := strings.CutPrefix(url, "https://")
		if !secure {
			return err
		}
		if !strings.Contains(address[strings.LastIndexByte(address, ']')+1:], ":") {
			address += ":443"
		}
		d := tls.Dialer{Config: c}
		ctx, cancel := context.WithTimeout(ctx, patience)
		conn, dialErr := d.DialContext(ctx, "tcp", address)
		if dialErr == nil {
			// With TLS 1.3 the server judges our certificate after the handshake.
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
			_, dialErr = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		cancel()
		if remedy := shared.TLSRemedy(dialErr); remedy != "" {
			return shared.Lasting(dialErr, remedy)
		}
	}
	return err
}

// explain makes an error one that names the store and what to do.
func (e *Etcd) explain(err error) error {
	var p *shared.Problem
	if errors.As(err, &p) {
		if p.Store == "" {
			p.Store = e.String()
		}
		return err
	}
	p = &shared.Problem{Store: e.String(), Err: err}
	switch {
	case errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrPermissionDenied):
		p.Remedy, p.Lasting = "grant the user of datastore-certfile's common name the right to read and write all keys", true
	case errors.Is(err, rpctypes.ErrNoSpace), strings.Contains(err.Error(), "alarm NOSPACE"):
		p.Remedy = "compact and defragment etcd, raise its quota-backend-bytes, and run `etcdctl alarm disarm`"
	case strings.Contains(err.Error(), "alarm CORRUPT"):
		p.Remedy = "replace that member of etcd by a new one"
	case errors.Is(err, context.DeadlineExceeded):
		p.Err = fmt.Errorf("no answer within %s", patience)
	}
	return p
}

type keys struct{ client *clientv3.Client }

// Get implements shared.Keys.
func (k keys) Get(ctx context.Context, key string) ([]byte, error) {
	r, err := k.client.Get(ctx, key)
	if err != nil || len(r.Kvs) == 0 {
		return nil, err
	}
	return r.Kvs[0].Value, nil
}

// Create implements shared.Keys.
func (k keys) Create(ctx context.Context, key string, value []byte) error {
	_, err := k.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).Then(clientv3.OpPut(key, string(value))).Commit()
	return err
}

// Used implements shared.Keys.
func (k keys) Used(ctx context.Context) (bool, error) {
	r, err := k.client.Get(ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	return err == nil && r.Count > 0, err
}
