package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"lite.io/lite/pkg/kube"
)

// Config is what the controller has to be told.
type Config struct {
	Kubeconfig string
}

// Controller is the component that makes and deletes volumes. It runs once per
// cluster.
type Controller struct {
	kubeconfig string
	synced     atomic.Bool
}

// New makes the component; nothing is touched before Run.
func New(c Config) *Controller { return &Controller{kubeconfig: c.Kubeconfig} }

// Name implements component.Component.
func (*Controller) Name() string { return "storage" }

// Ready implements component.Component.
func (c *Controller) Ready(context.Context) error {
	if !c.synced.Load() {
		return errors.New("waiting for the API to tell claims, volumes and classes")
	}
	return nil
}

// Run implements component.Component. The library that all provisioners are made
// with does the work; what it says of each volume it also says in events.
func (c *Controller) Run(ctx context.Context) error {
	cfg, err := kube.ClientConfig(c.kubeconfig, c.Name())
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	// Shared by nobody else, so each may drop what the library does not read.
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trim))
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	volumes := factory.Core().V1().PersistentVolumes().Informer()
	classes := factory.Storage().V1().StorageClasses().Informer()

	var workers sync.WaitGroup
	control := controller.NewProvisionController(ctx, client, Provisioner, &provisioner{client},
		controller.LeaderElection(false),
		controller.AddFinalizer(true),
		controller.Threadiness(1),
		controller.ResyncPeriod(0),
		controller.FailedProvisionThreshold(0),
		controller.FailedDeleteThreshold(0),
		controller.RateLimiter(workqueue.NewTypedItemExponentialFailureRateLimiter[string](time.Second, 5*time.Minute)),
		controller.ClaimsInformer(claims),
		controller.VolumesInformer(volumes),
		controller.ClassesInformer(classes),
	)
	control.ControllerWaitGroup(&workers)

	factory.Start(ctx.Done())
	defer factory.Shutdown()
	defer c.synced.Store(false)
	factory.WaitForCacheSync(ctx.Done())
	c.synced.Store(ctx.Err() == nil)
	control.Run(ctx)
	workers.Wait()
	return nil
}

// trim drops what is of no use, of claims and volumes that are none of ours or
// done with all but what they are called.
func trim(o any) (any, error) {
	switch o := o.(type) {
	case *v1.PersistentVolumeClaim:
		if o.Spec.VolumeName != "" {
			return &v1.PersistentVolumeClaim{ObjectMeta: name(o), Spec: v1.PersistentVolumeClaimSpec{VolumeName: o.Spec.VolumeName}}, nil
		}
	case *v1.PersistentVolume:
		if o.Annotations[provisionedBy] != Provisioner {
			return &v1.PersistentVolume{ObjectMeta: name(o)}, nil
		}
	}
	return withoutManagedFields(o)
}

func name(o metav1.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion()}
}

// provisioner decides for the library.
type provisioner struct{ client kubernetes.Interface }

// Provision implements controller.Provisioner: it describes the volume. The node
// makes the directory as soon as the library has created the volume.
func (p *provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	if err := refuse(o); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	node, err := p.client.CoreV1().Nodes().Get(ctx, o.SelectedNodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, controller.ProvisioningReschedule, err
	}
	if err != nil {
		return nil, controller.ProvisioningNoChange, fmt.Errorf("ask for node %s: %w", o.SelectedNodeName, err)
	}
	root, host := node.Annotations[PathAnnotation], node.Labels[v1.LabelHostname]
	if !filepath.IsAbs(root) || host == "" {
		return nil, controller.ProvisioningReschedule, fmt.Errorf("node %s has no directory for volumes: its storage is disabled, or `lite status` there says what is wrong with it", node.Name)
	}
	return describe(o, node.Name, host, root), controller.ProvisioningFinished, nil
}

