package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/storage/volume"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// Annotations of a claim in which Kubernetes tells provisioners who is to create the
// volume, and where.
const (
	claimProvisioner = "volume.kubernetes.io/storage-provisioner"
	selectedNode     = "volume.kubernetes.io/selected-node"
)

// Config is the configuration of the controller.
type Config struct {
	Client *kube.Client
}

// Controller is the component that makes and deletes volumes. It runs once per
// cluster.
//
// The library that other provisioners are made with cannot be used here: its
// constructor writes to the scheme that all clients of the process share
// (sig-storage-lib-external-provisioner 13.0), which is not safe while other
// components run.
type Controller struct {
	config Config
	synced atomic.Bool

	client   kubernetes.Interface
	changed  signal
	problems problems
	claims   *kube.Watch[*v1.PersistentVolumeClaim]
	volumes  *kube.Watch[*v1.PersistentVolume] // with a label of ours
}

// New makes the component; nothing is touched before Run.
func New(c Config) *Controller {
	return &Controller{config: c, changed: make(signal, 1)}
}

// Name implements component.Component.
func (*Controller) Name() string { return "storage" }

// Ready implements component.Component.
func (c *Controller) Ready(context.Context) error {
	if !c.synced.Load() {
		return errors.New("waiting for the API to return claims and volumes")
	}
	return nil
}

// Run implements component.Component.
func (c *Controller) Run(ctx context.Context) error {
	client, err := c.config.Client.Clientset()
	if err != nil {
		return err
	}
	c.use(client)
	c.claims, c.volumes = watchClaims(client), watchVolumes(client, layout.VolumeNodeLabel)
	defer c.synced.Store(false)
	leave, err := kube.Follow(ctx,
		c.claims.With(kube.Wake[*v1.PersistentVolumeClaim](c.changed.set,
			nil)), c.volumes.With(kube.Wake[*v1.PersistentVolume](c.changed.set, nil)))
	defer leave()
	if err != nil || ctx.Err() != nil {
		return err
	}
	c.synced.Store(true)
	c.changed.work(ctx, c.sync)
	return nil
}

func (c *Controller) use(client kubernetes.Interface) { c.client, c.problems.client = client, client }

func watchClaims(client kubernetes.Interface) *kube.Watch[*v1.PersistentVolumeClaim] {
	return kube.NewWatch(kube.From(client, client.CoreV1().PersistentVolumeClaims(metav1.NamespaceAll), metav1.ListOptions{}), trimClaim)
}

// trimClaim drops the content of a claim that is not ours, or has its volume.
func trimClaim(claim *v1.PersistentVolumeClaim) *v1.PersistentVolumeClaim {
	if !waits(claim) {
		return nil
	}
	return withoutManagedFields(claim)
}

// waits reports whether a claim waits for a volume from here.
func waits(claim *v1.PersistentVolumeClaim) bool {
	return claim.Annotations[claimProvisioner] == layout.Provisioner && claim.Spec.VolumeName == "" && claim.DeletionTimestamp == nil
}

// sync handles each claim and volume.
func (c *Controller) sync(ctx context.Context) (well bool) {
	names := map[string]bool{}
	ask := c.classes()
	for _, claim := range c.claims.List() {
		if claim == nil {
			continue
		}
		name := claim.Namespace + "/" + claim.Name
		names[name] = true
		if err := c.provision(ctx, claim, ask); !errors.Is(err, errChoosing) {
			c.problems.report(ctx, name, aboutClaim(claim), "ProvisioningFailed", err)
		}
	}
	for _, pv := range c.volumes.List() {
		if pv.Annotations[provisionedBy] == layout.Provisioner {
			names[pv.Name] = true
			err := c.follow(ctx, pv)
			if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
				err = nil // it has changed, and its event will follow
			}
			c.problems.report(ctx, pv.Name, aboutVolume(pv), "VolumeFailed", err)
		}
	}
	return c.problems.retain(names)
}

type classGetter func(ctx context.Context, name string) (*storagev1.StorageClass, error)

// classes asks for each class once, however many claims wait.
func (c *Controller) classes() classGetter {
	known := map[string]*storagev1.StorageClass{}
	return func(ctx context.Context, name string) (*storagev1.StorageClass, error) {
		if class := known[name]; class != nil {
			return class, nil
		}
		class, err := c.client.StorageV1().StorageClasses().Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			known[name] = class
		}
		return class, err
	}
}

func aboutClaim(claim *v1.PersistentVolumeClaim) *v1.ObjectReference {
	return &v1.ObjectReference{
		APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name,
		UID: claim.UID, ResourceVersion: claim.ResourceVersion,
	}
}

// errChoosing is that the scheduler chooses a node again: what was wrong before
// still counts.
var errChoosing = errors.New("the scheduler is choosing a node")

