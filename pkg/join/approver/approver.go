// Package approver decides which certificates kubelets get. A machine that
// joins gets the name it asks for unless a living node has it, and a node gets
// a serving certificate for its own name and addresses. Upstream's signer signs
// what is approved; upstream's approver must be off, it asks for less.
package approver

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	certificates "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"lite.io/lite/pkg/kube"
)

// Config is what the approver has to be told.
type Config struct {
	Kubeconfig    string
	ServiceCIDRs  []netip.Prefix // no node has an address in them
	ClusterDomain string         // no node has the name of a Service
	// Servers are the names and addresses that API servers have certificates
	// for. No node that asks for one has them: servers make their own.
	Servers []string
	// Built is a time in the past, such as when lite was built: nothing is
	// approved while the clock is behind it.
	Built time.Time
}

// Approver is the component. It must run once per cluster: that one request is
// decided after the other is what keeps two machines from getting one name.
type Approver struct {
	config Config
	listed atomic.Int32 // of signers, those whose requests have been listed
}

// signers are those whose requests are decided here; others are not touched.
var signers = [...]string{certificates.KubeAPIServerClientKubeletSignerName, certificates.KubeletServingSignerName}

// New makes the component; nothing is touched before Run.
func New(c Config) *Approver { return &Approver{config: c} }

// Name implements component.Component.
func (*Approver) Name() string { return "approver" }

// Ready implements component.Component: what was asked before is known.
func (a *Approver) Ready(context.Context) error {
	if int(a.listed.Load()) < len(signers) {
		return errors.New("listing the certificate signing requests")
	}
	return nil
}

// Run implements component.Component.
func (a *Approver) Run(ctx context.Context) error {
	cfg, err := kube.ClientConfig(a.config.Kubeconfig, "approver")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	return a.run(ctx, client)
}

func (a *Approver) run(ctx context.Context, client kubernetes.Interface) error {
	retry := workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 30*time.Second)
	d := &desk{
		client: client,
		judge:  judge{client, a.config.ServiceCIDRs, a.config.ClusterDomain, canonical(a.config.Servers), time.Now(), a.config.Built},
		queue:  workqueue.NewTypedRateLimitingQueue(retry),
	}
	var running sync.WaitGroup
	a.listed.Store(0)
	for _, signer := range signers {
		in := &inbox{queue: d.queue, listed: sync.OnceFunc(func() { a.listed.Add(1) })}
		r := cache.NewReflector(requests(client, signer), &certificates.CertificateSigningRequest{}, in, 0)
		running.Go(func() { r.RunWithContext(ctx) })
	}
	running.Go(func() {
		for d.next(ctx) {
		}
	})
	<-ctx.Done()
	d.queue.ShutDown()
	running.Wait()
	return nil
}

// requests lists and watches the requests to a signer.
func requests(client kubernetes.Interface, signer string) cache.ListerWatcher {
	selector := fields.OneTermEqualSelector("spec.signerName", signer).String()
	api := client.CertificatesV1().CertificateSigningRequests()
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return api.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return api.Watch(ctx, o)
		},
	}, client)
}

// inbox is the store of a watch that stores nothing: it puts the names of
// requests that nobody has decided into the queue.
type inbox struct {
	queue  workqueue.TypedRateLimitingInterface[string]
	listed func()
}

// Add implements cache.ReflectorStore.
func (in *inbox) Add(o any) error {
	if csr, ok := o.(*certificates.CertificateSigningRequest); ok && pending(csr) {
		in.queue.Add(csr.Name)
	}
	return nil
}

// Replace implements cache.ReflectorStore: a list begins or repairs the watch.
func (in *inbox) Replace(objects []any, _ string) error {
	for _, o := range objects {
		_ = in.Add(o)
	}
	in.listed()
	return nil
}

// Update implements cache.ReflectorStore. What is asked for cannot change, and
// a request that waits is in the queue already.
func (*inbox) Update(any) error { return nil }

// Delete implements cache.ReflectorStore.
func (*inbox) Delete(any) error { return nil }

// Resync implements cache.ReflectorStore.
func (*inbox) Resync() error { return nil }

// pending says that nobody has decided.
func pending(csr *certificates.CertificateSigningRequest) bool {
	for _, c := range csr.Status.Conditions {
		switch c.Type {
		case certificates.CertificateApproved, certificates.CertificateDenied, certificates.CertificateFailed:
			return false
		}
	}
	return true
}
