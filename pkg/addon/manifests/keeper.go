package manifests

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	files "lite.io/lite/pkg/file"
	"lite.io/lite/pkg/kube/apply"
)

// keeper makes the cluster have what the files say. It knows each file and what
// that owns, and objects only until they are applied.
type keeper struct {
	server  string
	connect func() (*session, error)
	session *session         // nil while there is nothing to do
	files   map[string]*file // by path; nil until the records have been read
	claims  map[key]*file    // which file an object belongs to, of those that name it
	begun   bool             // all files have been read once
}

// file is one file, perhaps one that is gone.
type file struct {
	path    string
	present bool
	skipped bool
	stamp   files.Stamp // of what was read
	unread  bool        // has to be read, whatever the stamp
	broken  error       // why it cannot be used
	record  *record
	wants   map[key]bool // the objects it has, as far as they could be located; nil if it is not known
	left    []*pending   // those that are still to be applied
	news    news
}

// pending is an object that is to be applied.
type pending struct {
	object
	key     key
	at      dynamic.ResourceInterface // nil until it is located
	located bool                      // has been, in whatever pass
	twice   bool                      // one before it in the file is the same
	applied bool
	err     error // why it could not be applied
}

// keep brings the cluster up to what a look has found. Errors that concern a
// file are in the outcome.
func (k *keeper) keep(ctx context.Context, l *look) error {
	defer func() { k.session = nil }()
	if k.files == nil {
		if err := k.recall(ctx); err != nil {
			return err
		}
	}
	k.compare(l)
	if !slices.ContainsFunc(k.sorted(), (*file).work) {
		return nil
	}
	if k.session == nil {
		var err error
		if k.session, err = k.connect(); err != nil {
			return err
		}
	}
	if err := k.apply(ctx); err != nil {
		return err
	}
	if err := k.prune(ctx); err != nil {
		return err
	}
	return k.tell(ctx)
}

// recall learns what the files owned before.
func (k *keeper) recall(ctx context.Context) (err error) {
	if k.session, err = k.connect(); err != nil {
		return err
	}
	records, err := k.session.records(ctx)
	if err != nil {
		return err
	}
	k.files = map[string]*file{}
	for _, r := range records {
		k.files[r.file] = &file{path: r.file, record: r, unread: true}
	}
	return nil
}

func (k *keeper) sorted() []*file {
	var all []*file
	for _, f := range k.files {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *file) int { return strings.Compare(a.path, b.path) })
	return all
}

// compare takes up what has changed on the disk.
func (k *keeper) compare(l *look) {
	for name := range l.files {
		k.file(name)
	}
	for name := range l.failed {
		k.file(name)
	}
	for name, f := range k.files {
		found, there := l.files[name]
		failed := covering(l.failed, name)
		switch {
		case covering(l.skipped, name) != "":
			f.set(nil)
			f.skipped, f.unread = true, true
		case failed == name:
			f.set(l.failed[name])
			f.unread = true
		case failed != "":
			f.set(nil) // the directory is told of
			f.unread = true
		case there:
			if f.unread || f.stamp != found.stamp {
				f.read(found)
			}
		case f.record.server != k.server && len(f.record.objects) > 0:
			f.set(nil) // another server's, which may have it still
			f.present = false
		default:
			f.set(nil)
			f.present, f.wants = false, map[key]bool{}
		}
		f.news.late = k.begun
	}
	k.begun = true
}

// file returns the file of a path, which may be new.
func (k *keeper) file(name string) *file {
	f := k.files[name]
	if f == nil {
		f = &file{path: name, unread: true, record: &record{file: name, server: k.server, objects: map[key]owned{}}}
		k.files[name] = f
	}
	return f
}

// covering returns the path itself or the directory above it that is in the set,
// "" if none is.
func covering[V any](set map[string]V, name string) string {
	for ; name != "."; name = path.Dir(name) {
		if _, ok := set[name]; ok {
			return name
		}
	}
	return ""
}

// set makes the file one of which nothing is known but why.
func (f *file) set(broken error) {
	f.present, f.skipped, f.broken, f.wants, f.left = true, false, broken, nil, nil
}

// read reads the file. If it cannot be used, what it had stays as it is.
func (f *file) read(found found) {
	data, is, err := found.read()
	f.set(err)
	f.stamp = is
	// There is no event when a program closes it, or a disk works again.
	var failure *fs.PathError
	f.unread = errors.Is(err, errBusy) || errors.As(err, &failure)
	f.news.changed()
	if err != nil {
		return
	}
	objects, err := decode(data)
	if err != nil {
		f.broken = err
		return
	}
	f.wants = map[key]bool{}
	for _, o := range objects {
		f.left = append(f.left, &pending{object: o})
	}
}

