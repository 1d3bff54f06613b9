// Package images brings image archives from a directory into containerd, so
// that a node needs no registry: at start, and when an archive appears. What
// comes from an archive is pinned: the kubelet's garbage collection, which
// could not get it back, leaves it alone.
package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/platforms"
	"github.com/fsnotify/fsnotify"
)

const (
	// namespace is where the kubelet's images are.
	namespace = "k8s.io"

	// settle is how long an archive must not have changed before it is read:
	// long enough for the writes of a copy to follow one another.
	settle = 2 * time.Second

	// pinLabel is containerd's mark for an image the kubelet may not collect.
	pinLabel = "io.cri-containerd.pinned"
	// fromLabel remembers which archive an image came from, by name, size and
	// time, and how many images are in it, so that a start does not read
	// gigabytes again.
	fromLabel = "lite.io/imported-from"
)

// suffixes are the names of archives, docker-archive or OCI layout, plain or
// compressed.
var suffixes = []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"}

// Importer is the component.
type Importer struct {
	name   string
	socket string // containerd's
	dir    string
	watch  bool
	ready  atomic.Bool
}

// BuiltIn imports the archives that come with lite. It is ready when they are in:
// no pod starts without the sandbox image.
func BuiltIn(socket, dir string) *Importer {
	return &Importer{name: "sandbox-image", socket: socket, dir: dir}
}

// Directory imports the user's archives, which can be large, and goes on to watch
// for more; the directory is made if it is not there. It is ready when it
// watches. An archive that cannot be read is in the log, and keeps neither the
// others nor the node back.
func Directory(socket, dir string) *Importer {
	return &Importer{name: "images", socket: socket, dir: dir, watch: true}
}

// Name implements component.Component.
func (i *Importer) Name() string { return i.name }

// Ready implements component.Component.
func (i *Importer) Ready(context.Context) error {
	if !i.ready.Load() {
		return fmt.Errorf("importing from %s", i.dir)
	}
	return nil
}

// Run implements component.Component.
func (i *Importer) Run(ctx context.Context) error {
	c, err := client.New(i.socket, client.WithDefaultNamespace(namespace))
	if err != nil {
		return fmt.Errorf("connect to containerd: %w", err)
	}
	defer c.Close()
	if i.watch {
		return i.follow(ctx, c)
	}
	if err := i.importDir(ctx, c); err != nil {
		return err
	}
	i.ready.Store(true)
	<-ctx.Done()
	return nil
}

// follow imports what is in the directory and what appears there until ctx is
// done.
func (i *Importer) follow(ctx context.Context, c *client.Client) error {
	if err := os.MkdirAll(i.dir, 0o700); err != nil {
		return fmt.Errorf("make the image directory: %w", err)
	}
	// Watched before it is listed, so that nothing falls between.
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", i.dir, err)
	}
	defer watcher.Close()
	if err := watcher.Add(i.dir); err != nil {
		return fmt.Errorf("watch %s: %w", i.dir, err)
	}
	i.ready.Store(true)
	i.importAll(ctx, c)

	quiet := time.NewTimer(0)
	quiet.Stop()
	for {
		select {
		case e, ok := <-watcher.Events:
			if !ok {
				return errors.New("the watch of the image directory ended")
			}
			if isArchive(e.Name) && !e.Has(fsnotify.Remove) {
				quiet.Reset(settle)
			}
		case err := <-watcher.Errors:
			slog.Warn("The watch of the image directory missed something", "err", err)
			quiet.Reset(settle)
		case <-quiet.C:
			i.importAll(ctx, c)
		case <-ctx.Done():
			return nil
		}
	}
}

func (i *Importer) importAll(ctx context.Context, c *client.Client) {
	if err := i.importDir(ctx, c); err != nil && ctx.Err() == nil {
		slog.Warn("Some images could not be imported", "err", err)
	}
}

func (i *Importer) importDir(ctx context.Context, c *client.Client) error {
	dir := i.dir
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	done, err := imported(ctx, c)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil || !info.Mode().IsRegular() || !isArchive(e.Name()) {
			continue
		}
		mark := markOf(info)
		if done[mark] {
			continue
		}
		began := time.Now()
		names, err := importFile(ctx, c, filepath.Join(dir, e.Name()), mark)
		if err != nil {
			errs = append(errs, fmt.Errorf("import %s: %w", filepath.Join(dir, e.Name()), err))
			continue
		}
		if i.watch {
			slog.Info("Imported images", "from", e.Name(), "images", strings.Join(names, ", "), "took", time.Since(began).Round(time.Millisecond))
		}
	}
	return errors.Join(errs...)
}

// imported is the marks of the archives whose images are all still there.
func imported(ctx context.Context, c *client.Client) (map[string]bool, error) {
	list, err := c.ImageService().List(ctx, fmt.Sprintf("labels.%q==pinned", pinLabel))
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	there := map[string]int{}
	for _, image := range list {
		there[image.Labels[fromLabel]]++
	}
	marks := map[string]bool{}
	for label, n := range there {
		if mark, count, ok := strings.Cut(label, "/"); ok && count == strconv.Itoa(n) {
			marks[mark] = true
		}
	}
	return marks, nil
}

// importFile imports one archive and makes its images ready to run.
func importFile(ctx context.Context, c *client.Client, path, mark string) (names []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plain, err := compression.DecompressStream(f)
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	defer plain.Close()

	found, err := c.Import(ctx, plain,
		client.WithAllPlatforms(false),
		client.WithSkipMissing(), // layers of other platforms may have been left out
		client.WithImportPlatform(platforms.Default()),
		client.WithImageLabels(map[string]string{pinLabel: "pinned"}))
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errors.New("the archive names no image: save it with its name and tag")
	}
	for _, image := range found {
		if err := client.NewImage(c, image).Unpack(ctx, ""); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", image.Name, err)
		}
		names = append(names, image.Name)
	}
	// Only now, so that an import that was cut short is begun again.
	mark = fmt.Sprintf("%s/%d", mark, len(found))
	for _, image := range found {
		if err := label(ctx, c, image, mark); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func label(ctx context.Context, c *client.Client, image images.Image, mark string) error {
	image.Labels = map[string]string{fromLabel: mark, pinLabel: "pinned"}
	if _, err := c.ImageService().Update(ctx, image, "labels."+fromLabel, "labels."+pinLabel); err != nil {
		return fmt.Errorf("label %s: %w", image.Name, err)
	}
	return nil
}

// markOf identifies an archive by what changes when it is replaced. The time
// has no characters that a label value may not hold.
func markOf(info fs.FileInfo) string {
	return fmt.Sprintf("%s-%d-%d", info.Name(), info.Size(), info.ModTime().UnixNano())
}

func isArchive(name string) bool {
	for _, s := range suffixes {
		if strings.HasSuffix(name, s) && !strings.HasPrefix(filepath.Base(name), ".") {
			return true
		}
	}
	return false
}
