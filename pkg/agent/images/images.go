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

// Config is what the importer has to be told.
type Config struct {
	Socket      string // containerd's
	BuiltIn     string // directory of the archives that come with lite
	Dir         string // the user's directory; made if it is not there
	Snapshotter string // "" = the CRI's
}

// Importer is the component. It is ready when the built-in archives are in;
// the user's follow in the background of a start, since they can be large. One
// of them that cannot be read is in the log.
type Importer struct {
	config Config
	ready  atomic.Bool
}

// New makes the component; nothing is touched before Run.
func New(c Config) *Importer { return &Importer{config: c} }

// Name implements component.Component.
func (*Importer) Name() string { return "images" }

// Ready implements component.Component.
func (i *Importer) Ready(context.Context) error {
	if !i.ready.Load() {
		return errors.New("importing the sandbox image")
	}
	return nil
}

// Run implements component.Component.
func (i *Importer) Run(ctx context.Context) error {
	if err := os.MkdirAll(i.config.Dir, 0o700); err != nil {
		return fmt.Errorf("make the image directory: %w", err)
	}
	// Watched before it is listed, so that nothing falls between.
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", i.config.Dir, err)
	}
	defer watcher.Close()
	if err := watcher.Add(i.config.Dir); err != nil {
		return fmt.Errorf("watch %s: %w", i.config.Dir, err)
	}

	c, err := client.New(i.config.Socket, client.WithDefaultNamespace(namespace))
	if err != nil {
		return fmt.Errorf("connect to containerd: %w", err)
	}
	defer c.Close()

	if err := i.importDir(ctx, c, i.config.BuiltIn); err != nil {
		return fmt.Errorf("import the sandbox image: %w", err)
	}
	i.ready.Store(true)
	i.importUser(ctx, c)
	return i.follow(ctx, c, watcher)
}

// follow imports what appears in the directory until ctx is done.
func (i *Importer) follow(ctx context.Context, c *client.Client, watcher *fsnotify.Watcher) error {
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
			i.importUser(ctx, c)
		case <-ctx.Done():
			return nil
		}
	}
}

// importUser imports the user's archives. One that cannot be read is reported
// and keeps neither the others nor the node back.
func (i *Importer) importUser(ctx context.Context, c *client.Client) {
	if err := i.importDir(ctx, c, i.config.Dir); err != nil && ctx.Err() == nil {
		slog.Warn("Some images could not be imported", "err", err)
	}
}

func (i *Importer) importDir(ctx context.Context, c *client.Client, dir string) error {
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
		if dir == i.config.Dir {
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
