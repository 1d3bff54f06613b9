package join

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	bootstrap "k8s.io/cluster-bootstrap/token/api"

	"lite.io/lite/pkg/layout"
)

// configMap names a ConfigMap that several write.
type configMap struct{ namespace, name string }

var (
	clusterInfo  = configMap{metav1.NamespacePublic, bootstrap.ConfigMapClusterInfo}
	clusterFacts = configMap{metav1.NamespaceSystem, layout.ClusterFacts}
)

// put changes it, or makes it.
func (m configMap) put(ctx context.Context, client kubernetes.Interface, change func(map[string]string) bool) error {
	err := m.edit(ctx, client, change)
	if apierrors.IsNotFound(err) {
		err = m.create(ctx, client, change)
	}
	if apierrors.IsAlreadyExists(err) {
		err = m.edit(ctx, client, change) // another server was faster
	}
	return err
}

func (m configMap) create(ctx context.Context, client kubernetes.Interface, change func(map[string]string) bool) error {
	made := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.namespace, Name: m.name},
		Data:       map[string]string{},
	}
	change(made.Data)
	_, err := client.CoreV1().ConfigMaps(m.namespace).Create(ctx, made, metav1.CreateOptions{})
	return err
}

// edit changes it, again if somebody else has in between; the signer does so to
// cluster-info whenever a token comes or goes. change says whether there is
// anything to write.
func (m configMap) edit(ctx context.Context, client kubernetes.Interface, change func(map[string]string) bool) error {
	maps := client.CoreV1().ConfigMaps(m.namespace)
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		found, err := maps.Get(ctx, m.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if found.Data == nil {
			found.Data = map[string]string{}
		}
		if !change(found.Data) {
			return nil
		}
		_, err = maps.Update(ctx, found, metav1.UpdateOptions{})
		return err
	})
}
