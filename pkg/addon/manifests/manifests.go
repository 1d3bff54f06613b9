// Package manifests applies the objects that lite ships, and those of a user's directory,
// with server-side apply: fields that somebody else owns stay as they are.
package manifests

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/kube/apply"
	"lite.io/lite/pkg/layout"
)

const (
	fieldManager = layout.Manager
	retryEvery   = 200 * time.Millisecond
	batteries    = "batteries"
	profiles     = "profiles"
)

// ours owns what lite ships. An object of the same name that somebody else has created
// stays.
func ours() apply.Owner { return apply.Owner{Manager: fieldManager} }

// Config is the configuration of Manifests.
type Config struct {
	Client *kube.Client
	// Files are *.yaml. Those in the directory batteries belong to the battery that they
	// are named after, those in profiles to the profile.
	Files fs.FS
	// Values replace ${NAME} in the files.
	Values map[string]string
	// Disable is the batteries whose objects are removed instead.
	Disable addon.Disabled
	// Profile is the one whose objects are not removed; may be "".
	Profile string
}

// Manifests is the component.
type Manifests struct {
	client   *kube.Client
	objects  []*unstructured.Unstructured
	unwanted []*unstructured.Unstructured // of disabled batteries and other profiles
	applied  atomic.Bool
	reason   atomic.Pointer[error]
}

// New reads the files.
func New(c Config) (*Manifests, error) {
	m := &Manifests{client: c.Client}
	err := fs.WalkDir(c.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(c.Files, name)
		if err != nil {
			return err
		}
		objects, err := decode([]byte(c.fill(string(data))))
		if err != nil {
			return fmt.Errorf("manifest %s: %w", name, err)
		}
		unwanted := c.unwanted(name)
		for _, o := range objects {
			if unwanted {
				m.unwanted = append(m.unwanted, o.Unstructured)
			} else {
				m.objects = append(m.objects, o.Unstructured)
			}
		}
		return nil
	})
	return m, err
}

// unwanted is whether the objects of a file are removed.
func (c Config) unwanted(file string) bool {
	subject := strings.TrimSuffix(path.Base(file), ".yaml")
	switch path.Dir(file) {
	case batteries:
		return c.Disable.Has(addon.Name(subject))
	case profiles:
		return c.Profile != subject
	}
	return false
}

func (c Config) fill(text string) string {
	var pairs []string
	for name, value := range c.Values {
		pairs = append(pairs, "${"+name+"}", value)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// Name implements component.Component.
func (*Manifests) Name() string { return "manifests" }

// Run implements component.Component. In each term of a server all is applied again: one that led
// meanwhile may be of another version.
func (m *Manifests) Run(ctx context.Context) error {
	cfg, err := m.client.Config()
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return err
	}
	m.applied.Store(false)
	for wait := retryEvery; !m.applied.Load(); wait = min(wait*5/4, retryLast) {
		if err := m.apply(ctx, client); err != nil {
			m.reason.Store(&err)
			if !kube.Sleep(ctx, wait) {
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

// apply applies and removes all objects. One that is refused, such as a StorageClass of the
// same name and another provisioner, does not hold up the others.
func (m *Manifests) apply(ctx context.Context, client dynamic.Interface) error {
	var refused []error
	for _, o := range m.objects {
		theirs := o.GetAnnotations()[layout.KeepEditsAnnotation] == "true"
		_, err := apply.Owner{Manager: fieldManager, Yield: theirs}.Apply(ctx, apply.Guess(client, o), o)
		if theirs && apierrors.IsConflict(err) {
			slog.Info("Left an object that its users have changed as it is", "kind", o.GetKind(), "namespace", o.GetNamespace(), "name", o.GetName())
			continue
		}
		if err != nil {
			err = fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		if apply.Absent(err) {
			return err
		}
		refused = append(refused, err)
	}
	// In reverse, so that what guards a permission goes after it.
	for _, o := range slices.Backward(m.unwanted) {
		if err := ours().Prune(ctx, apply.Guess(client, o), o.GetName()); err != nil {
			return errors.Join(append(refused, fmt.Errorf("remove %s %s: %w", o.GetKind(), o.GetName(), err))...)
		}
	}
	return errors.Join(refused...)
}
