// Package approver decides which certificates kubelets get. A machine that
// joins gets the name it asks for unless a living node has it, and a node gets
// a serving certificate for its own name and addresses. Upstream's signer signs
// what is approved; upstream's approver must be off: it requires less. The roll records
// who was admitted with which token, and whoever is no longer a node is no longer
// admitted.
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

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// Config is what the approver has to be told.
type Config struct {
	Client        *kube.Client
	Nodes         *kube.Nodes
	ServiceCIDRs  []netip.Prefix // no node has an address in them
	ClusterDomain string         // no node has the name of a Service
	// Servers are the names and addresses that API servers have certificates
	// for. No node that asks for one has them: servers make their own.
	Servers []string
	// Built is a time in the past, such as when lite was built: nothing is
	// approved while the clock is behind it.
	Built time.Time
	// NodesPerHour is how many nodes each token may admit within an hour; 0 is as
	// many as come.
	NodesPerHour int
}

// Approver is the component. It must run once per cluster: that one request for a
// name is decided after the other is what keeps two machines from getting it.
type Approver struct {
	config Config
	listed atomic.Int32 // of the watches, those that have listed what there is
}

// watches are those of the requests to each signer, and of the Nodes.
const watches = int32(len(signers)) + 1

// signers are those whose requests are decided here; others are not touched.
var signers = [...]string{certificates.KubeAPIServerClientKubeletSignerName, certificates.KubeletServingSignerName}

// New makes the component; nothing is touched before Run.
func New(c Config) *Approver { return &Approver{config: c} }

// Name implements component.Component.
func (*Approver) Name() string { return "approver" }

// Ready implements component.Component: what was asked before is known.
func (a *Approver) Ready(context.Context) error {
	if a.listed.Load() < watches {
		return errors.New("listing the certificate signing requests and the nodes")
	}
	return nil
}

// Run implements component.Component.
func (a *Approver) Run(ctx context.Context) error {
	client, err := a.config.Client.Clientset()
	if err != nil {
		return err
	}
	return a.run(ctx, client, a.config.Nodes)
}

func (a *Approver) run(ctx context.Context, client kubernetes.Interface, nodes *kube.Nodes) error {
	var running sync.WaitGroup
	a.listed.Store(0)
	all := make(chan struct{})
	listed := func() func() {
		return sync.OnceFunc(func() {
			if a.listed.Add(1) == watches {
				close(all)
			}
		})
	}
	begun := time.Now()
	c := newCensus(client, begun, canonical(a.config.Servers))
	c.nodes.listed = listed()
	leave, err := nodes.Follow(c.nodes.handler())
	if err != nil {
		return err
	}
	defer leave()
	d := newWorker(client, judge{
		client: client, services: a.config.ServiceCIDRs, domain: a.config.ClusterDomain, servers: c.servers,
		since: begun, built: a.config.Built, perHour: a.config.NodesPerHour,
		requests: newIndex(), nodes: c.nodes, tokens: &locks{}, admitted: c.expect,
	})
	for _, signer := range signers {
		in := &inbox{d, signer, listed()}
		r := cache.NewReflector(requests(client, signer), &certificates.CertificateSigningRequest{}, in, 0)
		running.Go(func() { r.RunWithContext(ctx) })
	}
	running.Go(func() {
		// What is asked first is not to be judged by a part of what there is.
		select {
		case <-all:
		case <-ctx.Done():
			return
		}
		running.Go(func() { c.run(ctx) })
		for range workers {
			running.Go(func() {
				for d.next(ctx) {
				}
			})
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

// inbox is the store of a watch: it has the index know the requests, and puts those
// that nobody has decided into the queue.
type inbox struct {
	worker *worker
	signer string
	listed func()
}

// Add implements cache.ReflectorStore.
func (in *inbox) Add(o any) error {
	if csr, ok := o.(*certificates.CertificateSigningRequest); ok {
		in.worker.judge.requests.put(csr)
		if pending(csr) {
			in.worker.queue.Add(itemOf(csr))
		}
	}
	return nil
}

// Replace implements cache.ReflectorStore: a list begins or repairs the watch.
func (in *inbox) Replace(objects []any, _ string) error {
	there := map[string]bool{}
	for _, o := range objects {
		_ = in.Add(o)
		if csr, ok := o.(*certificates.CertificateSigningRequest); ok {
			there[csr.Name] = true
		}
	}
	if in.signer == certificates.KubeAPIServerClientKubeletSignerName {
		in.worker.judge.requests.keep(there)
	}
	in.listed()
	return nil
}

// Update implements cache.ReflectorStore. What is asked for cannot change, and a
// request that waits is in the queue already.
func (in *inbox) Update(o any) error {
	if csr, ok := o.(*certificates.CertificateSigningRequest); ok {
		in.worker.judge.requests.put(csr)
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (in *inbox) Delete(o any) error {
	if csr, ok := o.(*certificates.CertificateSigningRequest); ok {
		in.worker.judge.requests.drop(csr.Name)
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (*inbox) Resync() error { return nil }

// itemOf says whose turn a request has. An API server of before notes no address.
func itemOf(csr *certificates.CertificateSigningRequest) item {
	return item{csr.Spec.Username, extra(csr, layout.AddressExtra), csr.Name}
}

// extra is what the API server has noted of who has asked; "" if nothing.
func extra(csr *certificates.CertificateSigningRequest, key string) string {
	if values := csr.Spec.Extra[key]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// pending reports that nobody has decided.
func pending(csr *certificates.CertificateSigningRequest) bool {
	for _, c := range csr.Status.Conditions {
		switch c.Type {
		case certificates.CertificateApproved, certificates.CertificateDenied, certificates.CertificateFailed:
			return false
		}
	}
	return true
}
