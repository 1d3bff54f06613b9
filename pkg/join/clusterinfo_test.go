package join

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/clientcmd"
)

func TestPublish(t *testing.T) {
	ctx, c := t.Context(), fake.NewClientset()
	ca := encodeCerts(newAuthority(t).certs())
	publish := func(server string, ca []byte) {
		t.Helper()
		if err := Publish(ctx, c, server, ca); err != nil {
			t.Fatal(err)
		}
	}
	publish("https://10.0.0.1:6443", ca)
	config, err := clientcmd.Load([]byte(published(t, c)["kubeconfig"]))
	if err != nil {
		t.Fatal(err)
	}
	cluster := config.Clusters[""]
	if len(config.Clusters) != 1 || len(config.AuthInfos)+len(config.Contexts) != 0 || cluster == nil ||
		cluster.Server != "https://10.0.0.1:6443" || string(cluster.CertificateAuthorityData) != string(ca) {
		t.Errorf("published %+v", config)
	}

	publish("https://10.0.0.1:6443", ca)
	if n := count(c, "update") + count(c, "create"); n != 1 {
		t.Errorf("written %d times, though nothing has changed", n)
	}

	if err := MarkEnded(ctx, c, "abcdef", Deleted, noon); err != nil {
		t.Fatal(err)
	}
	publish("https://10.0.0.2:6443", ca)
	data := published(t, c)
	if !strings.Contains(data["kubeconfig"], "10.0.0.2") || data["ended-abcdef"] == "" {
		t.Errorf("after the address has changed there is %q", data)
	}
}

func TestPublishFillsInWhatIsEmpty(t *testing.T) {
	c := fake.NewClientset(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-public", Name: "cluster-info"}})
	if err := Publish(t.Context(), c, "https://10.0.0.1:6443", encodeCerts(newAuthority(t).certs())); err != nil {
		t.Fatal(err)
	}
	if published(t, c)["kubeconfig"] == "" {
		t.Error("nothing was published")
	}
}

func TestTwoServersMayPublishAtOnce(t *testing.T) {
	c := fake.NewClientset()
	ca := encodeCerts(newAuthority(t).certs())
	c.PrependReactor("create", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		other := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-public", Name: "cluster-info"},
			Data:       map[string]string{"kubeconfig": "another's", "jws-kubeconfig-abcdef": "x"},
		}
		_ = c.Tracker().Add(other)
		return true, nil, apierrors.NewAlreadyExists(schema.GroupResource{Resource: "configmaps"}, "cluster-info")
	})
	if err := Publish(t.Context(), c, "https://10.0.0.1:6443", ca); err != nil {
		t.Fatal(err)
	}
	if data := published(t, c); !strings.Contains(data["kubeconfig"], "10.0.0.1") || data["jws-kubeconfig-abcdef"] != "x" {
		t.Errorf("got %q", data)
	}
}

func TestPublishErrors(t *testing.T) {
	c := fake.NewClientset()
	if err := Publish(t.Context(), c, "https://10.0.0.1:6443", []byte("no PEM")); err == nil || count(c, "create") != 0 {
		t.Errorf("got %v for what is no CA", err)
	}
	boom := errors.New("boom")
	failing(c, "create", "configmaps", boom)
	err := Publish(t.Context(), c, "https://10.0.0.1:6443", encodeCerts(newAuthority(t).certs()))
	if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "publish cluster-info: ") {
		t.Errorf("got %v", err)
	}
}

func TestCAHash(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	der, err := x509.MarshalPKIXPublicKey(a.cert.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	want := hex.EncodeToString(sum[:])
	key := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for name, data := range map[string][]byte{
		"one":            encodeCerts(a.certs()),
		"the first":      encodeCerts([]*x509.Certificate{a.cert, b.cert}),
		"after a key":    append(key, encodeCerts(a.certs())...),
		"after a remark": append([]byte("# mine\n"), encodeCerts(a.certs())...),
	} {
		if got, err := CAHash(data); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", name, got, err, want)
		}
	}
	for name, data := range map[string][]byte{
		"nothing": nil,
		"a key":   key,
		"damaged": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
	} {
		if got, err := CAHash(data); err == nil {
			t.Errorf("%s: got %s", name, got)
		}
	}
}
