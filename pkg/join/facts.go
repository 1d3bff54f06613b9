package join

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/addon"
)

// Facts is what a node has to know of its cluster to be part of it. It is the
// same for all nodes and no secret; machines that hold a token and nodes may
// read it.
type Facts struct {
	ClusterCIDR   []netip.Prefix `json:"clusterCIDR"`
	ServiceCIDR   []netip.Prefix `json:"serviceCIDR"`
	ClusterDNS    netip.Addr     `json:"clusterDNS"`
	ClusterDomain string         `json:"clusterDomain"`
	// Backend is what carries packets to the pods of other nodes.
	Backend string `json:"backend"`
	// Disable is the batteries that no node runs.
	Disable addon.Disabled `json:"disable,omitempty"`
}

const factsKey = "facts"

// Publish puts the facts where nodes look for them.
func (f Facts) Publish(ctx context.Context, client kubernetes.Interface) error {
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("publish the cluster's facts: %w", err)
	}
	set := func(have map[string]string) bool {
		was := have[factsKey]
		have[factsKey] = string(data)
		return was != string(data)
	}
	if err := clusterFacts.put(ctx, client, set); err != nil {
		return fmt.Errorf("publish the cluster's facts: %w", err)
	}
	return nil
}

// FetchFacts reads what Publish wrote.
func FetchFacts(ctx context.Context, client kubernetes.Interface) (Facts, error) {
	var f Facts
	m, err := client.CoreV1().ConfigMaps(clusterFacts.namespace).Get(ctx, clusterFacts.name, metav1.GetOptions{})
	if err != nil {
		return f, fmt.Errorf("read the cluster's facts: %w", err)
	}
	if err := json.Unmarshal([]byte(m.Data[factsKey]), &f); err != nil {
		return f, fmt.Errorf("read the cluster's facts: ConfigMap %s/%s: %w", clusterFacts.namespace, clusterFacts.name, err)
	}
	return f, nil
}
