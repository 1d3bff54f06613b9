package storage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// VolumesConfig is the configuration of a node's half.
type VolumesConfig struct {
	NodeName string
	Client   *kube.Client // of the node
	Path     string       // the directory of its volumes
}

// Volumes is the component that keeps the directories of a node's volumes.
type Volumes struct {
	node string
	as   *kube.Client
	dir  directory

	client   kubernetes.Interface
	changed  signal
	synced   atomic.Bool
	problems problems

	// Removals run beside all else, each as long as it takes.
	removals sync.WaitGroup
	slots    chan struct{}

	mu        sync.Mutex
	volumes   *kube.Watch[*v1.PersistentVolume]
	removing  map[types.UID]bool
	published bool
	rootless  error // why this node can have no volumes; nil = it can
}

const (
	// While a node starts the API is asked again after reachFirst, at last after
	// reachLast.
	reachFirst = 100 * time.Millisecond
	reachLast  = 2 * time.Second
	// atOnce is how many volumes are emptied at the same time.
	atOnce = 2
)

// NewVolumes makes the component; nothing is touched before Run.
func NewVolumes(c VolumesConfig) *Volumes {
	return &Volumes{
		node: c.NodeName, as: c.Client, dir: directory(c.Path),
		changed: make(signal, 1), slots: make(chan struct{}, atOnce), removing: map[types.UID]bool{},
	}
}

// Name implements component.Component.
func (*Volumes) Name() string { return "volumes" }

// Ready implements component.Component. Note and events report what is wrong with a disk:
// it must not evict the node's other pods.
func (v *Volumes) Ready(context.Context) error {
	if !v.synced.Load() {
		return errors.New("waiting for the API to return this node's volumes")
	}
	return nil
}

// Note implements component.Noter.
func (v *Volumes) Note() string {
	v.mu.Lock()
	rootless, volumes := v.rootless, v.volumes
	v.mu.Unlock()
	if rootless != nil {
		return "no volumes on this node: " + rootless.Error()
	}
	if note := v.problems.note(); note != "" {
		return "volumes " + note
	}
	free, total, err := v.dir.free()
	if err != nil || volumes == nil {
		return ""
	}
	const gib = 1 << 30
	return fmt.Sprintf("volumes: %d; %.1f of %.1f GiB free in %s", len(volumes.List()), float64(free)/gib, float64(total)/gib, v.dir)
}

// Run implements component.Component. Directories stay when it stops, and a removal
// continues after the next start.
func (v *Volumes) Run(ctx context.Context) error {
	client, err := v.as.Clientset()
	if err != nil {
		return err
	}
	v.use(client)
	defer v.removals.Wait()
	defer v.synced.Store(false)
	if !v.await(ctx) {
		return nil
	}
	volumes := watchVolumes(v.client, v.mine())
	v.mu.Lock()
	v.volumes = volumes
	v.mu.Unlock()
	leave, err := kube.Follow(ctx, volumes.With(kube.Wake[*v1.PersistentVolume](v.changed.set, nil)))
	defer leave()
	if err != nil || ctx.Err() != nil {
		return err
	}
	v.synced.Store(true)
	v.changed.work(ctx, v.sync)
	return nil
}

func (v *Volumes) use(client kubernetes.Interface) {
	v.client, v.problems.client, v.problems.host = client, client, v.node
}

// await waits until the node may see volumes: at the first start of a cluster
// that is a moment later, and a watch that is refused waits longer to try again.
func (v *Volumes) await(ctx context.Context) bool {
	for pause := reachFirst; ; pause = min(2*pause, reachLast) {
		_, err := v.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{LabelSelector: v.mine(), Limit: 1})
		if err == nil {
			return true
		}
		if !kube.Sleep(ctx, pause) {
			return false
		}
	}
}

// mine selects the volumes of this node.
func (v *Volumes) mine() string { return layout.VolumeNodeLabel + "=" + v.node }

// watchVolumes is the volumes that have the labels.
func watchVolumes(client kubernetes.Interface, labels string) *kube.Watch[*v1.PersistentVolume] {
	return kube.NewWatch(kube.From(client, client.CoreV1().PersistentVolumes(), metav1.ListOptions{LabelSelector: labels}),
		withoutManagedFields[*v1.PersistentVolume])
}

