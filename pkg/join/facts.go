package join

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
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
	// Disable names parts that no node runs.
	Disable []string `json:"disable,omitempty"`
}

const (
	factsName = "lite-cluster"
	factsKey  = "facts"
)

// Publish puts the facts where nodes look for them.
func (f Facts) Publish(ctx context.Context, client kubernetes.Interface) error {
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("publish the cluster's facts: %w", err)
	}
	maps := client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	was, err := maps.Get(ctx, factsName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		m := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: factsName},
			Data:       map[string]string{factsKey: string(data)},
		}
		_, err = maps.Create(ctx, m, metav1.CreateOptions{})
	case err == nil && was.Data[factsKey] != string(data):
		was.Data = map[string]string{factsKey: string(data)}
		_, err = maps.Update(ctx, was, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("publish the cluster's facts: %w", err)
	}
	return nil
}

// FetchFacts reads what Publish wrote.
func FetchFacts(ctx context.Context, client kubernetes.Interface) (Facts, error) {
	var f Facts
	m, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, factsName, metav1.GetOptions{})
	if err != nil {
		return f, fmt.Errorf("read the cluster's facts: %w", err)
	}
	if err := json.Unmarshal([]byte(m.Data[factsKey]), &f); err != nil {
		return f, fmt.Errorf("read the cluster's facts: ConfigMap %s/%s: %w", metav1.NamespaceSystem, factsName, err)
	}
	return f, nil
}
