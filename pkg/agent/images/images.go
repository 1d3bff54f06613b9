// Package images brings image archives from a directory into containerd, so
// that a node needs no registry: at start, and when an archive appears. What
// comes from an archive is pinned: the kubelet's garbage collection, which
// could not get it back, leaves it alone.
package images

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"
	"github.com/fsnotify/fsnotify"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lite.io/lite/pkg/file/unpack"
	"lite.io/lite/pkg/layout"
)

const (
	// namespace is where the kubelet's images are.
	namespace = "k8s.io"

	// settle is how long an archive must not have changed before it is read:
	// long enough for the writes of a copy to follow one another.
	settle = 2 * time.Second

	// pinLabel is containerd's mark for an image the kubelet may not collect.
	pinLabel = "io.cri-containerd.pinned"
	pinned   = "pinned"
)

// suffixes are the names of archives, docker-archive or OCI layout, plain or
// compressed.
var suffixes = []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"}

// Importer is the component.
type Importer struct {
	name   string
	socket string               // containerd's
	of     func() content.Store // its contents, which are in this process
	dir    string
	watch  bool
	ready  atomic.Bool
	failed atomic.Pointer[[]string] // archives that could not be imported, by their file names
}

// BuiltIn imports the archives that come with lite. It is ready when they are in:
// no pod starts without the sandbox image.
func BuiltIn(socket string, contents func() content.Store, dir string) *Importer {
	return &Importer{name: "sandbox-image", socket: socket, of: contents, dir: dir}
}