// foreign reports whether the file is gone, and was another server's.
func (f *file) foreign() bool { return !f.present && f.wants == nil }

// work reports whether there is anything to do for the file.
func (f *file) work() bool {
	return len(f.left) > 0 || len(f.surplus()) > 0 || !f.present && !f.foreign() || f.news.untold(f)
}

// apply applies what is left of all files: what others may need comes first.
func (k *keeper) apply(ctx context.Context) error {
	for _, f := range k.files {
		for _, p := range f.left {
			p.at, p.err = nil, nil
		}
		if err := k.locate(f); err != nil {
			return err
		}
	}
	k.claim()
	for _, f := range k.sorted() {
		definitions := slices.DeleteFunc(slices.Clone(f.left), func(p *pending) bool { return !p.needed() || p.key.group == "" })
		if err := k.bring(ctx, f, (*pending).needed); err != nil {
			return err
		}
		for _, p := range definitions {
			if p.at != nil && p.err == nil {
				apply.Established(ctx, p.at, p.key.name)
			}
		}
	}
	for _, f := range k.sorted() {
		if err := k.locate(f); err != nil { // some kinds may be new
			return err
		}
	}
	k.claim()
	for _, f := range k.sorted() {
		if err := k.bring(ctx, f, func(p *pending) bool { return !p.needed() }); err != nil {
			return err
		}
	}
	return nil
}

// needed reports whether other objects may need those of a kind.
func needed(group, kind string) bool {
	return group == "" && kind == "Namespace" || group == apply.GroupCRD && kind == "CustomResourceDefinition"
}

func (p *pending) needed() bool {
	kind := p.GroupVersionKind()
	return needed(kind.Group, kind.Kind)
}

// locate finds out where the objects are that are left.
func (k *keeper) locate(f *file) error {
	for _, p := range f.left {
		if p.at != nil {
			continue
		}
		p.key, p.at, p.err = k.session.locate(p.object)
		if apply.Absent(p.err) {
			return p.err
		}
		if p.err == nil {
			p.twice = p.twice || !p.located && f.wants[p.key]
			p.located = true
			f.wants[p.key] = true
		}
	}
	return nil
}

// claim decides which file each object belongs to. Who has it keeps it, also
// while it cannot be read; otherwise it is the first by name.
func (k *keeper) claim() {
	k.claims = map[key]*file{}
	for _, f := range k.sorted() {
		for o := range f.record.objects {
			if k.claims[o] == nil && (f.wants == nil || f.wants[o]) {
				k.claims[o] = f
			}
		}
	}
	for _, f := range k.sorted() {
		for o := range f.wants {
			if k.claims[o] == nil {
				k.claims[o] = f
			}
		}
	}
}

// bring applies some of the objects that are left of a file. The record has them
// before the cluster does.
func (k *keeper) bring(ctx context.Context, f *file, which func(*pending) bool) error {
	var now []*pending
	defer func() { f.left = slices.DeleteFunc(f.left, func(p *pending) bool { return p.applied }) }()
	for _, p := range f.left {
		switch {
		case !which(p) || p.at == nil:
			continue
		case k.claims[p.key] != f:
			p.err = errors.New("is also in " + k.claims[p.key].path + ", which owns it: remove one of the two")
		case p.twice:
			p.err = errors.New("is in the file twice: remove one of the two")
		default:
			if p.err = k.note(ctx, f, p); p.err == nil {
				now = append(now, p)
			}
		}
		if apply.Absent(p.err) {
			return p.err
		}
	}
	if len(now) == 0 {
		return nil
	}
	f.record.server = k.server
	if err := k.session.save(ctx, f.record); err != nil {
		for _, p := range now {
			p.err = err
		}
		return ifAbsent(err)
	}
	for _, p := range now {
		uid, err := p.apply(ctx, ownerOf(f.path))
		if p.err = k.session.Blame(err); apply.Absent(p.err) {
			return p.err
		}
		if p.err == nil {
			p.applied = true
			f.news.applied++
			f.record.objects[p.key] = owned{p.GroupVersionKind().Version, f.record.objects[p.key].adopted, uid}
		}
	}
	return nil
}

func ifAbsent(err error) error {
	if apply.Absent(err) {
		return err
	}
	return nil
}

