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

// applier makes the cluster match the files. It keeps each file and the names of what it
// owns; objects only until they are applied.
type applier struct {
	server  string
	connect func() (*session, error)
	session *session         // nil while there is nothing to do
	files   map[string]*file // by path; nil until the records have been read
	claims  map[key]*file    // which file an object belongs to, of those that name it
	started bool             // all files have been read once
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
	status  status
}

// pending is an object to be applied.
type pending struct {
	object
	key     key
	at      dynamic.ResourceInterface // nil until it is located
	located bool                      // has been, in whatever pass
	twice   bool                      // one before it in the file is the same
	applied bool
	err     error // why it could not be applied
}

// sync brings the cluster up to what a scan has found. Errors that concern a
// file are in the outcome.
func (a *applier) sync(ctx context.Context, s *scan) error {
	defer func() { a.session = nil }()
	if a.files == nil {
		if err := a.load(ctx); err != nil {
			return err
		}
	}
	a.compare(s)
	if !slices.ContainsFunc(a.sorted(), (*file).hasWork) {
		return nil
	}
	if a.session == nil {
		var err error
		if a.session, err = a.connect(); err != nil {
			return err
		}
	}
	if err := a.apply(ctx); err != nil {
		return err
	}
	if err := a.prune(ctx); err != nil {
		return err
	}
	return a.report(ctx)
}

// load learns what the files owned before.
func (a *applier) load(ctx context.Context) (err error) {
	if a.session, err = a.connect(); err != nil {
		return err
	}
	records, err := a.session.records(ctx)
	if err != nil {
		return err
	}
	a.files = map[string]*file{}
	for _, r := range records {
		a.files[r.file] = &file{path: r.file, record: r, unread: true}
	}
	return nil
}

func (a *applier) sorted() []*file {
	var all []*file
	for _, f := range a.files {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *file) int { return strings.Compare(a.path, b.path) })
	return all
}

// compare finds what has changed on disk.
func (a *applier) compare(s *scan) {
	for name := range s.files {
		a.file(name)
	}
	for name := range s.failed {
		a.file(name)
	}
	for name, f := range a.files {
		found, there := s.files[name]
		failed := covering(s.failed, name)
		switch {
		case covering(s.skipped, name) != "":
			f.invalidate(nil)
			f.skipped, f.unread = true, true
		case failed == name:
			f.invalidate(s.failed[name])
			f.unread = true
		case failed != "":
			f.invalidate(nil) // the error is reported for the directory
			f.unread = true
		case there:
			if f.unread || f.stamp != found.stamp {
				f.read(found)
			}
		case f.record.server != a.server && len(f.record.objects) > 0:
			f.invalidate(nil) // another server's, which may have it still
			f.present = false
		default:
			f.invalidate(nil)
			f.present, f.wants = false, map[key]bool{}
		}
		f.status.late = a.started
	}
	a.started = true
}

