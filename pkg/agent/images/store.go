package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	ctrarchive "github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"

	"lite.io/lite/pkg/file/unpack"
	"lite.io/lite/pkg/layout"
)

// ErrNotRunning is that no containerd answers at the socket.
var ErrNotRunning = errors.New("lite is not running on this machine")

// Store is the images of a running node, and the directory of archives from which
// it gets them back at each start.
type Store struct {
	client *client.Client
	dir    string
}

// Open connects to the containerd of a running node.
func Open(ctx context.Context, socket, dir string) (*Store, error) {
	// containerd's client would wait for a server that is not there.
	connection, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, errors.New("only root may use the container runtime of this node; run it as root")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNotRunning
	case err != nil:
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	connection.Close()
	c, err := connect(socket, nil)
	if err != nil {
		return nil, err
	}
	return &Store{client: c, dir: dir}, nil
}

// Close ends the connection.
func (s *Store) Close() error { return s.client.Close() }

// Image is an image of the node as people see it.
type Image struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Size   int64  `json:"size"` // of its compressed layers, in bytes
	Pinned bool   `json:"pinned"`
	// Source is the archive that it came from, "lite" for what is built in, and
	// "pulled" for all others.
	Source string `json:"source"`
}

// List returns the images of the node, sorted by name.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	named, err := s.named(ctx)
	if err != nil {
		return nil, err
	}
	archives, err := listArchives(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	list := []Image{}
	for _, i := range named {
		image := Image{Name: i.Name, Pinned: i.Labels[pinLabel] == pinned, Source: source(i, archives)}
		// Of an image that is being pulled or removed there may be less.
		if config, err := i.Config(ctx, s.client.ContentStore(), platforms.Default()); err == nil {
			image.ID = config.Digest.String()
		}
		if size, err := client.NewImage(s.client, i).Size(ctx); err == nil {
			image.Size = size
		}
		list = append(list, image)
	}
	return list, nil
}

func source(i images.Image, archives []archive) string {
	switch mark := from(i); {
	case mark == "" || i.Labels[layout.ImportedAsLabel] != identity(i):
		return "pulled"
	case builtIn(i.Name):
		return "lite"
	default:
		if n := slices.IndexFunc(archives, func(a archive) bool { return a.mark == mark }); n >= 0 {
			return archives[n].name
		}
		name, _ := parseMark(mark)
		return name
	}
}

// builtIn reports whether an image comes with lite. Pods can't start without it.
func builtIn(name string) bool { return strings.HasPrefix(name, layout.BuiltInImages) }

