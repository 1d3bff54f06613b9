package file

import (
	"io/fs"
	"syscall"
)

// Stamp is another once a file has changed, or another one is in its place, whatever its time says. The zero value is that
// of a file which is not there.
type Stamp struct {
	dev, ino     uint64
	Size         int64
	mtime, ctime syscall.Timespec
}

// StampOf makes no call: info has it all.
func StampOf(info fs.FileInfo) Stamp {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Stamp{}
	}
	return Stamp{uint64(s.Dev), s.Ino, s.Size, s.Mtim, s.Ctim}
}
