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
	var err error
	if s.Role, err = d.role(); err != nil {
		return s, err
	}
	s.Version, err = line(d.Version())
	return s, err
}

// role is what the directory is stamped with, for as long as there is what the role
// stands for: who has removed that has left the cluster, and may become anything.
func (d Data) role() (string, error) {
	role, err := line(d.Role())
	switch {
	case err != nil:
		return "", err
	case role == serverName && exists(string(d.Server())), role == agentName && exists(d.Agent().Cluster()):
		return role, nil
	case role == "" || role == serverName || role == agentName:
		return d.unstamped(), nil
	}
	return "", fmt.Errorf("%s contains %.20q, which is neither server nor agent; remove the file", d.Role(), role)
}

// unstamped decides what a directory is that versions until 1.37 have worked in, which
// left no stamp. Its next start stamps it.
func (d Data) unstamped() string {
	switch {
	case exists(d.Server().Etcd()), exists(d.Server().SQLite()):
		return serverName
	case exists(d.Agent().Cluster()):
		return agentName
	}
	return ""
}

// line is the content of a file of one line, "" if there is none.
func line(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	return strings.TrimSpace(string(data)), err
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