// named is the images with a name. containerd's CRI plugin also adds each image under its
// ID and under the digest with which it was pulled.
func (s *Store) named(ctx context.Context) ([]images.Image, error) {
	all, err := s.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	tagged := map[string]bool{}
	for _, i := range all {
		if isTagged(i.Name) {
			tagged[i.Target.Digest.String()] = true
		}
	}
	all = slices.DeleteFunc(all, func(i images.Image) bool {
		return isID(i.Name) || !isTagged(i.Name) && tagged[i.Target.Digest.String()]
	})
	slices.SortFunc(all, func(a, b images.Image) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func isID(name string) bool     { return strings.HasPrefix(name, "sha256:") }
func isTagged(name string) bool { return !isID(name) && !strings.Contains(name, "@") }

// Find returns the images that a person has named, in short or in full. The error
// lists similar images.
func (s *Store) Find(ctx context.Context, names []string) ([]images.Image, error) {
	all, err := s.named(ctx)
	if err != nil {
		return nil, err
	}
	var (
		found []images.Image
		errs  []error
	)
	for _, name := range names {
		full, err := FullName(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("image name %q: %w; use a name such as docker.io/library/busybox:1.37", name, err))
			continue
		}
		n := slices.IndexFunc(all, func(i images.Image) bool { return i.Name == full })
		if n < 0 {
			errs = append(errs, notHere(name, full, all))
			continue
		}
		if !slices.ContainsFunc(found, func(i images.Image) bool { return i.Name == full }) {
			found = append(found, all[n])
		}
	}
	return found, errors.Join(errs...)
}

// notHere is the error that an image is not on the node, with similar ones that are.
func notHere(name, full string, all []images.Image) error {
	var similar []string
	for _, i := range all {
		if alike(full, i.Name) && len(similar) < 5 {
			similar = append(similar, i.Name)
		}
	}
	if full != name {
		name += " (" + full + ")"
	}
	if len(similar) == 0 {
		return fmt.Errorf(
			"image %s is not on this node; `lite images list` shows those that are, `lite crictl pull` pulls one from a registry", name)
	}
	return fmt.Errorf("image %s is not on this node; similar names are: %s", name, strings.Join(similar, ", "))
}

// alike reports whether one name may be meant by another: the last parts of their
// paths have a beginning in common, or one contains the other.
func alike(asked, have string) bool {
	a, b := lastPart(asked), lastPart(have)
	return strings.Contains(a, b) || strings.Contains(b, a) || len(a) > 3 && len(b) > 3 && a[:4] == b[:4]
}

// lastPart is busybox of docker.io/library/busybox:1.
func lastPart(name string) string {
	name, _, _ = strings.Cut(path.Base(name), "@")
	name, _, _ = strings.Cut(name, ":")
	return name
}

// Export writes images as one archive, an OCI layout that docker can read too. Of
// an image for several platforms it has this machine's.
func (s *Store) Export(ctx context.Context, w io.Writer, found []images.Image) error {
	return s.client.Export(ctx, w,
		ctrarchive.WithPlatform(platforms.Default()),
		ctrarchive.WithSkipMissing(s.client.ContentStore()),
		ctrarchive.WithImages(found))
}

// Imported is what an import has done.
type Imported struct {
	Images   []string // by name
	Archive  string   // the name of the archive in the directory
	Kept     bool     // the archive was there already
	Replaced []string // older archives that have nothing of their own any more and were removed
}

// Progress gets how far an import is: a word for the step, the bytes done, and all bytes,
// or 0 if that is unknown.
type Progress func(doing string, done, of int64)

// Import imports the images of an archive: it copies the archive into the directory, checks
// it on the way, then imports and pins its images. name is the name of the archive's file,
// size its bytes, or 0 if unknown. If it is killed, it leaves no incomplete file: the copy
// has no name before its images exist.
func (s *Store) Import(ctx context.Context, from io.Reader, name string, size int64, progress Progress) (Imported, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return Imported{}, fmt.Errorf("create the image directory: %w", err)
	}
	disk := unpack.ForImages(s.dir)
	if err := disk.Enough("the copy of the archive", size); err != nil {
		return Imported{}, err
	}
	copied, err := copyIn(s.dir, from, func(n int64) { progress("copying", n, size) })
	if err != nil {
		return Imported{}, roomy(s.dir, err)
	}
	defer copied.Close()
	done := Imported{Images: copied.Images}
	had, err := s.having(ctx, copied.Images)
	if err != nil {
		return done, err
	}
	if len(had) < len(copied.Images) { // what is stored twice: the layers, and their files
		if err := disk.Enough("to import and unpack it", 2*copied.Content.Size); err != nil {
			return done, err
		}
	}
	before, err := fromArchives(ctx, s.client)
	if err != nil {
		return done, err
	}
	reader, err := copied.reader(func(n int64) { progress("importing", n, copied.length) })
	if err != nil {
		return done, err
	}
	found, err := bring(ctx, s.client, "", reader, func(string) {})
	if err != nil {
		return done, roomy(s.dir, fmt.Errorf("import: %w", err))
	}
	var mark string
	if done.Archive, mark, done.Kept, err = copied.keep(s.dir, name, time.Now()); err != nil {
		return done, err
	}
	if err := pin(ctx, s.client, found, mark); err != nil {
		return done, err
	}
	done.Replaced, err = removeReplaced(s.dir, before, copied.Images, done.Archive)
	return done, err
}

// having is those of some images that are on the node.
func (s *Store) having(ctx context.Context, names []string) ([]images.Image, error) {
	all, err := s.named(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(i images.Image) bool { return !slices.Contains(names, i.Name) }), nil
}