// Directory imports the user's archives, which can be large, and then watches for more; it
// creates the directory if necessary. It is ready when it watches. The log shows an archive
// that cannot be read, which holds up neither the others nor the node.
func Directory(socket string, contents func() content.Store, dir string) *Importer {
	return &Importer{name: "images", socket: socket, of: contents, dir: dir, watch: true}
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

// Note implements component.Noter: without it a node whose pods wait for an image looks
// as if it had all that it was given.
func (i *Importer) Note() string {
	failed := i.failed.Load()
	if failed == nil {
		return ""
	}
	there := slices.DeleteFunc(slices.Clone(*failed), func(name string) bool {
		_, err := os.Lstat(filepath.Join(i.dir, name))
		return errors.Is(err, fs.ErrNotExist)
	})
	if len(there) == 0 {
		return ""
	}
	return "not imported, the log shows why: " + strings.Join(there, ", ")
}

// Run implements component.Component.
func (i *Importer) Run(ctx context.Context) error {
	c, err := connect(i.socket, i.of())
	if err != nil {
		return err
	}
	ctx = namespaces.WithNamespace(ctx, namespace) // calls of the content store need it
	defer c.Close()
	if i.watch {
		return i.follow(ctx, c)
	}
	return i.guard(ctx, c)
}

// guard imports what is in the directory, and brings back what somebody removes, until
// ctx is done: without the sandbox image no pod starts any more.
func (i *Importer) guard(ctx context.Context, c *client.Client) error {
	for ctx.Err() == nil {
		if err := i.awaitRemoval(ctx, c); err != nil {
			return err
		}
		// Whoever removes one image mostly removes more; and an import that fails undoes
		// what it has brought.
		select {
		case <-time.After(settle):
		case <-ctx.Done():
		}
	}
	return nil
}

// awaitRemoval imports what is missing, which only the first time has to succeed, and
// returns when an image was removed, or when that would not be heard any more.
func (i *Importer) awaitRemoval(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Heard before it is listed, so that nothing falls between.
	removed, broken := c.Subscribe(ctx, fmt.Sprintf(`topic=="/images/delete",namespace==%q`, namespace))
	if i.ready.Load() {
		i.importAll(ctx, c)
	} else if err := i.importDir(ctx, c); err != nil {
		return err
	}
	i.ready.Store(true)
	select {
	case <-removed:
	case <-broken:
	case <-ctx.Done():
	}
	return nil
}

// follow imports what is in the directory and what appears there until ctx is
// done.
func (i *Importer) follow(ctx context.Context, c *client.Client) error {
	if err := os.MkdirAll(i.dir, 0o700); err != nil {
		return fmt.Errorf("create the image directory: %w", err)
	}
	// Watched before it is listed, so that nothing falls between.
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", i.dir, err)
	}
	defer watcher.Close()
	// Changes after a replacement of the directory would otherwise go unnoticed.
	for _, dir := range []string{filepath.Dir(i.dir), i.dir} {
		if err := watcher.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
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
			another := e.Name == i.dir && e.Has(fsnotify.Create)
			if another {
				if err := watcher.Add(i.dir); err != nil {
					slog.Warn("The image directory was replaced and cannot be watched", "dir", i.dir, "err", err)
				}
			}
			if another || (IsArchive(e.Name) || isOdd(e.Name)) && !e.Has(fsnotify.Remove) {
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
		slog.Warn("Cannot import some images", "err", err)
	}
}

// importDir imports new archives, the oldest first: of two with an image of the same name,
// the newer one counts.
func (i *Importer) importDir(ctx context.Context, c *client.Client) error {
	archives, err := listArchives(i.dir)
	if err != nil {
		return err
	}
	done, err := imported(ctx, c)
	if err != nil {
		return err
	}
	errs := []error{repin(ctx, c, archives)}
	var failed []string
	if i.watch {
		for _, odd := range listOdd(i.dir) {
			errs = append(errs, fmt.Errorf("import %s: %w", filepath.Join(i.dir, odd.name), odd.why))
			failed = append(failed, odd.name)
		}
	}
	defer func() { i.failed.Store(&failed) }()
	for _, a := range archives {
		if done[a.mark] {
			continue
		}
		if err := i.importOne(ctx, c, a); err != nil {
			errs = append(errs, err)
			failed = append(failed, a.name)
			continue
		}
		// A newer archive may have lost an image to this one.
		if done, err = imported(ctx, c); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(errs...)
}

// importOne imports an archive and logs it, if it is the user's.
func (i *Importer) importOne(ctx context.Context, c *client.Client, a archive) error {
	path := filepath.Join(i.dir, a.name)
	if !i.watch {
		if _, err := importFile(ctx, c, layout.BuiltInLease, path, a.mark, &work{}); err != nil {
			return fmt.Errorf("import %s: %w", path, err)
		}
		return nil
	}
	began := time.Now()
	slog.Info("Importing images", "from", a.name, "size", Bytes(a.size))
	w := &work{size: a.size}
	done := w.report(reportEvery, func(doing string) {
		slog.Info("Still importing images", "from", a.name, "doing", doing, "for", time.Since(began).Round(time.Second))
	})
	names, err := importFile(ctx, c, "", path, a.mark, w)
	done()
	if err != nil {
		return fmt.Errorf("import %s: %w", path, roomy(i.dir, err))
	}
	slog.Info("Imported images", "from", a.name, "images", strings.Join(names, ", "), "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// archive is an archive in a directory.
type archive struct {
	name string
	mark string
	time int64
	size int64
}

// listArchives is the archives of a directory, the oldest first.
func listArchives(dir string) ([]archive, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var all []archive
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil || !info.Mode().IsRegular() || !IsArchive(e.Name()) {
			continue
		}
		all = append(all, archive{e.Name(), markOf(e.Name(), info), info.ModTime().UnixNano(), info.Size()})
	}
	slices.SortStableFunc(all, func(a, b archive) int { return cmp.Compare(a.time, b.time) })
	return all, nil
}

// odd is a file that somebody seems to have put into the directory as an archive, and
// that is never imported.
type odd struct {
	name string
	why  error
}

// oddSuffixes are how archives end that no part of lite reads, and what archives are
// called that were not named to the end.
var oddSuffixes = []string{
	".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".lzma", ".tlz", ".lz", ".lz4", ".lzo", ".br", ".z", ".zip", ".7z", ".rar", ".oci", ".gz",
	".zst", ".zstd",
}

// isOdd reports whether a file of this name looks like an archive and is not imported.
func isOdd(name string) bool {
	name = filepath.Base(name)
	if IsArchive(name) || strings.HasPrefix(name, ".") {
		return false
	}
	lower := strings.ToLower(name)
	return IsArchive(lower) || slices.ContainsFunc(oddSuffixes, func(s string) bool { return strings.HasSuffix(lower, s) })
}

// listOdd is what is left out in a directory and perhaps should not be.
func listOdd(dir string) (all []odd) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // it was listed a moment ago
	}
	for _, e := range entries {
		name := e.Name()
		info, err := os.Stat(filepath.Join(dir, name))
		switch {
		case IsArchive(name) && errors.Is(err, fs.ErrNotExist) && e.Type()&fs.ModeSymlink != 0:
			all = append(all, odd{name, errors.New("it is a dangling link; put the archive there, or remove the link")})
		case IsArchive(name) && err == nil && info.IsDir():
			all = append(all, odd{name, errors.New("it is a directory; pack it: tar -C DIR -cf layout.tar .")})
		case isOdd(name) && err == nil && info.Mode().IsRegular():
			all = append(all, odd{name, fmt.Errorf("archives must be named NAME%s; unpack or compress it accordingly, or rename it", strings.Join(suffixes, ", NAME"))})
		}
	}
	return all
}

// imported is the marks of the archives whose images are all still there.
func imported(ctx context.Context, c *client.Client) (map[string]bool, error) {
	list, err := fromArchives(ctx, c)
	if err != nil {
		return nil, err
	}
	there := map[string]int{}
	for _, image := range list {
		for _, source := range sources(image) {
			there[source]++
		}
	}
	marks := map[string]bool{}
	for source, n := range there {
		if mark, count, ok := strings.Cut(source, "/"); ok && count == strconv.Itoa(n) {
			marks[mark] = true
		}
	}
	return marks, nil
}

// fromArchives is the images that some archive brought, as it brought them.
func fromArchives(ctx context.Context, c *client.Client) ([]images.Image, error) {
	list, err := c.ImageService().List(ctx, fmt.Sprintf("labels.%q", layout.ImportedFromLabel))
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	return slices.DeleteFunc(list, func(i images.Image) bool { return i.Labels[layout.ImportedAsLabel] != identity(i) }), nil
}

// identity is what makes an image the one that it is.
func identity(i images.Image) string { return i.Name + "@" + i.Target.Digest.String() }

// repin pins again what somebody has unpinned and an archive still has.
func repin(ctx context.Context, c *client.Client, archives []archive) error {
	list, err := fromArchives(ctx, c)
	if err != nil {
		return err
	}
	var errs []error
	for _, image := range list {
		kept := slices.ContainsFunc(archives, func(a archive) bool { return a.mark == from(image) })
		if !kept || image.Labels[pinLabel] == pinned {
			continue
		}
		image.Labels[pinLabel] = pinned
		if _, err := c.ImageService().Update(ctx, image, "labels."+pinLabel); err != nil {
			errs = append(errs, fmt.Errorf("pin %s: %w", image.Name, err))
		}
	}
	return errors.Join(errs...)
}

// importFile imports one archive, makes its images ready to run and pins them.
func importFile(ctx context.Context, c *client.Client, lease, path, mark string, w *work) (names []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	checked := check(&counter{r: f, progress: w.read})
	found, err := bring(ctx, c, lease, checked, w.unpack)
	if refusal := checked.refusal(); err != nil {
		return nil, cmp.Or(refusal, err)
	}
	// Only now, so that an import that was cut short is begun again.
	if err := pin(ctx, c, found, mark); err != nil {
		return nil, err
	}
	for _, image := range found {
		names = append(names, image.Name)
	}
	return names, nil
}

// bring reads an archive into containerd and makes its images ready to run, under a
// lease that begins so. If that fails, the images that had these names before have them
// again, and the room that it took is free when bring returns.
func bring(ctx context.Context, c *client.Client, lease string, archive io.Reader, unpacking func(image string),
) (_ []images.Image, err error) {
	plain, _, err := unpack.Decompress(archive)
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	defer plain.Close()
	had, err := c.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	ctx, release, err := hold(ctx, c, lease)
	if err != nil {
		return nil, err
	}
	defer func() { release(err == nil) }()
	found, err := c.Import(ctx, plain,
		client.WithAllPlatforms(false),
		client.WithSkipMissing(), // layers of other platforms may have been left out
		client.WithImportPlatform(platforms.Default()))
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errors.New("the archive contains no image name: save the image with its name and tag")
	}
	defer func() {
		if err != nil {
			undoImport(context.WithoutCancel(ctx), c, found, had)
		}
	}()
	for _, image := range found {
		if err := checkFound(ctx, c, image); err != nil {
			return nil, err
		}
		unpacking(image.Name)
		if err := client.NewImage(c, image).Unpack(ctx, ""); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", image.Name, err)
		}
	}
	return found, nil
}

