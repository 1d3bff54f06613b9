package datastore

import (
	"os"

	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/layout"
)

// What follows is for those who copy the directory of a server, or put one back, while the server is stopped.

// Directories is those in which a server's store is, the one of all of it first.
func Directories(dir layout.Server) []string { return etcd.Directories(dir.Etcd()) }

// Several reports whether a store is one of several servers', or may be: then what a server has of it must never be
// made what it was before, since the others have gone on.
func Several(dir layout.Server) bool {
	if _, err := os.Lstat(dir.Membership()); err != nil {
		return false
	}
	// It may be alone again.
	n, err := etcd.CountMembers(dir.Etcd())
	return err != nil || n != 1
}

// Advance makes a store that was put back go on behind the revisions of the one whose place it takes.
func Advance(dir, replaced layout.Server) error { return etcd.Advance(dir.Etcd(), replaced.Etcd()) }

// SetAside moves what a server has of the store of several to another directory. When it starts, it gets the data of
// the others.
func SetAside(dir layout.Server, to string) error { return etcd.SetAside(dir.Etcd(), to) }
