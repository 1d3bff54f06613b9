package gate

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/layout"
)

// certificate is one as the cluster signs it.
func certificate(t *testing.T, name string, organizations ...string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: organizations}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func keyOf(cert *x509.Certificate) string { return roll.Key(cert.RawSubjectPublicKeyInfo) }

// door is a Gate behind which everything is answered, and a fake API whose Secrets it
// knows.
type door struct {
	*Gate
	client  *fake.Clientset
	handler http.Handler
	inside  int
}

func newDoor(t *testing.T, objects ...*corev1.Secret) *door {
	t.Helper()
	d := &door{Gate: New(), client: fake.NewClientset()}
	for _, id := range []string{"abcdef", "zzzzzz"} {
		objects = append(objects, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-" + id}})
	}
	for _, o := range objects {
		if _, err := d.client.CoreV1().Secrets(o.Namespace).Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	factory := informers.NewSharedInformerFactory(d.client, 0)
	if err := d.Follow(factory.Core().V1().Secrets().Informer()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	d.handler = d.Before(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.inside++
		if r.URL.Query().Has("watch") {
			<-r.Context().Done()
		}
		w.WriteHeader(http.StatusOK)
	}))
	synctest.Wait()
	return d
}

// ask makes a request by a connection with a certificate; nil is one without.
func (d *door) ask(cert *x509.Certificate, url string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, url, nil)
	if r.TLS = (&tls.ConnectionState{}); cert != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{cert}
	}
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	return w
}

func (d *door) refuse(t *testing.T, node string, why roll.Why, spared ...string) {
	t.Helper()
	if err := roll.Refuse(t.Context(), d.client, node, why, time.Now(), spared...); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestWhoIsLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		mine, fresh := certificate(t, "system:node:n1", "system:nodes"), certificate(t, "system:node:n1", "system:nodes")
		others := []*x509.Certificate{
			certificate(t, "system:node:n2", "system:nodes"), certificate(t, "system:node:n1.example.com", "system:nodes"),
			certificate(t, "n1", "system:nodes"), certificate(t, "kubernetes-admin", "system:masters"), nil,
		}
		letIn := func(cert *x509.Certificate, want bool) {
			t.Helper()
			if got := d.ask(cert, "/api").Code; (got == http.StatusOK) != want {
				t.Errorf("%v: status %d", cert, got)
			}
		}
		letIn(mine, true)
		d.refuse(t, "n1", roll.Revoked)
		letIn(mine, false)
		letIn(fresh, false)
		for _, cert := range others {
			letIn(cert, true)
		}
		// It joins anew, with another key.
		refusal, err := roll.RefusalOf(t.Context(), d.client, "n1")
		if err != nil {
			t.Fatal(err)
		}
		if err := roll.Admit(t.Context(), d.client, "n1", keyOf(fresh), refusal); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		letIn(mine, false)
		letIn(fresh, true)
		d.refuse(t, "n1", roll.Deleted)
		letIn(fresh, false)
	})
}

// What a node is told has to be told from what an API server says that does not know
// it yet, and from a token that has ended.
func TestARefusedNodeIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		d.refuse(t, "n1", roll.Deleted)
		w := d.ask(certificate(t, "system:node:n1", "system:nodes"), "/api")
		var status metav1.Status
		if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil {
			t.Fatal(err)
		}
		err := apierrors.FromObject(&status)
		if !apierrors.IsUnauthorized(err) || !apierrors.HasStatusCause(err, roll.Refused) || !strings.Contains(err.Error(), "node n1 was deleted at") {
			t.Errorf("got %d, %v", w.Code, err)
		}
	})
}

// A watch goes on for as long as who watches wants, if nobody ends it.
func TestARefusedNodeWatchesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		certs := []*x509.Certificate{
			certificate(t, "system:node:n1", "system:nodes"), certificate(t, "system:node:n1", "system:nodes"), certificate(t, "system:node:n2", "system:nodes"),
		}
		ended := make([]bool, len(certs))
		for i, cert := range certs {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			r := httptest.NewRequest(http.MethodGet, "/api/v1/pods?watch", nil).WithContext(ctx)
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
			go func() { d.handler.ServeHTTP(httptest.NewRecorder(), r); ended[i] = true }()
		}
		synctest.Wait()
		d.refuse(t, "n1", roll.Revoked, keyOf(certs[1]))
		if want := []bool{true, false, false}; fmt.Sprint(ended) != fmt.Sprint(want) {
			t.Errorf("ended: %v, want %v", ended, want)
		}
		if len(d.visits) != 2 {
			t.Errorf("%d nodes are remembered", len(d.visits))
		}
	})
}

