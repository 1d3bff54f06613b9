package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Stamp is what a data directory says of who has worked in it.
type Stamp struct {
	Role    string // server or agent; "" = no node has been made of it
	Version string // of the lite that was last started on it; "" = it has left none
}

// Stamp reads it. A directory that is not there has an empty one.
func (d Data) Stamp() (Stamp, error) {
	var s Stamp
	switch {
	case exists(d.Server().Etcd()):
		s.Role = serverName
	case exists(d.Agent().Cluster()):
		s.Role = agentName
	}
	data, err := os.ReadFile(d.Version())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return s, nil
	}
	s.Version = strings.TrimSpace(string(data))
	return s, err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TryLock takes the lock of the directory, by which its lite keeps every other away, until the file is closed or the
// process ends, however it ends. Of flags there may be os.O_CREATE. If somebody else has the lock, the file is returned
// as taken, for the caller to look at and close.
func (d Data) TryLock(flags int) (held, taken *os.File, err error) {
	f, err := os.OpenFile(d.Lock(), flags|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, nil, err
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return f, nil, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, f, nil
	default:
		return nil, nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
}
