// Package manifests keeps the objects that lite ships in the cluster. They are
// applied with server-side apply under one field manager, so that fields a
// user adds or owns are left alone.
package manifests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"

	"lite.io/lite/pkg/kube"
)

const (
	fieldManager = "lite"
	retryEvery   = 200 * time.Millisecond
)

// Manifests is the component.
type Manifests struct {
	objects    []*unstructured.Unstructured
	kubeconfig string
	applied    atomic.Bool
	reason     atomic.Pointer[error]
}

// New reads the objects of files; the API is reached by kubeconfig.
func New(files fs.FS, kubeconfig string) (*Manifests, error) {
	m := &Manifests{kubeconfig: kubeconfig}
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		objects, err := decode(data)
		if err != nil {
			return fmt.Errorf("manifest %s: %w", path, err)
		}
		m.objects = append(m.objects, objects...)
		return nil
	})
	return m, err
}

func decode(data []byte) (objects []*unstructured.Unstructured, err error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := decoder.Decode(o)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}

// Name implements component.Component.
func (*Manifests) Name() string { return "manifests" }

// Run implements component.Component.
func (m *Manifests) Run(ctx context.Context) error {
	cfg, err := kube.ClientConfig(m.kubeconfig, "manifests")
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return err
	}
	for !m.applied.Load() {
		if err := m.apply(ctx, client); err != nil {
			m.reason.Store(&err)
			select {
			case <-time.After(retryEvery):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		m.applied.Store(true)
	}
	<-ctx.Done()
	return nil
}

// Ready implements component.Component.
func (m *Manifests) Ready(context.Context) error {
	if m.applied.Load() {
		return nil
	}
	if reason := m.reason.Load(); reason != nil {
		return *reason
	}
	return errors.New("applying")
}

func (m *Manifests) apply(ctx context.Context, client dynamic.Interface) error {
	for _, o := range m.objects {
		// An empty namespace is the cluster's scope.
		objects := client.Resource(resource(o.GroupVersionKind())).Namespace(o.GetNamespace())
		_, err := objects.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// resource names the resource of an object. The kinds that lite ships have
// regular plurals; discovery would be a request more for an answer that is known.
func resource(k schema.GroupVersionKind) schema.GroupVersionResource {
	plural, _ := meta.UnsafeGuessKindToResource(k)
	return plural
}