// Whoever had a token went on reading requests for certificates after it was revoked, for as
// long as he had said that he would watch.
func TestATokenThatHasEndedWatchesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		ended := map[string]bool{}
		watch := func(id string) int {
			ctx, stop := context.WithCancel(t.Context())
			t.Cleanup(stop)
			r := httptest.NewRequest(http.MethodGet, "/?watch", nil).WithContext(request.WithUser(ctx, &user.DefaultInfo{Name: layout.TokenUser + id}))
			w := httptest.NewRecorder()
			go func() { d.handler.ServeHTTP(w, r); ended[id] = true }()
			synctest.Wait()
			return w.Code
		}
		watch("abcdef")
		watch("zzzzzz")
		if err := d.client.CoreV1().Secrets("kube-system").Delete(t.Context(), "bootstrap-token-abcdef", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if want := "map[abcdef:true]"; fmt.Sprint(ended) != want {
			t.Errorf("ended: %v, want %s", ended, want)
		}
		// Whoever was recognized a moment before, or is from memory.
		if code := watch("abcdef"); code != http.StatusUnauthorized {
			t.Errorf("the token is answered with %d", code)
		}
		if len(d.visits) != 1 {
			t.Errorf("%d are remembered", len(d.visits))
		}
	})
}

// Nothing that is refused may pass because it is not known yet, or cannot be read.
func TestWhatIsNotKnownIsNotLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &door{Gate: New()}
		d.handler = d.Before(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let in") }))
		w := d.ask(certificate(t, "system:node:n1", "system:nodes"), "/api")
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("got %d, %v", w.Code, w.Header())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		secret := func(namespace string) *corev1.Secret {
			return &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "lite-refused-0"}, Type: roll.TypeRefused,
				Data: map[string][]byte{"n1": []byte("{damaged")},
			}
		}
		n1, n2 := certificate(t, "system:node:n1", "system:nodes"), certificate(t, "system:node:n2", "system:nodes")
		d := newDoor(t, secret("kube-system"))
		if got := []int{d.ask(n1, "/api").Code, d.ask(n2, "/api").Code}; got[0] != http.StatusUnauthorized || got[1] != http.StatusOK {
			t.Errorf("got %v", got)
		}
		// Who may write Secrets in a namespace of his own locks nobody out.
		if d := newDoor(t, secret("mine")); d.ask(n1, "/api").Code != http.StatusOK {
			t.Error("a Secret of another namespace counts")
		}
	})
}

func TestRecognize(t *testing.T) {
	node, admin := certificate(t, "system:node:n1", "system:nodes"), certificate(t, "kubernetes-admin", "system:masters")
	kept := &user.DefaultInfo{Name: "system:bootstrap:abcdef"}
	for name, test := range map[string]struct {
		user         user.Info
		cert         *x509.Certificate
		from         string
		address, key string
	}{
		"a token":                  {kept, nil, "192.0.2.1:1234", "192.0.2.1", ""},
		"a token, IPv6":            {kept, nil, "[2001:db8:1:2:3::4]:1234", "2001:db8:1:2::/64", ""},
		"a token, mapped":          {kept, nil, "[::ffff:192.0.2.1]:1234", "192.0.2.1", ""},
		"a token, with a zone":     {kept, nil, "[fe80::1%eth0]:1234", "fe80::/64", ""},
		"a token that says more":   {&user.DefaultInfo{Name: "system:bootstrap:abcdef", Extra: map[string][]string{layout.AddressExtra: {"192.0.2.9"}, layout.KeyExtra: {"x"}}}, nil, "192.0.2.1:1", "192.0.2.1", ""},
		"a node":                   {&user.DefaultInfo{Name: "system:node:n1"}, node, "192.0.2.1:1234", "192.0.2.1", keyOf(node)},
		"a node by another's cert": {&user.DefaultInfo{Name: "system:node:n2"}, node, "192.0.2.1:1234", "", ""},
		"an administrator":         {&user.DefaultInfo{Name: "kubernetes-admin"}, admin, "192.0.2.1:1234", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/api", nil)
			r.Header.Set("X-Forwarded-For", "192.0.2.77")
			r.RemoteAddr = test.from
			if r.TLS = (&tls.ConnectionState{}); test.cert != nil {
				r.TLS.PeerCertificates = []*x509.Certificate{test.cert}
			}
			others := authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
				return &authenticator.Response{User: test.user}, true, nil
			})
			res, ok, err := New().Recognize(others).AuthenticateRequest(r)
			if !ok || err != nil || res.User.GetName() != test.user.GetName() {
				t.Fatal(res, ok, err)
			}
			for key, want := range map[string]string{layout.AddressExtra: test.address, layout.KeyExtra: test.key} {
				if got := strings.Join(res.User.GetExtra()[key], " "); got != want {
					t.Errorf("%s is %q, want %q", key, got, want)
				}
			}
		})
	}
	if len(kept.Extra) > 0 {
		t.Error("what the others keep has been changed")
	}
}