// withoutManagedFields drops the largest part of an object, which is useless here.
func withoutManagedFields[T metav1.Object](o T) T {
	o.SetManagedFields(nil)
	return o
}

// publish shows the controller and the scheduler where this node's volumes are, or that it
// can have none.
func (v *Volumes) publish(ctx context.Context) error {
	unusable := v.dir.ensure()
	var path, capable any // null removes the field
	if unusable == nil {
		path, capable = string(v.dir), "true"
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"annotations": map[string]any{layout.StoragePathAnnotation: path}, "labels": map[string]any{layout.StorageLabel: capable},
	}})
	if err != nil {
		return err
	}
	_, err = v.client.CoreV1().Nodes().Patch(ctx, v.node, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		err = fmt.Errorf("publish where the volumes of node %s are: %w", v.node, err)
	}
	return cmp.Or(unusable, err)
}

// sync handles the node and each volume.
func (v *Volumes) sync(ctx context.Context) (well bool) {
	if !v.published {
		err := v.publish(ctx)
		v.mu.Lock()
		v.published, v.rootless = err == nil, err
		v.mu.Unlock()
	}
	names := map[string]bool{}
	for _, pv := range v.volumes.List() {
		state := pv.Annotations[layout.VolumeAnnotation]
		if pv.Annotations[provisionedBy] != layout.Provisioner || state == stateRemoved {
			continue
		}
		names[pv.Name] = true
		switch {
		case wantsRemoval(pv):
			v.remove(ctx, pv)
		case state == "" && pv.DeletionTimestamp == nil && pv.Status.Phase != v1.VolumeReleased && pv.Spec.ClaimRef != nil:
			v.problems.report(ctx, pv.Name, pv.Spec.ClaimRef, "ProvisioningFailed", v.make(ctx, pv))
		default:
			v.problems.report(ctx, pv.Name, nil, "", nil)
		}
	}
	return v.problems.retain(names) && v.published
}

// make makes the directory of a volume.
func (v *Volumes) make(ctx context.Context, pv *v1.PersistentVolume) error {
	name, err := entryOf(pv, string(v.dir))
	if err != nil {
		return err
	}
	if err := v.dir.make(name); err != nil {
		return err
	}
	if pv.Status.Phase != v1.VolumeBound {
		return nil // a write now would make the binder start over
	}
	return v.report(ctx, pv, stateReady)
}

// remove begins to remove the data of a volume, unless it is already doing that, and
// retries until it is gone.
func (v *Volumes) remove(ctx context.Context, pv *v1.PersistentVolume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.removing[pv.UID] {
		return
	}
	v.removing[pv.UID] = true
	v.removals.Go(func() {
		for pause := retryFirst; ; pause = min(2*pause, retryLast) {
			err := v.erase(ctx, pv)
			v.problems.report(ctx, pv.Name, aboutVolume(pv), "VolumeFailedDelete", err)
			if err == nil {
				break
			}
			if !kube.Sleep(ctx, pause) {
				return
			}
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.removing, pv.UID)
	})
}

// erase removes the data of a volume permanently, so it checks once more whether that is
// wanted.
func (v *Volumes) erase(ctx context.Context, pv *v1.PersistentVolume) error {
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	now, err := v.client.CoreV1().PersistentVolumes().Get(ctx, pv.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if now.UID != pv.UID || !wantsRemoval(now) {
		return nil
	}
	name, err := entryOf(now, string(v.dir))
	if err != nil {
		return err
	}
	if err := v.dir.remove(ctx, name); err != nil {
		return err
	}
	return v.report(ctx, now, stateRemoved)
}

// report writes to a volume what has become of its directory.
func (v *Volumes) report(ctx context.Context, pv *v1.PersistentVolume, state string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": pv.UID, "annotations": map[string]string{layout.VolumeAnnotation: state},
	}})
	if err != nil {
		return err
	}
	_, err = v.client.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("publish that the directory of volume %s is %s: %w", pv.Name, state, err)
	}
	return nil
}
