package etcd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// ahead is more than a member can have given out beyond what its database
	// holds: that is written after commitAt changes, or a user's own number of them.
	ahead = 100_000
	// farAhead is for a database that says nothing, as etcd's own documentation
	// of a restore has it.
	farAhead = 1_000_000_000
)

// Advance makes a store that was put back go on behind the revisions of the one
// whose place it takes, and declares all revisions before that compacted. Clients
// that have seen later revisions, such as the kubelets of other nodes, would
// otherwise wait for changes after those, and never hear of the ones before. It
// is what `etcdutl snapshot restore --bump-revision --mark-compacted` does to a
// database. No member may run on either; a store that was never used stays so.
func Advance(dir, replaced string) error {
	if !hasLog(dir) {
		return nil
	}
	target := int64(0)
	if newest, err := newestRevision(replaced); err == nil {
		target = newest + ahead
	}
	path := databaseFile(dir)
	// As etcd opens it (3.7).
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer db.Close()
	err = db.Update(func(tx *bbolt.Tx) error {
		key, meta := tx.Bucket([]byte("key")), tx.Bucket([]byte("meta"))
		if key == nil || meta == nil {
			return errors.New("it is not a database of etcd")
		}
		have := lastRevision(tx)
		if target == 0 {
			target = have + farAhead
		}
		if have >= target {
			return nil
		}
		// An entry without a key at a revision, as etcdutl writes it (3.7).
		revision := make([]byte, 17)
		binary.BigEndian.PutUint64(revision, uint64(target))
		revision[8] = '_'
		if err := key.Put(revision, []byte{}); err != nil {
			return err
		}
		return meta.Put([]byte("scheduledCompactRev"), revision)
	})
	if err != nil {
		return fmt.Errorf("advance %s: %w", path, err)
	}
	return nil
}

func databaseFile(dir string) string { return filepath.Join(memberDir(dir), "snap", "db") }

func newestRevision(dir string) (newest int64, err error) {
	db, err := bbolt.Open(databaseFile(dir), 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		newest = lastRevision(tx)
		return nil
	})
	return newest, err
}

// lastRevision is 0 in a database that holds nothing.
func lastRevision(tx *bbolt.Tx) int64 {
	bucket := tx.Bucket([]byte("key"))
	if bucket == nil {
		return 0
	}
	key, _ := bucket.Cursor().Last()
	if len(key) < 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(key))
}
