package bench

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/tests/harness/cluster"
)

// conn is a client that puts load on a cluster.
type conn struct{ client kubernetes.Interface }

func connect(b *testing.B, node *cluster.Node) conn {
	b.Helper()
	config, err := restConfig(node)
	if err != nil {
		b.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	return conn{client}
}

// deletePod returns when the pod is gone.
func (c conn) deletePod(b *testing.B, name string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	if err := c.client.CoreV1().Pods(metav1.NamespaceDefault).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		b.Fatal(err)
	}
	c.awaitNoPods(ctx, b, fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(), "")
}

func (c conn) awaitNoPods(ctx context.Context, b *testing.B, field, label string) {
	b.Helper()
	if err := try(ctx, statusPoll, func(ctx context.Context) error {
		pods, err := c.client.CoreV1().Pods(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{FieldSelector: field, LabelSelector: label})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d pods are still there", len(pods.Items))
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
}

// claim creates a claim of the default class and a pod with its volume, and
// returns how long it took until the pod was Running, and so the claim bound and
// the volume mounted.
func (c conn) claim(b *testing.B, name string) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}}
	spec := podSpec()
	spec.Volumes = []corev1.Volume{{Name: name, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
	}}}
	spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: name, MountPath: "/data"}}
	began := time.Now()
	if _, err := c.client.CoreV1().PersistentVolumeClaims(metav1.NamespaceDefault).Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	if err := awaitPod(ctx, c.client, name, spec); err != nil {
		b.Fatalf("pod with a volume: %v", err)
	}
	return time.Since(began)
}

// load is the Deployment whose pods are counted.
const load = "load"

// scale makes the Deployment have so many replicas, and returns how long it
// took until all were ready or, with none, the last pod gone.
func (c conn) scale(b *testing.B, replicas int32) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	deployments := c.client.AppsV1().Deployments(metav1.NamespaceDefault)
	began := time.Now()
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := deployments.Patch(ctx, load, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		_, err = deployments.Create(ctx, deployment(replicas), metav1.CreateOptions{})
	}
	if err != nil {
		b.Fatal(err)
	}
	if replicas == 0 {
		c.awaitNoPods(ctx, b, "", "app="+load)
		return time.Since(began)
	}
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, load).String()}
	err = await(ctx, func(ctx context.Context) (watch.Interface, error) {
		return deployments.Watch(ctx, options)
	}, func(d *appsv1.Deployment) bool {
		return d.Status.ObservedGeneration >= d.Generation && d.Status.ReadyReplicas == replicas
	})
	if err != nil {
		b.Fatalf("%d pods: %v", replicas, err)
	}
	return time.Since(began)
}

func deployment(replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": load}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: load},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec()},
		},
	}
}

const (
	writers   = 20
	writeTime = 5 * time.Second
)

// createMany creates ConfigMaps and returns how many a second were
// acknowledged, and what 99 % of the creations took at most.
func createMany(b *testing.B, node *cluster.Node) (rate float64, p99 time.Duration) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	data := map[string]string{"data": strings.Repeat("0123456789abcdef", 1024/16)}

	conns := make([]conn, writers)
	for i := range conns {
		conns[i] = connect(b, node)
		// It opens the connection, which is not to be measured.
		if _, err := conns[i].client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	took := make([][]float64, writers)
	began := time.Now()
	var work sync.WaitGroup
	for writer, c := range conns {
		work.Go(func() {
			for i := 0; time.Since(began) < writeTime; i++ {
				object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("written-%d-%d", writer, i)}, Data: data}
				sent := time.Now()
				if _, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Create(ctx, object, metav1.CreateOptions{}); err != nil {
					b.Error(err)
					return
				}
				took[writer] = append(took[writer], float64(time.Since(sent)))
			}
		})
	}
	work.Wait()
	elapsed := time.Since(began)
	var all []float64
	for _, some := range took {
		all = append(all, some...)
	}
	return float64(len(all)) / elapsed.Seconds(), time.Duration(percentile(all, 99))
}