// checkFound refuses what is not an image: archives in the directory are not inspected
// before.
func checkFound(ctx context.Context, c *client.Client, image images.Image) error {
	m, err := images.Manifest(ctx, c.ContentStore(), image.Target, platforms.Default())
	if err != nil {
		return fmt.Errorf("read the manifest of %s: %w", image.Name, err)
	}
	return checkKind(image.Name, cmp.Or(m.MediaType, ocispec.MediaTypeImageManifest), m)
}

// undoImport undoes what a failed import has done to images, whose names exist before their
// files. If that fails, it is not an error: what stays is not pinned, so the kubelet
// collects it.
func undoImport(ctx context.Context, c *client.Client, found, had []images.Image) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, i := range found {
		n := slices.IndexFunc(had, func(old images.Image) bool { return old.Name == i.Name })
		if n < 0 {
			_ = removeImage(ctx, c, i)
		} else if i.Target.Digest != had[n].Target.Digest {
			_, _ = c.ImageService().Update(ctx, had[n], "target")
		}
	}
}

// pin pins the images of an archive and labels them with its mark.
func pin(ctx context.Context, c *client.Client, found []images.Image, mark string) error {
	names := map[string]bool{} // an archive may name an image twice
	for _, image := range found {
		names[image.Name] = true
	}
	source := fmt.Sprintf("%s/%d", mark, len(names))
	for _, image := range found {
		before := older(sources(image), mark)
		image.Labels = map[string]string{
			layout.ImportedFromLabel: source, layout.ImportedBeforeLabel: strings.Join(before, " "), layout.ImportedAsLabel: identity(image),
			pinLabel: pinned,
		}
		_, err := c.ImageService().Update(ctx, image, "labels."+layout.ImportedFromLabel, "labels."+layout.ImportedBeforeLabel,
			"labels."+layout.ImportedAsLabel, "labels."+pinLabel)
		if err != nil {
			return fmt.Errorf("label %s: %w", image.Name, err)
		}
	}
	return nil
}

