package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	certificates "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lite.io/lite/pkg/join"
	"lite.io/lite/tests/harness/cluster"
)

// decide asks for the certificates of 2,000 nodes at once, by 40 tokens, and returns
// how many were decided in a second. Making the requests is part of that time.
func decide(b *testing.B, node *cluster.Node) float64 {
	b.Helper()
	const tokens, each = 40, 50 // no token may ask faster, nor admit more
	ctx, cancel := context.WithTimeout(b.Context(), 2*limit)
	defer cancel()
	config, err := restConfig(node)
	if err != nil {
		b.Fatal(err)
	}
	admin, err := kubernetes.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	var asking sync.WaitGroup
	for i := range tokens {
		asking.Go(func() {
			t := join.New()
			if err := join.Create(ctx, admin, t, join.Settings{Role: join.Agent, Now: time.Now()}); err != nil {
				b.Error(err)
				return
			}
			as := rest.CopyConfig(config)
			as.QPS = -1
			as.Impersonate = rest.ImpersonationConfig{UserName: "system:bootstrap:" + t.ID, Groups: []string{"system:bootstrappers", join.Agent.Group(), "system:authenticated"}}
			client, err := kubernetes.NewForConfig(as)
			for n := range each {
				if err == nil {
					err = askFor(ctx, client, fmt.Sprintf("bench-%d-%d", i, n), key)
				}
			}
			if err != nil {
				b.Error(err)
			}
		})
	}
	asking.Wait()
	if err := try(ctx, statusPoll, func(ctx context.Context) error { return decided(ctx, admin, tokens*each) }); err != nil {
		b.Fatal(err)
	}
	return tokens * each / time.Since(began).Seconds()
}

func askFor(ctx context.Context, client kubernetes.Interface, name string, key *ecdsa.PrivateKey) error {
	csr, err := cluster.NodeCertificate(name).Sign(key)
	if err != nil {
		return err
	}
	csr.Name = name
	_, err = client.CertificatesV1().CertificateSigningRequests().Create(ctx, csr, metav1.CreateOptions{})
	return err
}

// decided says whether so many requests have been approved; none of these is denied.
func decided(ctx context.Context, client kubernetes.Interface, want int) error {
	list, err := client.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	approved := 0
	for _, csr := range list.Items {
		for _, c := range csr.Status.Conditions {
			if c.Type == certificates.CertificateApproved {
				approved++
			}
		}
	}
	if approved < want {
		return fmt.Errorf("%d of %d requests were approved", approved, want)
	}
	return nil
}
