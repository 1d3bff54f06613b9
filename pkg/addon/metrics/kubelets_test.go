package metrics

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	listers "k8s.io/client-go/listers/core/v1"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/metrics-server/pkg/storage"
)

// placed answers which pods are on which node, and counts how often it is asked.
func placed(t *testing.T, on map[string][]string) (*metadatafake.FakeMetadataClient, *int) {
	t.Helper()
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	client, asked := metadatafake.NewSimpleMetadataClient(scheme), 0
	client.PrependReactor("list", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		asked++
		node, _ := a.(clienttesting.ListAction).GetListRestrictions().Fields.RequiresExactMatch("spec.nodeName")
		list := &metav1.List{}
		for _, name := range on[node] {
			list.Items = append(list.Items, runtime.RawExtension{Object: &metav1.PartialObjectMetadata{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
			}})
		}
		return true, list, nil
	})
	return client, &asked
}

// taken is a machine that answers in the place of a kubelet, and how lite asks it.
func taken(t *testing.T, pods *metadatafake.FakeMetadataClient, answer http.HandlerFunc) (*readings, *corev1.Node) {
	t.Helper()
	machine := httptest.NewTLSServer(answer)
	t.Cleanup(machine.Close)
	host, text, err := net.SplitHostPort(machine.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: host}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(port)}},
	}}
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	if err := indexer.Add(node); err != nil {
		t.Fatal(err)
	}
	r, err := newReadings(&rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, pods, listers.NewNodeLister(indexer))
	if err != nil {
		t.Fatal(err)
	}
	return r, node
}

// figuresOf is what a kubelet reports about pods.
func figuresOf(pods ...string) string {
	text := "node_cpu_usage_seconds_total 5\nnode_memory_working_set_bytes 6\n"
	for _, pod := range pods {
		of := fmt.Sprintf(`{container="c",namespace="ns",pod=%q}`, pod)
		text += "container_cpu_usage_seconds_total" + of + " 1\ncontainer_memory_working_set_bytes" + of + " 2\ncontainer_start_time_seconds" + of + " 3\n"
	}
	return text
}

// The first of these ended the control plane, by one line; the next made it take all the
// memory that there was.
func TestAKubeletThatSomebodyElseAnswersFor(t *testing.T) {
	comment := "# " + strings.Repeat("a", 1<<16) + "\n"
	for _, test := range []struct {
		name, want string
		answer     http.HandlerFunc
	}{
		{"no labels", "do not have the format of a kubelet", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "container_cpu_usage_seconds_total 1")
		}},
		{"labels cut off", "do not have the format of a kubelet", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, `container_memory_working_set_bytes{a="b"} 1`)
		}},
		{"without end", "larger than 16 MiB", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, comment)
			}
		}},
		{"packed", "larger than 16 MiB", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			packer := gzip.NewWriter(w)
			for r.Context().Err() == nil {
				_, _ = io.WriteString(packer, comment)
			}
		}},
		{"leads elsewhere", "status 302", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:6443/", http.StatusFound)
		}},
		{"a line that is quoted", "...", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "a "+strings.Repeat("x", 1<<16))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			pods, _ := placed(t, nil)
			r, node := taken(t, pods, test.answer)
			if batch := r.scraper.Scrape(t.Context()); len(batch.Nodes) != 0 {
				t.Errorf("it has figures: %v", batch)
			}
			_, err := r.kubelets.GetMetrics(t.Context(), node)
			if err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > mostWords+3 {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// A machine had an autoscaler of others do what it liked, by figures of their pods.
func TestAKubeletTellsOfItsOwnPodsAlone(t *testing.T) {
	on := map[string][]string{"n": {"own", "other"}, "m": {"foreign"}}
	pods, asked := placed(t, on)
	says := []string{"own", "foreign", "nobodys"}
	r, node := taken(t, pods, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, figuresOf(says...)) })
	read := func(want string) {
		t.Helper()
		batch, err := r.kubelets.GetMetrics(context.Background(), node)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for pod := range batch.Pods {
			got = append(got, pod.Name)
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != want || len(batch.Nodes) != 1 {
			t.Errorf("pods %q, want %q; nodes %v", text, want, batch.Nodes)
		}
	}
	read("own")
	says = []string{"own"}
	before := *asked
	read("own")
	if *asked != before {
		t.Error("the API is asked although no pod is new")
	}
	on["n"] = append(on["n"], "new")
	says = []string{"own", "new"}
	read("new own")
	on["n"], on["m"] = []string{"new"}, []string{"own"} // a pod of the same name, elsewhere
	if err := r.kubelets.keepOwn(t.Context(), "m", batchOf("own")); err != nil {
		t.Fatal(err)
	}
	read("new")
}

func batchOf(pod string) *storage.MetricsBatch {
	return &storage.MetricsBatch{Pods: map[types.NamespacedName]storage.PodMetricsPoint{{Namespace: "ns", Name: pod}: {}}}
}
