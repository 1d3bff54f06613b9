package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

const groupCRD = "apiextensions.k8s.io"

// session is a connection to the API, for as long as there is something to do:
// what it has learnt of the cluster's kinds goes with it.
type session struct {
	objects   dynamic.Interface
	core      typedcorev1.CoreV1Interface
	discovery discovery.DiscoveryInterface
	kinds     map[schema.GroupVersion][]metav1.APIResource
}

func connect(client *kube.Client) (*session, error) {
	cfg, err := client.Config()
	if err != nil {
		return nil, err
	}
	return newSession(cfg)
}

func newSession(cfg *rest.Config) (*session, error) {
	// One request is made after the other, and that is limit enough.
	cfg.QPS = -1
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	s := &session{kinds: map[schema.GroupVersion][]metav1.APIResource{}}
	if s.objects, err = dynamic.NewForConfigAndClient(cfg, client); err != nil {
		return nil, err
	}
	if s.core, err = typedcorev1.NewForConfigAndClient(cfg, client); err != nil {
		return nil, err
	}
	s.discovery, err = discovery.NewDiscoveryClientForConfigAndClient(cfg, client)
	return s, err
}

// unknownKind is of an object whose kind the cluster does not have, yet.
type unknownKind struct{ schema.GroupVersionKind }

func (e unknownKind) Error() string {
	return fmt.Sprintf("the cluster has no kind %s in %s: a typo, or its CustomResourceDefinition is not there yet", e.Kind, e.GroupVersion())
}

// errDeleting is of an object that is on its way out: what is applied to it would
// go with it.
var errDeleting = errors.New("one of this name is being deleted: waiting until it is gone")

// absent reports whether the API could not be asked at all.
func absent(err error) bool {
	var transport *url.Error
	return errors.As(err, &transport)
}

// blame tells a request that the API did not answer from an API that does not
// answer: one object must not keep all others back.
func (s *session) blame(err error) error {
	if !absent(err) {
		return err
	}
	if _, dead := s.discovery.ServerVersion(); dead != nil {
		return err
	}
	return errors.New(err.Error())
}

// resource finds out where objects of a kind are.
func (s *session) resource(kind schema.GroupVersionKind) (metav1.APIResource, error) {
	gv := kind.GroupVersion()
	known, ok := s.kinds[gv]
	if !ok {
		list, err := s.discovery.ServerResourcesForGroupVersion(gv.String())
		if apierrors.IsNotFound(err) {
			return metav1.APIResource{}, unknownKind{kind}
		}
		if err != nil {
			return metav1.APIResource{}, fmt.Errorf("ask for the kinds of %s: %w", gv, err)
		}
		known = list.APIResources
		s.kinds[gv] = known
	}
	i := slices.IndexFunc(known, func(r metav1.APIResource) bool { return r.Kind == kind.Kind && !strings.Contains(r.Name, "/") })
	if i < 0 {
		delete(s.kinds, gv) // it may come
		return metav1.APIResource{}, unknownKind{kind}
	}
	return known[i], nil
}

// at is where the object is.
func (s *session) at(k key, version, resource string) dynamic.ResourceInterface {
	return s.objects.Resource(schema.GroupVersionResource{Group: k.group, Version: version, Resource: resource}).Namespace(k.namespace)
}

// locate names an object as the cluster does: in a namespace if its kind is, in
// default if it does not say, and in none otherwise.
func (s *session) locate(o object) (key, dynamic.ResourceInterface, error) {
	kind := o.GroupVersionKind()
	r, err := s.resource(kind)
	if err != nil {
		return key{}, nil, err
	}
	switch {
	case !r.Namespaced:
		o.SetNamespace("")
	case o.GetNamespace() == "":
		o.SetNamespace(metav1.NamespaceDefault)
	}
	k := key{kind.Group, kind.Kind, o.GetNamespace(), o.GetName()}
	return k, s.at(k, kind.Version, r.Name), nil
}

// find is locate for an object of a record, whose version may be served no more.
func (s *session) find(k key, version string) (dynamic.ResourceInterface, error) {
	r, err := s.resource(schema.GroupVersionKind{Group: k.group, Version: version, Kind: k.kind})
	if !errors.As(err, &unknownKind{}) {
		return s.at(k, version, r.Name), err
	}
	groups, err := s.discovery.ServerGroups()
	if err != nil {
		return nil, fmt.Errorf("ask for the groups of the API: %w", err)
	}
	for _, g := range groups.Groups {
		if g.Name != k.group {
			continue
		}
		for _, v := range g.Versions {
			r, err := s.resource(schema.GroupVersionKind{Group: k.group, Version: v.Version, Kind: k.kind})
			if !errors.As(err, &unknownKind{}) {
				return s.at(k, v.Version, r.Name), err
			}
		}
	}
	return nil, unknownKind{schema.GroupVersionKind{Group: k.group, Version: version, Kind: k.kind}}
}

