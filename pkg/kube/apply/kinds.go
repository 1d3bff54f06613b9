package apply

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// GroupCRD is the API group of CustomResourceDefinitions.
const GroupCRD = "apiextensions.k8s.io"

// Kinds knows where in the API objects of each kind are. It asks the API once per group and
// version, and is to be forgotten when the work is done: kinds come and go.
type Kinds struct {
	objects   dynamic.Interface
	discovery discovery.DiscoveryInterface
	known     map[schema.GroupVersion][]metav1.APIResource
}

// NewKinds makes one that knows nothing yet.
func NewKinds(objects dynamic.Interface, d discovery.DiscoveryInterface) *Kinds {
	return &Kinds{objects, d, map[schema.GroupVersion][]metav1.APIResource{}}
}

// Connect is NewKinds for a configuration; also what else is made of it can share the connection.
func Connect(cfg *rest.Config) (*Kinds, error) {
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfigAndClient(cfg, client)
	if err != nil {
		return nil, err
	}
	d, err := discovery.NewDiscoveryClientForConfigAndClient(cfg, client)
	if err != nil {
		return nil, err
	}
	return NewKinds(objects, d), nil
}

// UnknownKind is of an object whose kind the cluster does not have, yet.
type UnknownKind struct{ schema.GroupVersionKind }

func (e UnknownKind) Error() string {
	return fmt.Sprintf("the cluster has no kind %s in %s: a typo, or its CustomResourceDefinition is not there yet", e.Kind, e.GroupVersion())
}

// Blame tells a request that the API did not answer from an API that does not
// answer: one object must not keep all others back.
func (k *Kinds) Blame(err error) error {
	if !Absent(err) {
		return err
	}
	if _, dead := k.discovery.ServerVersion(); dead != nil {
		return err
	}
	return errors.New(err.Error())
}

// resource finds out where objects of a kind are.
func (k *Kinds) resource(kind schema.GroupVersionKind) (metav1.APIResource, error) {
	gv := kind.GroupVersion()
	known, ok := k.known[gv]
	if !ok {
		list, err := k.discovery.ServerResourcesForGroupVersion(gv.String())
		if apierrors.IsNotFound(err) {
			return metav1.APIResource{}, UnknownKind{kind}
		}
		if err != nil {
			return metav1.APIResource{}, fmt.Errorf("get the kinds of %s: %w", gv, err)
		}
		known = list.APIResources
		k.known[gv] = known
	}
	i := slices.IndexFunc(known, func(r metav1.APIResource) bool { return r.Kind == kind.Kind && !strings.Contains(r.Name, "/") })
	if i < 0 {
		delete(k.known, gv) // it may come
		return metav1.APIResource{}, UnknownKind{kind}
	}
	return known[i], nil
}

// at is where objects of a kind are in a namespace, "" for the cluster.
func (k *Kinds) at(kind schema.GroupVersionKind, resource, namespace string) dynamic.ResourceInterface {
	return k.objects.Resource(kind.GroupVersion().WithResource(resource)).Namespace(namespace)
}

// Locate finds where o is, and names it as the cluster does: in a namespace if its kind is,
// in default if it does not say, and in none otherwise.
func (k *Kinds) Locate(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := o.GroupVersionKind()
	r, err := k.resource(kind)
	if err != nil {
		return nil, err
	}
	switch {
	case !r.Namespaced:
		o.SetNamespace("")
	case o.GetNamespace() == "":
		o.SetNamespace(metav1.NamespaceDefault)
	}
	return k.at(kind, r.Name, o.GetNamespace()), nil
}

// Find is Locate for an object that was applied before. Its version may be served no more;
// another one of its group is as good.
func (k *Kinds) Find(kind schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	r, err := k.resource(kind)
	if !errors.As(err, &UnknownKind{}) {
		return k.at(kind, r.Name, namespace), err
	}
	groups, err := k.discovery.ServerGroups()
	if err != nil {
		return nil, fmt.Errorf("get the groups of the API: %w", err)
	}
	for _, g := range groups.Groups {
		if g.Name != kind.Group {
			continue
		}
		for _, v := range g.Versions {
			served := kind.GroupKind().WithVersion(v.Version)
			r, err := k.resource(served)
			if !errors.As(err, &UnknownKind{}) {
				return k.at(served, r.Name, namespace), err
			}
		}
	}
	return nil, UnknownKind{kind}
}

// Guess is where an object is whose kind has a regular plural, and whose namespace says its
// scope, such as all that lite ships: discovery would be a request more for an answer that
// is known.
func Guess(objects dynamic.Interface, o *unstructured.Unstructured) dynamic.ResourceInterface {
	return objects.Resource(GuessResource(o.GroupVersionKind())).Namespace(o.GetNamespace())
}

// GuessResource is the resource of a kind with a regular plural.
func GuessResource(kind schema.GroupVersionKind) schema.GroupVersionResource {
	plural, _ := meta.UnsafeGuessKindToResource(kind)
	return plural
}
