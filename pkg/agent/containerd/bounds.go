package containerd

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"lite.io/lite/pkg/file/unpack"
	"lite.io/lite/pkg/file/unpack/layers"
)

// The plugins that write what others have packed: to the store of contents, and to the
// file systems of images. Whoever pulls, imports or unpacks does it through them.
const (
	theirContent = "io.containerd.content.v1.content"
	theirDiffer  = "io.containerd.differ.v1.walking"
	// metadata is the one that knows which contents are whose; it is found on the way.
	metadata = "io.containerd.metadata.v1.bolt"
)

// boundPlugins puts bounds around the plugins that unpack. They keep their names, which
// drop-ins and directories use. A process can do that once, before it creates containerd.
func boundPlugins(disk unpack.Disk, found func(content.Store)) error {
	around := map[string]func(any) (any, error){
		theirContent: func(theirs any) (any, error) {
			s, ok := theirs.(content.Store)
			if !ok {
				return nil, fmt.Errorf("%s stores nothing", theirContent)
			}
			return layers.Store(s, disk), nil
		},
		theirDiffer: func(theirs any) (any, error) {
			d, ok := theirs.(differ)
			if !ok {
				return nil, fmt.Errorf("%s unpacks nothing", theirDiffer)
			}
			return bounded{d, layers.Applier(d, disk)}, nil
		},
		metadata: func(theirs any) (any, error) {
			m, ok := theirs.(interface{ ContentStore() content.Store })
			if !ok {
				return nil, fmt.Errorf("%s has no content store", metadata)
			}
			found(m.ContentStore())
			return theirs, nil
		},
	}
	all := registry.Graph(nil)
	registry.Reset()
	for _, r := range all {
		if bound, ok := around[r.URI()]; ok {
			delete(around, r.URI())
			r.InitFn = initAround(r.InitFn, bound)
		}
		registry.Register(&r)
	}
	for uri := range around {
		return fmt.Errorf("this containerd has no plugin %s", uri)
	}
	// Users' own, from drop-ins, are asked before it.
	diff.RegisterProcessor(layers.Processor)
	return nil
}

type initFn = func(*plugin.InitContext) (any, error)

func initAround(theirs initFn, bound func(any) (any, error)) initFn {
	return func(ic *plugin.InitContext) (any, error) {
		p, err := theirs(ic)
		if err != nil {
			return nil, err
		}
		return bound(p)
	}
}

type differ interface {
	diff.Comparer
	diff.Applier
}

type bounded struct {
	diff.Comparer
	diff.Applier
}

// collector removes what nobody holds any more.
type collector interface {
	ScheduleAndWait(context.Context) (gc.Stats, error)
}

// collectorOf finds containerd's.
func collectorOf(ic *plugin.InitContext) (collector, error) {
	p, err := ic.GetSingle(plugins.GCPlugin)
	if err != nil {
		return nil, err
	}
	c, ok := p.(collector)
	if !ok {
		return nil, fmt.Errorf("%T collects nothing", p)
	}
	return c, nil
}
