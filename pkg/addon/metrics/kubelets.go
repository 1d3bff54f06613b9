package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/metrics-server/pkg/scraper/client"
	"sigs.k8s.io/metrics-server/pkg/storage"
)

const (
	// mostFigures is what a kubelet's answer may be long, unpacked: a container has
	// half a KiB in it, so a node has room for 30,000 of them.
	mostFigures = 16 << 20
	// mostWords is how much of a complaint is passed on; the parser quotes what it read.
	mostWords = 300
)

// kubelets is how they are asked. What one answers is the word of a machine that
// somebody may have taken over, and it is read in the process of the control plane: no
// answer may be without end, none may end the process, and none is about pods of others.
type kubelets struct {
	client client.KubeletMetricsGetter
	api    metadata.Interface

	mu    sync.Mutex
	nodes map[types.NamespacedName]string // where the API has a pod whose figures were read
}

// GetMetrics implements client.KubeletMetricsGetter.
func (k *kubelets) GetMetrics(ctx context.Context, node *corev1.Node) (batch *storage.MetricsBatch, err error) {
	if batch, err = k.ask(ctx, node); err != nil {
		if text := err.Error(); len(text) > mostWords {
			err = errors.New(text[:mostWords] + "...")
		}
		return nil, err
	}
	if err := k.keepOwn(ctx, node.Name, batch); err != nil {
		return nil, err
	}
	return batch, nil
}

// ask survives what the library does not: its parser takes for granted that a line has
// the labels that a kubelet gives it (metrics-server 0.9.0).
func (k *kubelets) ask(ctx context.Context, node *corev1.Node) (batch *storage.MetricsBatch, err error) {
	defer func() {
		if p := recover(); p != nil {
			batch, err = nil, fmt.Errorf("its metrics do not have the format of a kubelet: %v", p)
		}
	}()
	return k.client.GetMetrics(ctx, node)
}

// keepOwn leaves in a batch the pods that are on the node: by those of others it could
// have an autoscaler do what it likes with them. The API is asked when there is a pod
// that was not on the node so far.
func (k *kubelets) keepOwn(ctx context.Context, node string, batch *storage.MetricsBatch) error {
	if !k.allOn(node, batch) {
		if err := k.learn(ctx, node); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for pod := range batch.Pods {
		if k.nodes[pod] != node {
			delete(batch.Pods, pod)
		}
	}
	return nil
}

func (k *kubelets) allOn(node string, batch *storage.MetricsBatch) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for pod := range batch.Pods {
		if k.nodes[pod] != node {
			return false
		}
	}
	return true
}

// learn asks which pods are on a node. The API server answers from its cache, by an index.
func (k *kubelets) learn(ctx context.Context, node string) error {
	list, err := k.api.Resource(podsResource).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node, ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("get the pods of the node: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for pod, at := range k.nodes {
		if at == node {
			delete(k.nodes, pod)
		}
	}
	for i := range list.Items {
		k.nodes[types.NamespacedName{Namespace: list.Items[i].Namespace, Name: list.Items[i].Name}] = node
	}
	return nil
}

// bounded is a transport to kubelets that limits the length of responses, also compressed
// ones, and does not follow redirects.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		// The client would follow a redirect, or quote the rest of the line.
		res.Body.Close()
		return nil, fmt.Errorf("it returns status %d", res.StatusCode)
	}
	res.Body = &limited{res.Body, mostFigures}
	return res, nil
}

// limited is a body that fails where it becomes too long.
type limited struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	if l.left == 0 {
		return 0, fmt.Errorf("its metrics are larger than %d MiB", mostFigures>>20)
	}
	n, err := l.ReadCloser.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}