// file returns the file of a path, which may be new.
func (a *applier) file(name string) *file {
	f := a.files[name]
	if f == nil {
		f = &file{path: name, unread: true, record: &record{file: name, server: a.server, objects: map[key]owned{}}}
		a.files[name] = f
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

// invalidate makes the file one whose content is unknown, and keeps why.
func (f *file) invalidate(broken error) {
	f.present, f.skipped, f.broken, f.wants, f.left = true, false, broken, nil, nil
}

// read reads the file. If it cannot be used, what it had stays as it is.
func (f *file) read(found found) {
	data, is, err := found.read()
	f.invalidate(err)
	f.stamp = is
	// There is no event when a program closes it, or a disk works again.
	var failure *fs.PathError
	f.unread = errors.Is(err, errBusy) || errors.As(err, &failure)
	f.status.reset()
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

// hasWork reports whether there is anything to do for the file.
func (f *file) hasWork() bool {
	return len(f.left) > 0 || len(f.surplus()) > 0 || !f.present && !f.foreign() || f.status.unreported(f)
}

// apply applies what is left of all files: what others may need comes first.
func (a *applier) apply(ctx context.Context) error {
	for _, f := range a.files {
		for _, p := range f.left {
			p.at, p.err = nil, nil
		}
		if err := a.locate(f); err != nil {
			return err
		}
	}
	a.claim()
	for _, f := range a.sorted() {
		definitions := slices.DeleteFunc(slices.Clone(f.left), func(p *pending) bool { return !p.needed() || p.key.group == "" })
		if err := a.applyObjects(ctx, f, (*pending).needed); err != nil {
			return err
		}
		for _, p := range definitions {
			if p.at != nil && p.err == nil {
				apply.Established(ctx, p.at, p.key.name)
			}
		}
	}
	for _, f := range a.sorted() {
		if err := a.locate(f); err != nil { // some kinds may be new
			return err
		}
	}
	a.claim()
	for _, f := range a.sorted() {
		if err := a.applyObjects(ctx, f, func(p *pending) bool { return !p.needed() }); err != nil {
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
func (a *applier) locate(f *file) error {
	for _, p := range f.left {
		if p.at != nil {
			continue
		}
		p.key, p.at, p.err = a.session.locate(p.object)
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

// claim decides which file each object belongs to: the one that owns it, even while it
// cannot be read; otherwise the first by name.
func (a *applier) claim() {
	a.claims = map[key]*file{}
	for _, f := range a.sorted() {
		for o := range f.record.objects {
			if a.claims[o] == nil && (f.wants == nil || f.wants[o]) {
				a.claims[o] = f
			}
		}
	}
	for _, f := range a.sorted() {
		for o := range f.wants {
			if a.claims[o] == nil {
				a.claims[o] = f
			}
		}
	}
}

// applyObjects applies some of the objects that are left of a file. The record has them
// before the cluster does.
func (a *applier) applyObjects(ctx context.Context, f *file, which func(*pending) bool) error {
	var now []*pending
	defer func() { f.left = slices.DeleteFunc(f.left, func(p *pending) bool { return p.applied }) }()
	for _, p := range f.left {
		switch {
		case !which(p) || p.at == nil:
			continue
		case a.claims[p.key] != f:
			p.err = errors.New("is also in " + a.claims[p.key].path + ", which owns it: remove one of the two")
		case p.twice:
			p.err = errors.New("is in the file twice: remove one of the two")
		default:
			if p.err = a.recordObject(ctx, f, p); p.err == nil {
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
	f.record.server = a.server
	if err := a.session.save(ctx, f.record); err != nil {
		for _, p := range now {
			p.err = err
		}
		return ifAbsent(err)
	}
	for _, p := range now {
		uid, err := p.apply(ctx, ownerOf(f.path))
		if p.err = a.session.Blame(err); apply.Absent(p.err) {
			return p.err
		}
		if p.err == nil {
			p.applied = true
			f.status.applied++
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

// recordObject adds an object to the file's record. An object that already exists is
// adopted, unless it came with another file, as when it was moved.
func (a *applier) recordObject(ctx context.Context, f *file, p *pending) error {
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
	for _, other := range a.files {
		if known, ok := other.record.objects[p.key]; ok && adopted {
			adopted = known.adopted
			break
		}
	}
	f.record.objects[p.key] = owned{version: p.GroupVersionKind().Version, adopted: adopted}
	f.status.owns = true
	return nil
}

// surplus is what the file owns but no longer contains, in the order of removal: namespaces
// and definitions last. As long as anything of the file is not applied, nothing is removed.
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

// prune removes what files own but no longer contain, and the records of files that are
// gone.
func (a *applier) prune(ctx context.Context) error {
	for _, f := range a.sorted() {
		f.status.stuck = nil
		if err := a.orphan(ctx, f); err != nil {
			return err
		}
		for _, o := range f.surplus() {
			err := a.remove(ctx, f, o)
			if apply.Absent(err) {
				return err
			}
			if err != nil {
				f.status.stuck = append(f.status.stuck, o.String()+" is no longer in a file, but cannot be removed: "+flat(err))
				continue
			}
			delete(f.record.objects, o)
		}
		if err := a.updateRecord(ctx, f); apply.Absent(err) {
			return err
		} else if err != nil {
			f.status.stuck = append(f.status.stuck, flat(err))
		}
	}
	return nil
}

// orphan releases the objects of a file that is gone, if somebody has deleted its record:
// that is how users keep the objects.
func (a *applier) orphan(ctx context.Context, f *file) error {
	if f.present || f.foreign() || f.record.uid == "" {
		return nil
	}
	there, err := a.session.recorded(ctx, f.record)
	if err == nil && !there {
		f.record.objects = map[key]owned{}
	}
	return err
}

// updateRecord writes the record of a file, or deletes it with the file.
func (a *applier) updateRecord(ctx context.Context, f *file) error {
	switch {
	case f.present && f.record.uid != "":
		return a.session.save(ctx, f.record)
	case f.present || f.foreign():
		return nil
	case len(f.record.objects) > 0:
		return a.session.save(ctx, f.record)
	}
	if err := a.session.forget(ctx, f.record); err != nil {
		return err
	}
	slog.Info("Removed the objects of a manifest that is gone", "file", f.path, "removed", f.status.pruned)
	delete(a.files, f.path)
	return nil
}

// patience is how often an unknown kind is looked up before its objects count as gone: an
// API server that starts does not know all definitions at once.
const patience = 6

// remove removes an object if the file still owns it. An object that another file owns now,
// or that existed before this file, stays, without the fields of this file.
func (a *applier) remove(ctx context.Context, f *file, o key) error {
	was := f.record.objects[o]
	at, err := a.session.find(o, was.version)
	if errors.As(err, &apply.UnknownKind{}) && f.status.failures >= patience {
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
	heir := a.claims[o]
	switch {
	case heir != nil && heir.record.objects[o].uid != live.GetUID():
		return errors.New("waiting until " + heir.path + " has it")
	case heir != nil || was.adopted:
		return owner.Release(ctx, at, live)
	}
	f.status.pruned++
	return apply.Delete(ctx, at, live)
}

// is reports whether the object in the cluster is the one that was applied. As long as its
// UID is not known, only its fields show that.
func (o owned) is(live *unstructured.Unstructured, owner apply.Owner) bool {
	if o.uid == "" {
		return owner.Owns(live)
	}
	return o.uid == live.GetUID()
}