// refuse says what of a claim or its class a directory cannot be.
func refuse(o controller.ProvisionOptions) error {
	for _, mode := range o.PVC.Spec.AccessModes {
		if mode != v1.ReadWriteOnce && mode != v1.ReadWriteOncePod {
			return fmt.Errorf("access mode %s is not possible: a volume of class %s is a directory of one node; use ReadWriteOnce or ReadWriteOncePod", mode, o.StorageClass.Name)
		}
	}
	for parameter := range o.StorageClass.Parameters {
		return fmt.Errorf("class %s has the parameter %q; provisioner %s knows none", o.StorageClass.Name, parameter, Provisioner)
	}
	switch {
	case o.SelectedNodeName == "":
		return fmt.Errorf("no pod has chosen a node yet, and class %s does not wait for one; give it volumeBindingMode WaitForFirstConsumer", o.StorageClass.Name)
	case o.PVC.Spec.Selector != nil:
		return errors.New("a claim with a selector gets no new volume; remove spec.selector")
	case o.PVC.Spec.DataSource != nil || o.PVC.Spec.DataSourceRef != nil:
		return fmt.Errorf("class %s cannot fill a volume from a data source; remove spec.dataSource", o.StorageClass.Name)
	}
	return nil
}

// describe is the volume of a claim.
func describe(o controller.ProvisionOptions, node, host, root string) *v1.PersistentVolume {
	mode := v1.PersistentVolumeFilesystem
	policy := v1.PersistentVolumeReclaimDelete
	if o.StorageClass.ReclaimPolicy != nil {
		policy = *o.StorageClass.ReclaimPolicy
	}
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName, Labels: map[string]string{nodeLabel: node}},
		Spec: v1.PersistentVolumeSpec{
			AccessModes:                   o.PVC.Spec.AccessModes,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: o.PVC.Spec.Resources.Requests[v1.ResourceStorage]},
			MountOptions:                  o.StorageClass.MountOptions,
			PersistentVolumeReclaimPolicy: policy,
			VolumeMode:                    &mode,
			// Of a local volume, unlike a hostPath, the kubelet sets the group (fsGroup).
			PersistentVolumeSource: v1.PersistentVolumeSource{
				Local: &v1.LocalVolumeSource{Path: filepath.Join(root, directoryName(o.PVName, o.PVC))},
			},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{host}}},
			}}}},
		},
	}
}

// ShouldDelete implements controller.DeletionGuard: only when the node has said
// that the data is gone. Until then the volume says what it waits for.
func (p *provisioner) ShouldDelete(ctx context.Context, pv *v1.PersistentVolume) bool {
	if pv.Annotations[stateAnnotation] == stateRemoved {
		return pv.DeletionTimestamp == nil || p.exists(ctx, pv)
	}
	if wantsRemoval(pv) {
		if err := p.explain(ctx, pv); err != nil && ctx.Err() == nil {
			slog.Warn("Could not say what a volume waits for", "volume", pv.Name, "err", err)
		}
	}
	return false
}

// exists asks whether a volume that is being deleted is still there: the library
// would complain of one that is not.
func (p *provisioner) exists(ctx context.Context, pv *v1.PersistentVolume) bool {
	_, err := p.client.CoreV1().PersistentVolumes().Get(ctx, pv.Name, metav1.GetOptions{})
	return !apierrors.IsNotFound(err)
}

func (p *provisioner) explain(ctx context.Context, pv *v1.PersistentVolume) error {
	node := pv.Labels[nodeLabel]
	message := fmt.Sprintf("Waiting for lite on node %s to remove the data. If that node never comes back, set "+
		"persistentVolumeReclaimPolicy to Retain, then delete this volume", node)
	if pv.Status.Message == message {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]string{"reason": "WaitingForNode", "message": message}})
	if err != nil {
		return err
	}
	_, err = p.client.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Delete implements controller.Provisioner. The node has done it.
func (*provisioner) Delete(context.Context, *v1.PersistentVolume) error { return nil }
