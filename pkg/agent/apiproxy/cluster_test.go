package apiproxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/pkg/kube"
)

// cluster is a CA and API servers that serve no more than their health, their
// name and the list of servers.
type cluster struct {
	dir     string
	ca      tls.Certificate
	roots   *x509.CertPool
	servers map[string]*api

	mu      sync.Mutex
	version int
	slices  []discovery.EndpointSlice
	changed chan struct{} // closed at the next change
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir(), roots: x509.NewCertPool(), servers: map[string]*api{}, changed: make(chan struct{})}
	c.ca = certificate(t, nil)
	c.roots.AddCert(c.ca.Leaf)
	file := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ca.Leaf.Raw})
	if err := os.WriteFile(c.file("ca.crt"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) file(name string) string { return filepath.Join(c.dir, name) }

// certificate is one for 127.0.0.1, signed by ca, or a CA.
func certificate(t *testing.T, ca *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	by, with := of, any(key)
	if ca == nil {
		of.IsCA, of.BasicConstraintsValid, of.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		of.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		by, with = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, of, by, &key.PublicKey, with)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// api is one API server.
type api struct {
	name    string
	address string
	cluster *cluster
	server  *httptest.Server
	gone    chan struct{}
	once    sync.Once

	mu     sync.Mutex
	status int
	held   chan struct{} // /readyz does not answer until it is closed
}

func (c *cluster) server(t *testing.T, name string) *api {
	t.Helper()
	a := &api{name: name, cluster: c, gone: make(chan struct{}), status: http.StatusOK}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.HandleFunc("GET /name", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
	mux.HandleFunc("GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices", a.endpoints)
	a.server = httptest.NewUnstartedServer(mux)
	a.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t, &c.ca)}}
	a.server.EnableHTTP2 = true
	a.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	a.server.StartTLS()
	a.address = a.server.Listener.Addr().String()
	c.servers[name] = a
	t.Cleanup(a.stop)
	return a
}

// at is the server of an address.
func (c *cluster) at(address string) *api {
	for _, a := range c.servers {
		if a.address == address {
			return a
		}
	}
	return nil
}

// stop ends a server and its connections, as a kill does.
func (a *api) stop() {
	a.once.Do(func() {
		close(a.gone)
		a.server.Listener.Close()
		a.server.CloseClientConnections()
		a.server.Close()
	})
}

func (a *api) hang() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = make(chan struct{})
}

func (a *api) resume() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.held)
}

func (a *api) answer(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status = status
}

func (a *api) readyz(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	status, held := a.status, a.held
	a.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-a.gone:
		case <-r.Context().Done():
		}
	}
	w.WriteHeader(status)
}

// slice is the slice of Service kubernetes with these servers.
func slice(addresses ...string) discovery.EndpointSlice {
	s := discovery.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default"},
		AddressType: discovery.AddressTypeIPv4,
	}
	for _, address := range addresses {
		host, text, _ := net.SplitHostPort(address)
		number, _ := strconv.Atoi(text)
		name, port := "https", int32(number)
		s.Name = "kubernetes-" + text
		s.Ports = []discovery.EndpointPort{{Name: &name, Port: &port}}
		s.Endpoints = append(s.Endpoints, discovery.Endpoint{Addresses: []string{host}})
	}
	return s
}

// list makes these the servers of the cluster. They have different ports, so each has its
// own slice.
func (c *cluster) list(addresses ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	c.slices = nil
	for _, address := range addresses {
		c.slices = append(c.slices, slice(address))
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *cluster) now() (discovery.EndpointSliceList, chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return discovery.EndpointSliceList{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"},
		ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(c.version)},
		Items:    c.slices,
	}, c.changed
}

// endpoints lists and watches. A watch begins only with the latest version; any other is
// too old.
func (a *api) endpoints(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	list, changed := a.cluster.now()
	q := r.URL.Query()
	if q.Get("labelSelector") != "kubernetes.io/service-name=kubernetes" {
		http.Error(w, "the node may not see others", http.StatusForbidden)
		return
	}
	if q.Get("watch") == "" {
		_ = json.NewEncoder(w).Encode(list)
		return
	}
	if q.Get("resourceVersion") != list.ResourceVersion {
		tell(w, "ERROR", metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Code: http.StatusGone, Reason: metav1.StatusReasonExpired})
		return
	}
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case <-changed:
		case <-a.gone:
			return
		case <-r.Context().Done():
			return
		}
		was := list
		list, changed = a.cluster.now()
		difference(w, was.Items, list.Items)
	}
}

