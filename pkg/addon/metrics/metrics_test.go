package metrics

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	listers "k8s.io/client-go/listers/core/v1"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/metrics-server/pkg/scraper/client/resource"
	"sigs.k8s.io/metrics-server/pkg/storage"

	"lite.io/lite/pkg/kube"
)

// stored is a storage with two readings of node n and pod ns/p.
func stored() storage.Storage {
	s := storage.NewStorage(resolution)
	start := time.Now().Add(-time.Hour)
	for i := range 2 {
		p := storage.MetricsPoint{
			StartTime: start, Timestamp: start.Add(time.Duration(20+10*i) * time.Second),
			CumulativeCPUUsed: uint64(i) * 5e9, MemoryUsage: 1 << 20,
		}
		s.Store(&storage.MetricsBatch{
			Nodes: map[string]storage.MetricsPoint{"n": p},
			Pods:  map[types.NamespacedName]storage.PodMetricsPoint{{Namespace: "ns", Name: "p"}: {Containers: map[string]storage.MetricsPoint{"c": p}}},
		})
	}
	return s
}

func TestAPI(t *testing.T) {
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	for _, name := range []string{"n", "new"} {
		if err := nodes.Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	objects := metadatafake.NewSimpleMetadataClient(scheme, &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", Labels: map[string]string{"app": "x"}},
	})
	h, err := handler(stored(), pods{t.Context(), objects, ""}, listers.NewNodeLister(nodes))
	if err != nil {
		t.Fatal(err)
	}
	const base = "/apis/metrics.k8s.io/v1beta1"
	for _, test := range []struct {
		path   string
		status int
		has    string
		hasNot string
	}{
		{base, 200, `"name":"nodes"`, ""},
		{base + "/nodes", 200, `"cpu":"500m"`, `"new"`},
		{base + "/nodes/n", 200, `"memory":"1Mi"`, ""},
		{base + "/nodes/new", 404, "not found", ""},
		{base + "/nodes/nobody", 404, "not found", ""},
		{base + "/pods", 200, `"name":"p"`, ""},
		{base + "/namespaces/ns/pods?labelSelector=app%3Dx", 200, `"app":"x"`, ""},
		{base + "/namespaces/ns/pods?labelSelector=app%3Dy", 200, `"items":[]`, ""},
		{base + "/namespaces/other/pods", 200, `"items":[]`, ""},
		{base + "/namespaces/ns/pods/p", 200, `"window":"10s"`, ""},
		{base + "/namespaces/ns/pods/nobody", 404, "not found", ""},
		{"/openapi/v2", 200, `"swagger":"2.0"`, ""},
		{"/openapi/v3", 200, "apis/metrics.k8s.io/v1beta1", ""},
		{"/metrics", 404, "", ""},
		{"/debug/pprof/", 404, "", ""},
	} {
		t.Run(test.path, func(t *testing.T) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, test.path, nil))
			body := w.Body.String()
			if w.Code != test.status || !strings.Contains(body, test.has) || test.hasNot != "" && strings.Contains(body, test.hasNot) {
				t.Errorf("%d, want %d with %q and not %q: %s", w.Code, test.status, test.has, test.hasNot, body)
			}
		})
	}
}

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) sign(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOnlyTheAggregationLayerIsAnswered(t *testing.T) {
	front, cluster := newAuthority(t, "front-proxy-ca"), newAuthority(t, "kubernetes-ca")
	own := cluster.sign(t, "metrics-server.kube-system.svc")
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	m := New(Config{
		CertFile: writePEM(t, "CERTIFICATE", own.Certificate[0]), KeyFile: writePEM(t, "PRIVATE KEY", key),
		ClientCAFile: writePEM(t, "CERTIFICATE", front.cert.Raw), ClientName: "front-proxy-client",
	})
	cfg, err := m.tls()
	if err != nil {
		t.Fatal(err)
	}
	show := func(c tls.Certificate) *tls.Certificate { return &c }
	for _, test := range []struct {
		name  string
		shows *tls.Certificate
		want  string // part of the error; "" = it is answered
	}{
		{"the aggregation layer", show(front.sign(t, "front-proxy-client")), ""},
		{"another name", show(front.sign(t, "somebody")), `the client is "somebody"`},
		{"another authority", show(cluster.sign(t, "front-proxy-client")), "unknown authority"},
		{"nobody", &tls.Certificate{}, "didn't provide a certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			here, there := net.Pipe()
			defer here.Close()
			defer there.Close()
			go func() {
				c := tls.Client(there, &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return test.shows, nil }})
				_ = c.Handshake()
				_, _ = io.Copy(io.Discard, c)
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := tls.Server(here, cfg).HandshakeContext(ctx)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestATakenPortIsWaitedFor(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := New(Config{})
	got := make(chan net.Listener)
	go func() { got <- m.listen(t.Context(), other.Addr().String()) }()
	for err == nil || !strings.Contains(err.Error(), "address already in use") {
		err = m.Ready(t.Context())
		time.Sleep(time.Millisecond)
	}
	other.Close()
	(<-got).Close()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if l := m.listen(ctx, taken.Addr().String()); l != nil {
		t.Error("listens after it was told to stop")
	}
}

// clockwork is a scraper that notes when it is asked.
type clockwork struct {
	began time.Time
	takes time.Duration
	at    []time.Duration
}

func (c *clockwork) Scrape(context.Context) *storage.MetricsBatch {
	c.at = append(c.at, time.Since(c.began))
	time.Sleep(c.takes)
	return &storage.MetricsBatch{}
}

func TestNewNodesAreAskedOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clockwork{began: time.Now()}
		r := &readings{scraper: c, store: storage.NewStorage(resolution), joined: make(chan struct{}, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { r.take(ctx, new(atomic.Bool)); close(done) }()
		r.joined <- struct{}{}
		time.Sleep(119 * time.Second)
		cancel()
		<-done
		var want []time.Duration
		for at := time.Duration(0); at <= newFor; at += resolutionOfNew {
			want = append(want, at)
		}
		for at := newFor + resolution; at < 119*time.Second; at += resolution {
			want = append(want, at)
		}
		if !slices.Equal(c.at, want) {
			t.Errorf("asked at %v, want %v", c.at, want)
		}
	})
}

func TestAKubeletThatHangsDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clockwork{began: time.Now(), takes: scrapeTimeout}
		r := &readings{scraper: c, store: storage.NewStorage(resolution)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { r.take(ctx, new(atomic.Bool)); close(done) }()
		time.Sleep(59 * time.Second)
		cancel()
		<-done
		if want := []time.Duration{resolution, 2 * resolution, 3 * resolution}; !slices.Equal(c.at, want) {
			t.Errorf("asked at %v, want %v", c.at, want)
		}
	})
}

// The watch of Nodes keeps what metrics-server asks of one.
func TestNodeHasWhatIsAskedFor(t *testing.T) {
	n := kube.TrimNode(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "n", Labels: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
			Annotations: map[string]string{resource.AnnotationResourceMetricsPath: "/path", "other": "x"},
		},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
			Images:     []corev1.ContainerImage{{Names: []string{"image"}}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeDiskPressure}, {Type: corev1.NodeReady, Status: corev1.ConditionTrue, Message: "text"}},
		},
	})
	if n.Name != "n" || n.Labels["a"] != "b" || len(n.Annotations) != 1 || len(n.Status.Addresses) != 1 {
		t.Errorf("%+v: lacks something", n)
	}
	if len(n.ManagedFields) > 0 || len(n.Status.Images) > 0 || len(n.Status.Conditions) != 1 || n.Status.Conditions[0].Message != "" {
		t.Errorf("%+v: keeps more than is needed", n)
	}
}
