package containerd

import (
	"errors"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"lite.io/lite/pkg/file/unpack"
)

// A later containerd may have its plugins elsewhere, and what nobody bounds is seen only
// when a disk is full.
func TestPluginsThatUnpackAreBounded(t *testing.T) {
	names := func() (all []string) {
		for _, r := range registry.Graph(nil) {
			all = append(all, r.URI())
		}
		slices.Sort(all)
		return all
	}
	before := names()
	if err := boundPlugins(unpack.ForImages(t.TempDir()), func(content.Store) {}); err != nil {
		t.Fatal(err)
	}
	if after := names(); !slices.Equal(before, after) {
		t.Errorf("there were %v, there are %v", before, after)
	}
	failed := errors.New("theirs")
	wrapped := initAround(func(*plugin.InitContext) (any, error) { return nil, failed }, func(any) (any, error) { return 1, nil })
	if _, err := wrapped(nil); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}
