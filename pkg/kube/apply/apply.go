// Package apply makes objects of any kind be in the cluster as their owner wants them,
// with server-side apply under a name of the owner's, and takes away what the owner does
// not want any more. It removes exactly what that owner has applied: an object of the same
// name that somebody else created stays, and so do fields that others have written.
//
// What an owner owns is the caller's to remember. Labels, by which kubectl's ApplySets find
// it, come along when somebody copies an object.
package apply

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"lite.io/lite/pkg/kube"
)

// Owner is under which name objects are applied. The API keeps it with each field.
type Owner struct {
	Manager string
	// Yield leaves a field to whoever else has set it: Apply then fails with a conflict.
	// Otherwise the owner takes it.
	Yield bool
}

// Apply makes the object have the fields of o, and returns it as it is then. Those that the
// owner has applied before and wants no more are removed. Unknown fields are typos.
func (w Owner) Apply(ctx context.Context, at dynamic.ResourceInterface, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	data, err := json.Marshal(o.Object)
	if err != nil {
		return nil, err
	}
	force := !w.Yield
	return at.Patch(ctx, o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{
		FieldManager: w.Manager, Force: &force, FieldValidation: metav1.FieldValidationStrict,
	})
}

// Owns reports whether the owner has applied fields of an object. What a part of
// Kubernetes in this process has updated, such as a status, may bear the owner's name too,
// which is the program's; that is not the owner's.
func (w Owner) Owns(live *unstructured.Unstructured) bool {
	return slices.ContainsFunc(live.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == w.Manager && f.Operation == metav1.ManagedFieldsOperationApply
	})
}

// Release removes the fields that only the owner has applied, and leaves the object. If it
// cannot do without them, it keeps them.
func (w Owner) Release(ctx context.Context, at dynamic.ResourceInterface, live *unstructured.Unstructured) error {
	if !w.Owns(live) {
		return nil
	}
	none := &unstructured.Unstructured{}
	none.SetAPIVersion(live.GetAPIVersion())
	none.SetKind(live.GetKind())
	none.SetName(live.GetName())
	none.SetUID(live.GetUID()) // or it would be created again, if it has gone meanwhile
	_, err := Owner{Manager: w.Manager}.Apply(ctx, at, none)
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// Prune deletes the object of a name if the owner has applied it.
func (w Owner) Prune(ctx context.Context, at dynamic.ResourceInterface, name string) error {
	live, err := at.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || !w.Owns(live) {
		return err
	}
	return Delete(ctx, at, live)
}

// Delete deletes the object if it still is the one that was read.
func Delete(ctx context.Context, at dynamic.ResourceInterface, live *unstructured.Unstructured) error {
	uid, background := live.GetUID(), metav1.DeletePropagationBackground
	err := at.Delete(ctx, live.GetName(), metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &background,
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another one in its place
	}
	return err
}

// Established waits for a CustomResourceDefinition that was just applied to be served, for
// a moment only: it may be one that never is.
func Established(ctx context.Context, at dynamic.ResourceInterface, name string) {
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

// Absent reports whether the API could not be asked at all.
func Absent(err error) bool {
	var transport *url.Error
	return errors.As(err, &transport)
}