// sources is the archives of an image by its labels, the newest first: the mark of each,
// and how many images it has.
func sources(image images.Image) []string {
	return strings.Fields(image.Labels[layout.ImportedFromLabel] + " " + image.Labels[layout.ImportedBeforeLabel])
}

// from is the mark of the archive that an image came from.
func from(image images.Image) string {
	mark, _, _ := strings.Cut(image.Labels[layout.ImportedFromLabel], "/")
	return mark
}

// older leaves those sources that are older than an archive. A newer one is left
// out: it has to be imported again, since the older one has just taken an image
// of it.
func older(sources []string, mark string) (before []string) {
	name, when := parseMark(mark)
	for _, source := range sources {
		m, _, _ := strings.Cut(source, "/")
		otherName, at := parseMark(m)
		if at <= when && otherName != name && len(before) < maxBefore {
			before = append(before, source)
		}
	}
	return before
}

// maxBefore keeps the label below the size that containerd allows.
const maxBefore = 16

// markOf identifies an archive by what changes when it is replaced. There are no
// spaces and slashes in it, which separate marks from each other and from numbers.
func markOf(name string, info fs.FileInfo) string {
	plain := strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && r != '/' {
			return r
		}
		return '_'
	}, name)
	if plain != name || len(name) > maxMarked { // others may look the same
		sum := sha256.Sum256([]byte(name))
		plain = fmt.Sprintf("%x-%s", sum[:6], plain[max(0, len(plain)-maxMarked):])
	}
	return fmt.Sprintf("%s-%d-%d", plain, info.Size(), info.ModTime().UnixNano())
}

// maxMarked is how much of a file's name is in its mark.
const maxMarked = 100

// parseMark is the name and the time in a mark.
func parseMark(mark string) (name string, when int64) {
	name, tail, _ := cutLast(mark, "-")
	when, _ = strconv.ParseInt(tail, 10, 64)
	name, _, _ = cutLast(name, "-")
	return name, when
}

func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}

// IsArchive reports whether a file of this name in the image directory is imported.
func IsArchive(name string) bool {
	for _, s := range suffixes {
		if strings.HasSuffix(name, s) && !strings.HasPrefix(filepath.Base(name), ".") {
			return true
		}
	}
	return false
}
