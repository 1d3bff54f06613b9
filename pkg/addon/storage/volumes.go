package storage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"lite.io/lite/pkg/kube"
)

// VolumesConfig is what a node's half has to be told.
type VolumesConfig struct {
	NodeName   string
	Kubeconfig string // of the node
	Path       string // the directory of its volumes
}

// Volumes is the component that keeps the directories of a node's volumes.
type Volumes struct {
	node       string
	kubeconfig string
	dir        directory

	client  kubernetes.Interface
	volumes cache.Store
	changed chan struct{} // holds one; something about the volumes has
	synced  atomic.Bool

	// Removals run beside all else, each as long as it takes.
	removals sync.WaitGroup
	slots    chan struct{}
	removed  chan removal
	removing map[types.UID]bool

	mu       sync.Mutex
	rootless error             // why this node can have no volumes; nil = it can
	problems map[string]string // volume -> what is wrong with it, as said last
}

// removal is how the removal of a volume's data has ended.
type removal struct {
	volume *v1.PersistentVolume
	err    error
}

const (
	// reach is how long it is before the API is asked again, while a node starts.
	reach = 100 * time.Millisecond
	// What went wrong is tried again, at first after retryFirst, at last after retryLast.
	retryFirst = time.Second
	retryLast  = time.Minute
	// atOnce is how many volumes are emptied at the same time.
	atOnce = 2
)

// NewVolumes makes the component; nothing is touched before Run.
func NewVolumes(c VolumesConfig) *Volumes {
	return &Volumes{
		node: c.NodeName, kubeconfig: c.Kubeconfig, dir: directory(c.Path),
		changed: make(chan struct{}, 1), slots: make(chan struct{}, atOnce), removed: make(chan removal),
		removing: map[types.UID]bool{}, problems: map[string]string{},
	}
}

// Name implements component.Component.
func (*Volumes) Name() string { return "volumes" }

// Ready implements component.Component. What is wrong with a disk is said by
// Note and by events: it must not take the node's other pods away.
func (v *Volumes) Ready(context.Context) error {
	if !v.synced.Load() {
		return errors.New("waiting for the API to tell this node's volumes")
	}
	return nil
}

// Note implements component.Noter.
func (v *Volumes) Note() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rootless != nil {
		return "no volumes on this node: " + v.rootless.Error()
	}
	if len(v.problems) > 0 {
		volume := slices.Min(slices.Collect(maps.Keys(v.problems)))
		return fmt.Sprintf("volumes in trouble: %d; %s: %s", len(v.problems), volume, v.problems[volume])
	}
	free, total, err := v.dir.free()
	if err != nil || v.volumes == nil {
		return ""
	}
	const gib = 1 << 30
	return fmt.Sprintf("volumes: %d; %.1f of %.1f GiB free in %s", len(v.volumes.ListKeys()), float64(free)/gib, float64(total)/gib, v.dir)
}

// Run implements component.Component. Directories stay when it ends, and a
// removal goes on at the next start.
func (v *Volumes) Run(ctx context.Context) error {
	cfg, err := kube.ClientConfig(v.kubeconfig, v.Name())
	if err != nil {
		return err
	}
	if v.client, err = kubernetes.NewForConfig(cfg); err != nil {
		return err
	}
	defer v.removals.Wait()
	defer v.synced.Store(false)
	if !v.await(ctx) {
		return nil
	}
	done := v.watch(ctx)
	defer func() { <-done }()
	v.keep(ctx)
	return nil
}

// await waits until the node may see volumes: at the first start of a cluster
// that is a moment later, and a watch that is refused waits longer to try again.
func (v *Volumes) await(ctx context.Context) bool {
	for {
		_, err := v.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{LabelSelector: v.mine(), Limit: 1})
		if err == nil {
			return true
		}
		select {
		case <-time.After(reach):
		case <-ctx.Done():
			return false
		}
	}
}

// mine selects the volumes of this node.
func (v *Volumes) mine() string { return nodeLabel + "=" + v.node }

// watch keeps v.volumes up to date until ctx is done; then it closes what it
// returns.
func (v *Volumes) watch(ctx context.Context) <-chan struct{} {
	notify := func() {
		select {
		case v.changed <- struct{}{}:
		default:
		}
	}
	lw := cache.NewFilteredListWatchFromClient(v.client.CoreV1().RESTClient(), "persistentvolumes", "",
		func(o *metav1.ListOptions) { o.LabelSelector = v.mine() })
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw,
		ObjectType:    &v1.PersistentVolume{},
		Transform:     withoutManagedFields,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { notify() },
			UpdateFunc: func(any, any) { notify() },
			DeleteFunc: func(any) { notify() },
		},
	})
	v.mu.Lock()
	v.volumes = store
	v.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		controller.RunWithContext(ctx)
	}()
	if cache.WaitForCacheSync(ctx.Done(), controller.HasSynced) {
		v.synced.Store(true)
		notify()
	}
	return done
}

// withoutManagedFields drops of an object what is of no use here and larger than
// all else.
func withoutManagedFields(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return o, nil
}

