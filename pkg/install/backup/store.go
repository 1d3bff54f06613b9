package backup

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	utilversion "k8s.io/apimachinery/pkg/util/version"

	"lite.io/lite/pkg/datastore"
	"lite.io/lite/pkg/layout"
)

// Store is what a rollback does with the directory of a server.
type Store string

const (
	// Restored is of a server that is alone: all is what it was when it was kept, and what was written since is lost.
	Restored Store = "restored"
	// Stays is of one of several servers. The others have gone on: older data would deny what this server has
	// acknowledged, and older keys or tokens are not those of the cluster any more. All else in the directory is
	// the user's, or written at each start.
	Stays Store = "stays"
	// Rejoins is where an older etcd cannot open the data of the newer one: the server gets them from the others.
	Rejoins Store = "rejoins"
)

// decide finds out once what to do with the directory of a server: half-way through, the disk would tell something else.
func (b *Backup) decide(dataDir string) error {
	if b.Store != "" {
		return nil
	}
	live, kept := layout.Data(dataDir).Server(), layout.Server(filepath.Join(keptDir(dataDir), keptEntries, string(layout.Data("").Server())))
	several := datastore.Several(live)
	_, err := os.Lstat(string(live))
	gone := errors.Is(err, fs.ErrNotExist)
	switch {
	case !several && !datastore.Several(kept):
		b.Store = Restored
	// What was kept as one of several cannot go on alone.
	case gone, several && !sameMinor(b.Versions.Etcd, b.Next.Etcd):
		b.Store = Rejoins
	default:
		b.Store = Stays
	}
	return b.write(keptDir(dataDir))
}

// Several reports whether a stopped server is, or may be, one of several, so that its data stay.
func Several(dataDir string) bool { return datastore.Several(layout.Data(dataDir).Server()) }

// sameMinor reports whether two versions of etcd read each other's data. Of versions that are not known nobody can say that
// they do not.
func sameMinor(a, b string) bool {
	va, errA := utilversion.ParseSemantic(a)
	vb, errB := utilversion.ParseSemantic(b)
	return errA != nil || errB != nil || va.Major() == vb.Major() && va.Minor() == vb.Minor()
}

// restoreEntry makes an entry what it was, where that can be.
func (b *Backup) restoreEntry(dataDir, name string) error {
	if name != string(layout.Data("").Server()) {
		return restoreEntry(dataDir, name)
	}
	at := layout.Data(dataDir).Server()
	_, err := os.Lstat(string(at))
	if b.Store == Restored || errors.Is(err, fs.ErrNotExist) {
		if err := restoreEntry(dataDir, name); err != nil {
			return err
		}
	}
	switch b.Store {
	case Rejoins:
		return datastore.SetAside(at, filepath.Join(Dropped(dataDir), filepath.Base(at.Etcd())))
	case Restored:
		// Going back matters more than the other nodes' view of it, which heals when they are restarted.
		if err := datastore.Advance(at, layout.Server(filepath.Join(Dropped(dataDir), name))); err != nil {
			slog.Warn("Other nodes may not notice everything that was restored until they restart", "err", err)
		}
	}
	return nil
}
