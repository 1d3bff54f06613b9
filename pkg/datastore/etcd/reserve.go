package etcd

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// reserved is how much the database may grow on a disk that somebody else has filled
// since the start: as much as etcd keeps of its log, 64 MiB at a time. An idle cluster
// writes that in hours, and the kubelet has ended the pod that filled it in seconds.
const reserved = 64 << 20

// reserve gives the database the blocks that it grows into, without making it any larger:
// bbolt makes its file longer, with a hole at the end, and etcd ends where a page does not
// fit into that. A file system that cannot do this has none to give, and one with little
// room is left to the others.
func reserve(database string) error {
	f, err := os.OpenFile(database, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fmt.Errorf("find space for %s: %w", database, err)
	}
	if int64(fs.Bavail)*fs.Bsize < 4*reserved {
		return nil
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, info.Size()+reserved); err != nil {
		return fmt.Errorf("reserve space for %s: %w", database, err)
	}
	return nil
}
