package metrics

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/metrics-server/pkg/scraper"
	"sigs.k8s.io/metrics-server/pkg/scraper/client"
	"sigs.k8s.io/metrics-server/pkg/scraper/client/resource"
	"sigs.k8s.io/metrics-server/pkg/storage"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

const (
	// resolution is how often every kubelet is asked: metrics-server's own.
	resolution = 15 * time.Second
	// A new node has figures after its second reading. Kubelets read about every 10 s, at
	// unknown times: asking often, for a while, finds the second reading early.
	resolutionOfNew = 3 * time.Second
	newFor          = 45 * time.Second
	// scrapeTimeout is for one kubelet.
	scrapeTimeout = 10 * time.Second
)

// readings are the last two of every kubelet.
type readings struct {
	scraper  scraper.Scraper
	store    storage.Storage
	joined   chan struct{} // holds one; there is a new node
	kubelets *kubelets
}

func newReadings(cfg *rest.Config, api metadata.Interface, n listers.NodeLister) (*readings, error) {
	to := rest.CopyConfig(cfg)
	to.Wrap(func(next http.RoundTripper) http.RoundTripper { return bounded{next} })
	asker, err := resource.NewForConfig(&client.KubeletClientConfig{
		Client:              *to,
		Scheme:              "https",
		DefaultPort:         layout.KubeletPort,
		UseNodeStatusPort:   true,
		AddressTypePriority: []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName},
	})
	if err != nil {
		return nil, fmt.Errorf("create a client of kubelets: %w", err)
	}
	k := &kubelets{client: asker, api: api, nodes: map[types.NamespacedName]string{}}
	return &readings{scraper.NewScraper(n, k, scrapeTimeout, nil), storage.NewStorage(resolution), make(chan struct{}, 1), k}, nil
}

// take asks all kubelets until ctx is done. figures is set once there are some.
func (r *readings) take(ctx context.Context, figures *atomic.Bool) {
	var joined time.Time
	began := time.Now()
	for {
		due := resolution
		if time.Since(joined) < newFor {
			due = resolutionOfNew
		}
		// A kubelet that hangs must not make the others' figures older.
		select {
		case <-r.joined:
			joined = time.Now()
		case <-time.After(due - time.Since(began)):
		case <-ctx.Done():
			return
		}
		began = time.Now()
		r.store.Store(r.scraper.Scrape(ctx))
		if !figures.Load() && r.store.Ready() {
			figures.Store(true)
		}
	}
}

// nodes are those that there are, as metrics-server asks for them.
type nodes struct{ watch *kube.Nodes }

// List implements listers.NodeLister.
func (n nodes) List(which labels.Selector) (all []*corev1.Node, err error) {
	for _, node := range n.watch.List() {
		if which.Matches(labels.Set(node.Labels)) {
			all = append(all, node)
		}
	}
	return all, nil
}

// Get implements listers.NodeLister.
func (n nodes) Get(name string) (*corev1.Node, error) {
	if node, ok := n.watch.Get("", name); ok {
		return node, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("nodes"), name)
}

// follow has the readings know of nodes that are new.
func (r *readings) follow(n *kube.Nodes) (leave func(), err error) {
	return n.Follow(kube.Handler[*corev1.Node]{Changed: func(c kube.Change[*corev1.Node]) {
		if !c.Came {
			return
		}
		select {
		case r.joined <- struct{}{}:
		default:
		}
	}})
}

// pods asks the API for the metadata of pods when somebody asks for their
// figures. That is rare, and an informer would hold every pod of the cluster and
// see each of their changes.
type pods struct {
	ctx       context.Context
	client    metadata.Interface
	namespace string // "" = all
}

const askTimeout = 10 * time.Second

var podsResource = corev1.SchemeGroupVersion.WithResource("pods")

// ByNamespace implements cache.GenericLister.
func (p pods) ByNamespace(namespace string) cache.GenericNamespaceLister {
	p.namespace = namespace
	return p
}

// List implements cache.GenericLister. The API server answers from its cache.
func (p pods) List(selector labels.Selector) ([]runtime.Object, error) {
	ctx, cancel := context.WithTimeout(p.ctx, askTimeout)
	defer cancel()
	list, err := p.client.Resource(podsResource).Namespace(p.namespace).List(ctx, metav1.ListOptions{
		LabelSelector: selector.String(), FieldSelector: "status.phase=" + string(corev1.PodRunning), ResourceVersion: "0",
	})
	if err != nil {
		return nil, err
	}
	objects := make([]runtime.Object, len(list.Items))
	for i := range list.Items {
		objects[i] = &list.Items[i]
	}
	return objects, nil
}

// Get implements cache.GenericLister.
func (p pods) Get(name string) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(p.ctx, askTimeout)
	defer cancel()
	return p.client.Resource(podsResource).Namespace(p.namespace).Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
}