// note puts an object into the file's record. One that is there already is
// adopted, unless it came with another file, as when it was moved.
func (k *keeper) note(ctx context.Context, f *file, p *pending) error {
	if _, ok := f.record.objects[p.key]; ok {
		return nil
	}
	live, err := p.at.Get(ctx, p.key.name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	adopted := err == nil
	if adopted && live.GetDeletionTimestamp() != nil {
		return errDeleting
	}
	for _, other := range k.files {
		if known, ok := other.record.objects[p.key]; ok && adopted {
			adopted = known.adopted
			break
		}
	}
	f.record.objects[p.key] = owned{version: p.GroupVersionKind().Version, adopted: adopted}
	f.news.owns = true
	return nil
}

// surplus is what the file owns and has no more, in the order in which it can go:
// namespaces and definitions last. It is empty while that is not certain: as long
// as anything of the file is not applied, nothing is removed.
func (f *file) surplus() []key {
	if f.wants == nil || len(f.left) > 0 {
		return nil
	}
	var all []key
	for o := range f.record.objects {
		if !f.wants[o] {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b key) int {
		switch last := needed(a.group, a.kind); {
		case last == needed(b.group, b.kind):
			return strings.Compare(a.String(), b.String())
		case last:
			return 1
		}
		return -1
	})
	return all
}

// prune removes what files own and have no more, and the records of those that
// are gone.
func (k *keeper) prune(ctx context.Context) error {
	for _, f := range k.sorted() {
		f.news.stuck = nil
		if err := k.disown(ctx, f); err != nil {
			return err
		}
		for _, o := range f.surplus() {
			err := k.drop(ctx, f, o)
			if apply.Absent(err) {
				return err
			}
			if err != nil {
				f.news.stuck = append(f.news.stuck, o.String()+" is no longer in a file, but cannot be removed: "+flat(err))
				continue
			}
			delete(f.record.objects, o)
		}
		if err := k.close(ctx, f); apply.Absent(err) {
			return err
		} else if err != nil {
			f.news.stuck = append(f.news.stuck, flat(err))
		}
	}
	return nil
}

// disown lets go of what a file had that is gone, if somebody has deleted its
// record: that is how the objects are kept.
func (k *keeper) disown(ctx context.Context, f *file) error {
	if f.present || f.foreign() || f.record.uid == "" {
		return nil
	}
	there, err := k.session.recorded(ctx, f.record)
	if err == nil && !there {
		f.record.objects = map[key]owned{}
	}
	return err
}

// close writes the record of a file, or ends it with the file.
func (k *keeper) close(ctx context.Context, f *file) error {
	switch {
	case f.present && f.record.uid != "":
		return k.session.save(ctx, f.record)
	case f.present || f.foreign():
		return nil
	case len(f.record.objects) > 0:
		return k.session.save(ctx, f.record)
	}
	if err := k.session.forget(ctx, f.record); err != nil {
		return err
	}
	slog.Info("Removed the objects of a manifest that is gone", "file", f.path, "removed", f.news.pruned)
	delete(k.files, f.path)
	return nil
}

// patience is how often a kind that is unknown is asked for before the objects of
// that kind count as gone: the API server learns of definitions when it starts.
const patience = 6

// drop removes an object, if the file still has a part in it. One that is another
// file's now, or had been there before this one came, stays without the fields
// that came by this one.
func (k *keeper) drop(ctx context.Context, f *file, o key) error {
	was := f.record.objects[o]
	at, err := k.session.find(o, was.version)
	if errors.As(err, &apply.UnknownKind{}) && f.news.tries >= patience {
		return nil
	}
	if err != nil {
		return err
	}
	live, err := at.Get(ctx, o.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	owner := ownerOf(f.path)
	if err != nil || !was.is(live, owner) {
		return err
	}
	heir := k.claims[o]
	switch {
	case heir != nil && heir.record.objects[o].uid != live.GetUID():
		return errors.New("waiting until " + heir.path + " has it")
	case heir != nil || was.adopted:
		return owner.Release(ctx, at, live)
	}
	f.news.pruned++
	return apply.Delete(ctx, at, live)
}

// is reports whether the object in the cluster is the one that was applied. Before
// it is known under which UID it was made, only its fields can tell.
func (o owned) is(live *unstructured.Unstructured, owner apply.Owner) bool {
	if o.uid == "" {
		return owner.Owns(live)
	}
	return o.uid == live.GetUID()
}