// provision makes the volume of a claim. The node makes the directory as soon as
// it sees the volume.
func (c *Controller) provision(ctx context.Context, claim *v1.PersistentVolumeClaim, ask classGetter) error {
	name := layout.VolumeNamesPrefix + string(claim.UID)
	if _, exists := c.volumes.Get("", name); exists {
		return nil // it is being bound
	}
	class, err := ask(ctx, volume.GetPersistentVolumeClaimClass(claim))
	if err != nil {
		return fmt.Errorf("get the class: %w", err)
	}
	waiting := class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	on := claim.Annotations[selectedNode]
	if waiting && on == "" {
		return errChoosing
	}
	if err := refuse(claim, class, on); err != nil {
		return err
	}
	node, err := c.client.CoreV1().Nodes().Get(ctx, on, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("get node %s: %w", on, err)
	}
	if err != nil {
		return errors.Join(err, c.reschedule(ctx, claim))
	}
	root, host := node.Annotations[layout.StoragePathAnnotation], node.Labels[v1.LabelHostname]
	if !filepath.IsAbs(root) || host == "" {
		err := fmt.Errorf("node %s has no directory for volumes: `lite status` there shows why, if storage is not disabled", on)
		return errors.Join(err, c.reschedule(ctx, claim))
	}
	_, err = c.client.CoreV1().PersistentVolumes().Create(ctx, describe(name, claim, class, on, host, root), metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create volume %s: %w", name, err)
	}
	c.problems.event(ctx, aboutClaim(claim), v1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume "+name)
	return nil
}

// refuse returns what a claim or its class asks for that a directory cannot provide.
func refuse(claim *v1.PersistentVolumeClaim, class *storagev1.StorageClass, on string) error {
	for _, mode := range claim.Spec.AccessModes {
		if mode != v1.ReadWriteOnce && mode != v1.ReadWriteOncePod {
			return fmt.Errorf("access mode %s is not possible: a volume of class %s is a directory of one node; use ReadWriteOnce or ReadWriteOncePod", mode, class.Name)
		}
	}
	for parameter := range class.Parameters {
		return fmt.Errorf("class %s has the parameter %q; provisioner %s does not support any", class.Name, parameter, layout.Provisioner)
	}
	switch {
	case on == "":
		return fmt.Errorf("no pod has chosen a node yet, and class %s does not wait for one; give it volumeBindingMode WaitForFirstConsumer", class.Name)
	case claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode != v1.PersistentVolumeFilesystem:
		return fmt.Errorf("volumeMode %s is not possible: a volume of class %s is a directory; use Filesystem", *claim.Spec.VolumeMode, class.Name)
	case claim.Spec.Selector != nil:
		return errors.New("a claim with a selector does not get a new volume; remove spec.selector")
	case claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil:
		return fmt.Errorf("class %s cannot fill a volume from a data source; remove spec.dataSource", class.Name)
	}
	return nil
}

// reschedule makes the scheduler choose a node again.
func (c *Controller) reschedule(ctx context.Context, claim *v1.PersistentVolumeClaim) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": claim.UID, "resourceVersion": claim.ResourceVersion, "annotations": map[string]any{selectedNode: nil},
	}})
	if err != nil {
		return err
	}
	_, err = c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.MergePatchType, patch,
		metav1.PatchOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // it has changed, and its event will follow
	}
	return err
}

// describe is the volume of a claim.
func describe(name string, claim *v1.PersistentVolumeClaim, class *storagev1.StorageClass, node, host, root string) *v1.PersistentVolume {
	mode := v1.PersistentVolumeFilesystem
	pv := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{layout.VolumeNodeLabel: node},
			Annotations: map[string]string{provisionedBy: layout.Provisioner}},
		Spec: v1.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: claim.Spec.Resources.Requests[v1.ResourceStorage]},
			ClaimRef:                      aboutClaim(claim),
			MountOptions:                  class.MountOptions,
			PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			StorageClassName:              class.Name,
			VolumeMode:                    &mode,
			// Of a local volume, unlike a hostPath, the kubelet sets the group (fsGroup).
			PersistentVolumeSource: v1.PersistentVolumeSource{
				Local: &v1.LocalVolumeSource{Path: filepath.Join(root, directoryName(name, claim))},
			},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{host}}},
			}}}},
		},
	}
	if class.ReclaimPolicy != nil {
		pv.Spec.PersistentVolumeReclaimPolicy = *class.ReclaimPolicy
	}
	if pv.Spec.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimDelete {
		pv.Finalizers = []string{layout.VolumeFinalizer}
	}
	return pv
}

// follow deletes a volume when its data is gone. Until then, a finalizer keeps a volume
// whose data must be removed, even if somebody deletes the volume itself.
func (c *Controller) follow(ctx context.Context, pv *v1.PersistentVolume) error {
	held := slices.Contains(pv.Finalizers, layout.VolumeFinalizer)
	deletes := pv.Spec.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimDelete
	removed := pv.Annotations[layout.VolumeAnnotation] == stateRemoved
	switch {
	case !deletes && held:
		return c.hold(ctx, pv, false)
	case deletes && !held && pv.DeletionTimestamp == nil && !removed:
		return c.hold(ctx, pv, true)
	case !wantsRemoval(pv):
		return nil
	case !removed:
		return c.explain(ctx, pv)
	case pv.DeletionTimestamp == nil:
		return c.client.CoreV1().PersistentVolumes().Delete(ctx, pv.Name,
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pv.UID}})
	case held:
		return c.hold(ctx, pv, false)
	}
	return nil
}

// hold puts the finalizer on a volume, or takes it away.
func (c *Controller) hold(ctx context.Context, pv *v1.PersistentVolume, hold bool) error {
	finalizers := slices.DeleteFunc(slices.Clone(pv.Finalizers), func(f string) bool { return f == layout.VolumeFinalizer })
	if hold {
		finalizers = append(finalizers, layout.VolumeFinalizer)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": pv.UID, "resourceVersion": pv.ResourceVersion, "finalizers": finalizers,
	}})
	if err != nil {
		return err
	}
	_, err = c.client.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// explain posts an event about what a volume waits for.
func (c *Controller) explain(ctx context.Context, pv *v1.PersistentVolume) error {
	message := fmt.Sprintf("Waiting for lite on node %s to remove the data. If that node never comes back, set "+
		"persistentVolumeReclaimPolicy to Retain, then delete this volume", pv.Labels[layout.VolumeNodeLabel])
	if pv.Status.Message == message {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]string{"reason": "WaitingForNode", "message": message}})
	if err != nil {
		return err
	}
	_, err = c.client.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