// apply brings the object into the cluster, where it has the UID.
func (p *pending) apply(ctx context.Context, manager string) (types.UID, error) {
	made, err := apply(ctx, p.at, p.Unstructured, manager)
	if err != nil {
		return "", err
	}
	if made.GetDeletionTimestamp() != nil {
		return "", errDeleting
	}
	return made.GetUID(), nil
}

// apply makes the object have the fields of o. Unknown fields are typos.
func apply(ctx context.Context, at dynamic.ResourceInterface, o *unstructured.Unstructured, manager string) (*unstructured.Unstructured, error) {
	data, err := json.Marshal(o.Object)
	if err != nil {
		return nil, err
	}
	force := true
	return at.Patch(ctx, o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{
		FieldManager: manager, Force: &force, FieldValidation: metav1.FieldValidationStrict,
	})
}

// manages reports whether a manager has applied fields of o.
func manages(o *unstructured.Unstructured, manager string) bool {
	return slices.ContainsFunc(o.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == manager && f.Operation == metav1.ManagedFieldsOperationApply
	})
}

// release takes away the fields that only the manager has applied, and leaves
// the object. What cannot do without them keeps them.
func release(ctx context.Context, at dynamic.ResourceInterface, live *unstructured.Unstructured, manager string) error {
	if !manages(live, manager) {
		return nil
	}
	none := &unstructured.Unstructured{}
	none.SetAPIVersion(live.GetAPIVersion())
	none.SetKind(live.GetKind())
	none.SetName(live.GetName())
	none.SetUID(live.GetUID()) // or it would be made again, if it has gone meanwhile
	_, err := apply(ctx, at, none, manager)
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// removeExactly deletes the object, if it still is the one.
func removeExactly(ctx context.Context, at dynamic.ResourceInterface, live *unstructured.Unstructured) error {
	uid, background := live.GetUID(), metav1.DeletePropagationBackground
	err := at.Delete(ctx, live.GetName(), metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &background,
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another one in its place
	}
	return err
}

// established waits for a CustomResourceDefinition that was just applied to be
// served, a moment only: it may be one that never is.
func established(ctx context.Context, at dynamic.ResourceInterface, name string) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		crd, err := at.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return
		}
		conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
		for _, c := range conditions {
			if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
				return
			}
		}
		if !kube.Sleep(ctx, 50*time.Millisecond) {
			return
		}
	}
}

// records lists what the files owned when lite last worked on them.
func (s *session) records(ctx context.Context) ([]*record, error) {
	list, err := s.core.ConfigMaps(recordNamespace).List(ctx, metav1.ListOptions{LabelSelector: layout.RecordLabel + "=" + recordKind})
	if err != nil {
		return nil, fmt.Errorf("list what the manifests own: %w", err)
	}
	var all []*record
	for _, m := range list.Items {
		// A copy that somebody made under another name is not one.
		if r := parseRecord(m); m.Name == recordName(r.file) {
			all = append(all, r)
		}
	}
	return all, nil
}

// save writes a record if it has changed.
func (s *session) save(ctx context.Context, r *record) error {
	if r.uid != "" && r.content() == r.saved {
		return nil
	}
	o, err := r.configMap()
	if err != nil {
		return err
	}
	at := s.objects.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(recordNamespace)
	made, err := apply(ctx, at, o, fieldManager)
	if err != nil {
		return fmt.Errorf("keep account of the file's objects: %w", err)
	}
	r.uid, r.saved = made.GetUID(), r.content()
	return nil
}

// recorded reports whether a record is still in the cluster.
func (s *session) recorded(ctx context.Context, r *record) (bool, error) {
	_, err := s.core.ConfigMaps(recordNamespace).Get(ctx, recordName(r.file), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the record of %s: %w", r.file, err)
	}
	return true, nil
}

// forget removes the record of a file that is gone and owns nothing.
func (s *session) forget(ctx context.Context, r *record) error {
	err := s.core.ConfigMaps(recordNamespace).Delete(ctx, recordName(r.file), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove the record of the file: %w", err)
	}
	return nil
}

// event makes an event at the record of a file.
func (s *session) event(ctx context.Context, r *record, kind, reason, message string) error {
	now := metav1.Now()
	_, err := s.core.Events(recordNamespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: recordNamespace, GenerateName: recordName(r.file) + "."},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "ConfigMap", Namespace: recordNamespace, Name: recordName(r.file), UID: r.uid,
		},
		Type: kind, Reason: reason, Message: cut(message, 1024),
		Source:         corev1.EventSource{Component: layout.Manager, Host: r.server},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		ReportingController: layout.ManifestsController, ReportingInstance: r.server,
	}, metav1.CreateOptions{})
	return err
}
