package manifests

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/kube/apply"
	"lite.io/lite/pkg/layout"
)

// session is a connection to the API for as long as there is something to do. What it knows
// of the cluster's kinds goes with it.
type session struct {
	*apply.Kinds
	core typedcorev1.CoreV1Interface
}

func connect(client *kube.Client) (*session, error) {
	cfg, err := client.Config()
	if err != nil {
		return nil, err
	}
	return newSession(cfg)
}

func newSession(cfg *rest.Config) (*session, error) {
	// Requests are sequential, which limits them enough.
	cfg.QPS = -1
	kinds, err := apply.Connect(cfg)
	if err != nil {
		return nil, err
	}
	core, err := typedcorev1.NewForConfig(cfg)
	return &session{kinds, core}, err
}

// errDeleting means that the object is being deleted: what is applied to it would be lost.
var errDeleting = errors.New("an object with this name is being deleted: waiting until it is gone")

// locate names an object as the cluster does.
func (s *session) locate(o object) (key, dynamic.ResourceInterface, error) {
	at, err := s.Locate(o.Unstructured)
	if err != nil {
		return key{}, nil, err
	}
	kind := o.GroupVersionKind()
	return key{kind.Group, kind.Kind, o.GetNamespace(), o.GetName()}, at, nil
}

// find is locate for an object of a record.
func (s *session) find(k key, version string) (dynamic.ResourceInterface, error) {
	return s.Find(schema.GroupVersionKind{Group: k.group, Version: version, Kind: k.kind}, k.namespace)
}

// apply applies the object and returns its UID.
func (p *pending) apply(ctx context.Context, owner apply.Owner) (types.UID, error) {
	made, err := owner.Apply(ctx, p.at, p.Unstructured)
	if err != nil {
		return "", err
	}
	if made.GetDeletionTimestamp() != nil {
		return "", errDeleting
	}
	return made.GetUID(), nil
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
	at, err := s.Locate(o)
	if err != nil {
		return err
	}
	made, err := ours().Apply(ctx, at, o)
	if err != nil {
		return fmt.Errorf("record the file's objects: %w", err)
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

// event posts an event on the record of a file.
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