// asking is a certificate signing request by a token from an address.
func (d *door) asking(token, from string) int {
	r := httptest.NewRequest(http.MethodPost, "/apis/certificates.k8s.io/v1/certificatesigningrequests", nil)
	r.RemoteAddr = from + ":1234"
	ctx := request.WithRequestInfo(r.Context(), &request.RequestInfo{
		IsResourceRequest: true, Verb: "create", APIGroup: "certificates.k8s.io", APIVersion: "v1", Resource: "certificatesigningrequests",
	})
	ctx = request.WithUser(ctx, &user.DefaultInfo{Name: token})
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r.WithContext(ctx))
	if w.Code == http.StatusTooManyRequests {
		if id := strings.TrimPrefix(token, layout.TokenUser); !strings.Contains(w.Body.String(), id) || w.Header().Get("Retry-After") == "" {
			return 0
		}
	}
	return w.Code
}

// One machine asked 1,794 times in 40 s by one token, and others waited for minutes.
func TestOneThatFloodsSlowsDownHimself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		got := map[int]int{}
		for range 40 {
			for range 45 {
				got[d.asking("system:bootstrap:abcdef", "192.0.2.66")]++
			}
			time.Sleep(time.Second)
		}
		if passed := got[http.StatusOK]; passed < burstPerAddress || passed > burstPerAddress+41*perAddress || got[http.StatusTooManyRequests] != 40*45-passed {
			t.Errorf("the answers are %v", got)
		}
		for _, other := range []struct{ who, from string }{
			{"system:bootstrap:abcdef", "192.0.2.1"}, {"system:bootstrap:zzzzzz", "192.0.2.66"}, {"system:node:n1", "192.0.2.66"},
		} {
			if code := d.asking(other.who, other.from); code != http.StatusOK {
				t.Errorf("%v got %d", other, code)
			}
		}
		// Administrators, and controllers that sign for others, are no part of this.
		for range 2 * burstPerAsker {
			if code := d.asking("kubernetes-admin", "192.0.2.66"); code != http.StatusOK {
				t.Fatalf("got %d", code)
			}
		}
	})
}

// From however many addresses: a token has a limit, and what is remembered has one.
func TestAFloodFromManyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		passed := 0
		for i := range 3 * mostLimits {
			if d.asking("system:bootstrap:abcdef", fmt.Sprintf("198.18.%d.%d", i/256, i%256)) == http.StatusOK {
				passed++
			}
		}
		if passed != burstPerAsker {
			t.Errorf("%d passed, want %d", passed, burstPerAsker)
		}
		if n := len(d.limits.all.young) + len(d.limits.all.old); n > 2*mostLimits {
			t.Errorf("%d are remembered", n)
		}
	})
}

// The real handler of the API server reads requests from a connection; what is refused
// is refused on one that was there before, too.
func TestAConnectionThatIsThereIsNoWayAround(t *testing.T) {
	d := &door{Gate: New(), client: fake.NewClientset()}
	d.synced = func() bool { return true }
	server := httptest.NewUnstartedServer(d.Before(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		if r.URL.Query().Has("watch") {
			<-r.Context().Done()
		}
	})))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	client := server.Client()
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	watch, err := client.Get(server.URL + "/?watch")
	if err != nil || watch.StatusCode != http.StatusOK || watch.ProtoMajor != 2 {
		t.Fatal(watch, err)
	}
	defer watch.Body.Close()
	if err := roll.Refuse(t.Context(), d.client, "n1", roll.Revoked, time.Now()); err != nil {
		t.Fatal(err)
	}
	list, err := d.client.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatal(list, err)
	}
	d.learn(&list.Items[0])
	if _, err := bufio.NewReader(watch.Body).ReadByte(); err == nil {
		t.Error("the watch goes on")
	}
	res, err := client.Get(server.URL)
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		t.Fatal(res, err)
	}
	res.Body.Close()
}
