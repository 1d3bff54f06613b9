package etcd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"lite.io/lite/pkg/file"
)

// asidePrefix begins the names of copies that were put aside; a time follows. They are beside the data, and so on the
// disk that these are on, wherever a link or a mount has put the directory.
const (
	asidePrefix = "member.before-"
	partial     = ".part"
)

func memberDir(dir string) string { return filepath.Join(dir, "member") }

func asideName(dir string, now time.Time) string {
	return filepath.Join(dir, asidePrefix+now.UTC().Format("20060102T150405Z"))
}

// MoveAside takes the data of a member out of the way, so that the next start has none. The copy that was put aside
// before is removed.
func MoveAside(dir string, now time.Time) (aside string, err error) {
	aside = asideName(dir, now)
	if err := os.Rename(memberDir(dir), aside); err != nil {
		return "", fmt.Errorf("move the data of etcd aside: %w", err)
	}
	if err := file.SyncDir(dir); err != nil {
		return "", fmt.Errorf("move the data of etcd aside: %w", err)
	}
	return aside, forget(dir, aside)
}

// CopyAside copies the data of a member to a place of which only the time is to be chosen. It is whole or not there; one
// that is there already is taken for it. The copy that was put aside before is removed.
func CopyAside(dir string, now time.Time) (aside string, err error) {
	aside = asideName(dir, now)
	if exists(aside) {
		return aside, forget(dir, aside)
	}
	part := aside + partial
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	if err := room(memberDir(dir)); err != nil {
		return "", err
	}
	err = copyTree(memberDir(dir), part)
	if err == nil {
		err = syncTree(part)
	}
	if err == nil {
		err = os.Rename(part, aside)
	}
	if err == nil {
		err = file.SyncDir(dir)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("copy the data of etcd aside: %w", err), os.RemoveAll(part))
	}
	return aside, forget(dir, aside)
}

// forget removes all copies but one.
func forget(dir, but string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); strings.HasPrefix(e.Name(), asidePrefix) && path != but {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the copy of etcd's data that was put aside before: %w", err)
	}
	return nil
}

// room wants the disk to have space for a second copy, and some more: a full one stops every part of a node.
func room(dir string) error {
	const spare = 64 << 20
	var size int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("copy the data of etcd aside: %w", err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return fmt.Errorf("find out how much space there is for a copy of %s: %w", dir, err)
	}
	if free := int64(disk.Bavail) * disk.Bsize; free < size+spare { //nolint:gosec // no disk is that large
		return fmt.Errorf("copy the data of etcd aside: %s needs %d MiB on its disk, which has %d free; make space", dir, (size+spare)>>20, free>>20)
	}
	return nil
}

// copyTree copies directories and files.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rest)
		switch {
		case d.IsDir():
			return os.Mkdir(target, 0o700)
		case d.Type().IsRegular():
			return copyFile(path, target)
		}
		return fmt.Errorf("%s is neither a file nor a directory; copy the directory by hand, and put what is in it in its place", path)
	})
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	_, err = io.Copy(target, source)
	return err
}

// syncTree returns when all that is below a directory is on the disk.
func syncTree(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil { //nolint:gosec // a descriptor
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// MemberID is who a member was that has worked in a data directory.
func MemberID(dir string) (string, error) {
	_, data, _, err := readLog(walDir(dir))
	if err != nil {
		return "", fmt.Errorf("read the write-ahead log: %w", err)
	}
	var who etcdserverpb.Metadata
	if err := proto.Unmarshal(data, &who); err != nil {
		return "", fmt.Errorf("read the write-ahead log: %w", err)
	}
	return types.ID(who.GetNodeID()).String(), nil
}
