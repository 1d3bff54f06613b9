package manifests

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/kube/apply"
)

const (
	// settle is how long nothing must have changed before the directory is read,
	// and settleAtMost how long that may be put off.
	settle       = 200 * time.Millisecond
	settleAtMost = 2 * time.Second
	// What could not be applied is retried, less and less often.
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
)

// DirectoryConfig is the configuration of a Directory.
type DirectoryConfig struct {
	Client *kube.Client
	Dir    string
	Server string // this node's name: what it owns of the cluster it owns by that
}

// Directory is the component that applies the manifests in a user's directory. It is ready
// when it watches; a broken file concerns only itself.
type Directory struct {
	config DirectoryConfig
	ready  atomic.Bool
	note   atomic.Pointer[string]
}

// NewDirectory makes the component.
func NewDirectory(c DirectoryConfig) *Directory { return &Directory{config: c} }

// Name implements component.Component.
func (*Directory) Name() string { return "manifests-directory" }

// Ready implements component.Component.
func (d *Directory) Ready(context.Context) error {
	if !d.ready.Load() {
		return fmt.Errorf("reading %s", d.config.Dir)
	}
	return nil
}

// Note implements component.Noter.
func (d *Directory) Note() string {
	if note := d.note.Load(); note != nil {
		return *note
	}
	return ""
}

// Run implements component.Component. It keeps nothing from an earlier run: another server
// may have led since.
func (d *Directory) Run(ctx context.Context) error {
	a := &applier{server: d.config.Server, connect: func() (*session, error) { return connect(d.config.Client) }}
	var seen *scan
	defer func() { seen.close() }()
	var retry time.Duration
	for ctx.Err() == nil {
		next, err := scanDirectory(d.config.Dir)
		seen.close()
		seen = next
		d.ready.Store(true)
		if err == nil {
			err = a.sync(ctx, next)
		}
		o := a.outcome()
		d.setNote(o.note, seen, err)
		if retry = min(max(2*retry, retryFirst), retryLast); err == nil && !o.again {
			retry = 0
		}
		if d.wait(ctx, seen, retry, o.kinds) {
			retry = 0
		}
	}
	return nil
}

// setNote sets the note.
func (d *Directory) setNote(note string, seen *scan, err error) {
	if err != nil {
		note = flat(err) + "; " + note
	}
	if seen != nil && seen.unwatched != nil {
		note = "changes take effect within half a minute only: " + flat(seen.unwatched) + "; " + note
	}
	note = strings.TrimSuffix(note, "; ")
	d.note.Store(&note)
}

// wait returns when it is time for another scan: something has changed, which it
// reports, or retry is over, if that is not 0.
func (d *Directory) wait(ctx context.Context, seen *scan, retry time.Duration, kinds bool) (changed bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var events chan fsnotify.Event
	var errs chan error
	if seen != nil && seen.watcher != nil {
		events, errs = seen.watcher.Events, seen.watcher.Errors
	}
	if seen == nil || seen.unwatched != nil {
		// The directory is read at intervals then, and the note shows that.
		if retry == 0 {
			retry = retryLast
		}
	}
	var again, settled, atMost <-chan time.Time
	if retry > 0 {
		again = time.After(retry)
	}
	var newKinds <-chan struct{}
	if kinds {
		newKinds = d.watchKinds(ctx)
	}
	for {
		select {
		case <-events:
		case err := <-errs:
			slog.Debug("The watch of the manifests missed something", "err", err)
		case <-newKinds:
			return true
		case <-again:
			return false
		case <-settled:
			return true
		case <-atMost:
			return true
		case <-ctx.Done():
			return false
		}
		again, settled = nil, time.After(settle)
		if atMost == nil {
			atMost = time.After(settleAtMost)
		}
	}
}

// watchKinds reports when a CustomResourceDefinition changes, since that may define a kind
// that a file waits for. It watches only while one does.
func (d *Directory) watchKinds(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{})
	go func() {
		cfg, err := d.config.Client.Config()
		if err != nil {
			return
		}
		client, err := metadata.NewForConfig(cfg)
		if err != nil {
			return
		}
		crds := client.Resource(schema.GroupVersionResource{Group: apply.GroupCRD, Version: "v1", Resource: "customresourcedefinitions"})
		list, err := crds.List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return // there will be another try in a while
		}
		w, err := crds.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
		if err != nil {
			return
		}
		defer w.Stop()
		select {
		case _, ok := <-w.ResultChan():
			if ok {
				close(changed)
			}
		case <-ctx.Done():
		}
	}()
	return changed
}