// keep makes the directories as the API has the volumes, until ctx is done.
func (v *Volumes) keep(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	pause := retryFirst
	published := false
	for {
		select {
		case <-v.changed:
		case <-retry.C:
		case r := <-v.removed:
			delete(v.removing, r.volume.UID)
			v.tell(ctx, r.volume, nil, r.err)
			if r.err != nil { // to be tried again, but not at once
				retry.Reset(pause)
			}
			continue
		case <-ctx.Done():
			return
		}
		if !published {
			err := v.publish(ctx)
			published = err == nil
			v.mu.Lock()
			v.rootless = err
			v.mu.Unlock()
		}
		if v.sync(ctx) && published {
			retry.Stop()
			pause = retryFirst
		} else {
			retry.Reset(pause)
			pause = min(2*pause, retryLast)
		}
	}
}

// publish tells the controller where volumes of this node lie, or that there can
// be none.
func (v *Volumes) publish(ctx context.Context) error {
	unusable := v.dir.ensure()
	var path any // null removes the annotation
	if unusable == nil {
		path = string(v.dir)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{PathAnnotation: path}}})
	if err != nil {
		return err
	}
	_, err = v.client.CoreV1().Nodes().Patch(ctx, v.node, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		err = fmt.Errorf("say where the volumes of node %s are: %w", v.node, err)
	}
	return cmp.Or(unusable, err)
}

// sync does for each volume what there is to do. It reports whether all went well.
func (v *Volumes) sync(ctx context.Context) bool {
	gone := map[string]bool{}
	for name := range v.problems { // written by this goroutine only
		gone[name] = true
	}
	for _, o := range v.volumes.List() {
		pv := o.(*v1.PersistentVolume)
		delete(gone, pv.Name)
		if pv.Annotations[provisionedBy] != Provisioner || pv.Annotations[stateAnnotation] == stateRemoved {
			continue
		}
		switch {
		case wantsRemoval(pv):
			v.remove(ctx, pv)
		case pv.Annotations[stateAnnotation] == "" && pv.DeletionTimestamp == nil && pv.Status.Phase != v1.VolumeReleased:
			v.tell(ctx, pv, pv.Spec.ClaimRef, v.make(ctx, pv))
		default:
			v.tell(ctx, pv, nil, nil)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for name := range gone {
		delete(v.problems, name)
	}
	return len(v.problems) == 0
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
		return nil // to write to it now would make the one who binds it begin anew
	}
	return v.report(ctx, pv, stateReady)
}

// remove begins to remove the data of a volume, unless that is being done.
func (v *Volumes) remove(ctx context.Context, pv *v1.PersistentVolume) {
	if v.removing[pv.UID] {
		return
	}
	v.removing[pv.UID] = true
	v.removals.Go(func() {
		r := removal{volume: pv}
		select {
		case v.slots <- struct{}{}:
			r.err = v.erase(ctx, pv)
			<-v.slots
		case <-ctx.Done():
			return
		}
		select {
		case v.removed <- r:
		case <-ctx.Done():
		}
	})
}

// erase removes the data of a volume for good, so it asks once more whether that
// is wanted.
func (v *Volumes) erase(ctx context.Context, pv *v1.PersistentVolume) error {
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
		"uid": pv.UID, "annotations": map[string]string{stateAnnotation: state},
	}})
	if err != nil {
		return err
	}
	_, err = v.client.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("say that the directory of volume %s is %s: %w", pv.Name, state, err)
	}
	return nil
}

// tell remembers what is wrong with a volume, nil if nothing is, and says what is
// new where users look: at the claim while there is one, else at the volume.
func (v *Volumes) tell(ctx context.Context, pv *v1.PersistentVolume, claim *v1.ObjectReference, problem error) {
	text := ""
	if problem != nil {
		text = problem.Error()
	}
	v.mu.Lock()
	before := v.problems[pv.Name]
	if text == "" {
		delete(v.problems, pv.Name)
	} else {
		v.problems[pv.Name] = text
	}
	v.mu.Unlock()
	if text == before || text == "" || ctx.Err() != nil {
		return
	}
	about, reason := claim, "ProvisioningFailed"
	if claim == nil {
		about = &v1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolume", Name: pv.Name, UID: pv.UID}
		reason = "VolumeFailedDelete"
	}
	slog.Warn("A volume of this node is in trouble", "volume", pv.Name, "err", problem)
	if err := v.event(ctx, about, reason, "On node "+v.node+": "+text); err != nil {
		slog.Warn("Could not tell it to the users of the volume", "volume", pv.Name, "err", err)
	}
}

// event makes one. They are rare, so nothing has to collect and count them.
func (v *Volumes) event(ctx context.Context, about *v1.ObjectReference, reason, message string) error {
	now := metav1.Now()
	namespace := cmp.Or(about.Namespace, metav1.NamespaceDefault)
	_, err := v.client.CoreV1().Events(namespace).Create(ctx, &v1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: about.Name[:min(len(about.Name), 200)] + ".", Namespace: namespace},
		InvolvedObject: *about,
		Reason:         reason,
		Message:        message,
		Type:           v1.EventTypeWarning,
		Source:         v1.EventSource{Component: Provisioner, Host: v.node},
		FirstTimestamp: now,
		LastTimestamp:  now,
		Count:          1,
	}, metav1.CreateOptions{})
	return err
}