func difference(w http.ResponseWriter, was, is []discovery.EndpointSlice) {
	left := map[string]discovery.EndpointSlice{}
	for _, s := range was {
		left[s.Name] = s
	}
	for _, s := range is {
		if _, known := left[s.Name]; !known {
			tell(w, "ADDED", s)
		}
		delete(left, s.Name)
	}
	for _, s := range left {
		tell(w, "DELETED", s)
	}
}

func tell(w http.ResponseWriter, event string, object any) {
	_ = json.NewEncoder(w).Encode(map[string]any{"type": event, "object": object})
	_ = http.NewResponseController(w).Flush()
}

// tested is a balancer of a test.
type tested struct {
	*Balancer
	end func() // waits
}

// balancer completes the configuration.
func (c *cluster) balancer(t *testing.T, config Config) *tested {
	t.Helper()
	if config.Listen == "" {
		config.Listen = "127.0.0.1:0"
	}
	if config.File == "" {
		config.File = filepath.Join(t.TempDir(), "servers.json")
	}
	config.CAFile, config.Client = c.file("ca.crt"), kube.NewClient(filepath.Join(t.TempDir(), "kubeconfig"), "test")
	b, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return &tested{Balancer: b}
}

// prepare is balancer without patience.
func (c *cluster) prepare(t *testing.T, config Config) *tested {
	t.Helper()
	b := c.balancer(t, config)
	b.timing = timing{
		every: 20 * time.Millisecond, search: 10 * time.Millisecond, probe: 500 * time.Millisecond,
		dial: time.Second, retry: 10 * time.Millisecond,
	}
	return b
}

// run runs it until the test ends, or end.
func run(t *testing.T, b *tested) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	var once sync.Once
	b.end = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(b.end)
	eventually(t, "it listens", func() bool { return b.address() != "" })
}

func (c *cluster) start(t *testing.T, config Config) *tested {
	t.Helper()
	b := c.prepare(t, config)
	run(t, b)
	return b
}

// remembered is a configuration with these servers in its file, and a dead seed.
func (c *cluster) remembered(t *testing.T, servers ...*api) Config {
	t.Helper()
	var m memory
	for _, a := range servers {
		m.Servers = append(m.Servers, a.address)
	}
	content, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Seed: []string{vacant(t)}, File: filepath.Join(t.TempDir(), "servers.json")}
	if err := os.WriteFile(config.File, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// join gives the node its identity.
func (c *cluster) join(t *testing.T, b *tested) {
	t.Helper()
	eventually(t, "it listens", func() bool { return b.address() != "" })
	content := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}],
clusters: [{name: a, cluster: {server: "https://%s", certificate-authority: "%s"}}], users: [{name: a, user: {token: a}}]}`,
		b.address(), c.file("ca.crt"))
	if err := os.WriteFile(b.config.Client.Kubeconfig(), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (b *tested) address() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listening == nil {
		return ""
	}
	return b.listening.String()
}

// ask makes one request on a new connection, and returns who answered.
func (c *cluster) ask(t *testing.T, b *tested) string {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: c.roots}, DisableKeepAlives: true,
	}}
	res, err := client.Get("https://" + b.address() + "/name")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	name, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(name)
}

// in is the servers in a state.
func (c *cluster) in(b *tested, state State) (some []Server) {
	for _, s := range b.Servers() {
		if s.State == state {
			some = append(some, s)
		}
	}
	return some
}

func inUse(b *tested) Server {
	for _, s := range b.Servers() {
		if s.InUse {
			return s
		}
	}
	return Server{}
}

func find(t *testing.T, b *tested, address string) Server {
	t.Helper()
	for _, s := range b.Servers() {
		if s.Address == address {
			return s
		}
	}
	return Server{}
}

func connections(b *tested) (n int) {
	for _, s := range b.Servers() {
		n += s.Connections
	}
	return n
}

// dial connects as a client.
func dial(t *testing.T, b *tested) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", b.address())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// silent is the address of a server that never accepts: the kernel does.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// vacant is an address where nobody listens. The port is bound, so that
// nobody else is given it during the test.
func vacant(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().String()
}

// eventually waits for what is to become true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
