package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/cluster"
)

const factsKey = "facts"

// PublishFacts puts the facts where nodes look for them.
func PublishFacts(ctx context.Context, client kubernetes.Interface, f cluster.Facts) error {
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

// FetchFacts reads what PublishFacts wrote.
func FetchFacts(ctx context.Context, client kubernetes.Interface) (cluster.Facts, error) {
	var f cluster.Facts
	m, err := client.CoreV1().ConfigMaps(clusterFacts.namespace).Get(ctx, clusterFacts.name, metav1.GetOptions{})
	if err != nil {
		return f, fmt.Errorf("read the cluster's facts: %w", err)
	}
	err = json.Unmarshal([]byte(m.Data[factsKey]), &f)
	if err == nil && (!f.Known() || !f.ClusterDNS.IsValid()) {
		err = errors.New("it lacks the ranges or the DNS address of the cluster; restart lite on a server, which writes it again")
	}
	if err != nil {
		return f, fmt.Errorf("read the cluster's facts: ConfigMap %s/%s: %w", clusterFacts.namespace, clusterFacts.name, err)
	}
	return f, nil
}