// removeReplaced removes archives of earlier imports, all of whose images another
// archive has now. An archive that a person has put there is theirs to remove.
func removeReplaced(dir string, before []images.Image, now []string, keep string) (removed []string, err error) {
	archives, err := listArchives(dir)
	if err != nil {
		return nil, err
	}
	for _, a := range archives {
		if a.name == keep || !ownName.MatchString(a.name) || !covered(a.mark, before, now) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, a.name)); err != nil {
			return removed, err
		}
		removed = append(removed, a.name)
	}
	return removed, nil
}

// covered reports whether all images of an archive are among those of another.
func covered(mark string, labelled []images.Image, now []string) bool {
	known, count := 0, ""
	for _, i := range labelled {
		for _, source := range sources(i) {
			if m, n, _ := strings.Cut(source, "/"); m == mark {
				if !slices.Contains(now, i.Name) {
					return false
				}
				known, count = known+1, n
			}
		}
	}
	return known > 0 && fmt.Sprint(known) == count
}

// Remove removes images from the node, and the archives that would bring them
// back. It refuses to remove half of an archive, and what a container is made
// from unless it is forced to.
func (s *Store) Remove(ctx context.Context, names []string, force bool) (archives []string, err error) {
	found, err := s.Find(ctx, names)
	if err != nil {
		return nil, err
	}
	for _, i := range found {
		if builtIn(i.Name) {
			return nil, fmt.Errorf("image %s is part of lite: no pod starts without it", i.Name)
		}
	}
	if !force {
		if err := s.unused(ctx, found); err != nil {
			return nil, err
		}
	}
	if archives, err = s.archivesOf(ctx, found); err != nil {
		return nil, err
	}
	// First: an image that is gone would be brought back.
	for _, name := range archives {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for _, i := range found {
		if err := removeImage(ctx, s.client, i); err != nil {
			return archives, err
		}
	}
	return archives, nil
}

// archivesOf is the archives that have images. It is an error if one of these has
// others as well.
func (s *Store) archivesOf(ctx context.Context, found []images.Image) (names []string, err error) {
	archives, err := listArchives(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	labelled, err := fromArchives(ctx, s.client)
	if err != nil {
		return nil, err
	}
	for _, a := range archives {
		var wanted, others []string
		for _, i := range labelled {
			has := slices.ContainsFunc(sources(i), func(source string) bool { return strings.HasPrefix(source, a.mark+"/") })
			named := slices.ContainsFunc(found, func(f images.Image) bool { return f.Name == i.Name })
			switch {
			case has && named:
				wanted = append(wanted, i.Name)
			case has:
				others = append(others, i.Name)
			}
		}
		if len(wanted) > 0 && len(others) > 0 {
			return nil, fmt.Errorf("the archive %s, which contains %s, also contains %s; pass these too, or replace the archive with one without them",
				filepath.Join(s.dir, a.name), strings.Join(wanted, ", "), strings.Join(others, ", "))
		}
		if len(wanted) > 0 {
			names = append(names, a.name)
		}
	}
	return names, nil
}

// unused is an error if there are containers of an image.
func (s *Store) unused(ctx context.Context, found []images.Image) error {
	containers, err := s.client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, i := range found {
		id := ""
		if config, err := i.Config(ctx, s.client.ContentStore(), platforms.Default()); err == nil {
			id = config.Digest.String()
		}
		n := 0
		for _, c := range containers {
			if c.Image == i.Name || id != "" && c.Image == id {
				n++
			}
		}
		if n > 0 {
			return fmt.Errorf("image %s has %d containers on this node; delete their pods first, or use --force: they keep running, but cannot restart", i.Name, n)
		}
	}
	return nil
}

// removeImage removes a name of an image, and the image when that was its last.
func removeImage(ctx context.Context, c *client.Client, i images.Image) error {
	service := c.ImageService()
	if err := service.Delete(ctx, i.Name, images.SynchronousDelete()); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove image %s: %w", i.Name, err)
	}
	all, err := service.List(ctx, "target.digest=="+i.Target.Digest.String())
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	if slices.ContainsFunc(all, func(other images.Image) bool { return isTagged(other.Name) }) {
		return nil
	}
	for _, other := range all { // its ID and its digest
		if err := service.Delete(ctx, other.Name, images.SynchronousDelete()); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %s: %w", other.Name, err)
		}
	}
	return nil
}
