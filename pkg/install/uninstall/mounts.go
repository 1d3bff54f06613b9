package uninstall

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

// unmount unmounts the mounts of pods and of containerd, the last one first.
func (w *work) unmount() {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		w.Fail(fmt.Errorf("list mounts: %w", err))
		return
	}
	mounts = slices.DeleteFunc(mounts, func(m *mountinfo.Info) bool { return !w.ourMount(m.Mountpoint) })
	if len(mounts) == 0 {
		return
	}
	w.Step("Unmounting %d file systems of pods", len(mounts))
	for _, m := range slices.Backward(mounts) {
		w.unmountOne(m)
	}
}

// ourMount reports whether the kubelet or containerd has mounted something there. Mounts on
// their directories themselves belong to the machine's owner.
func (w *work) ourMount(path string) bool {
	path = strings.TrimSuffix(path, "//deleted")
	for _, dir := range w.mountDirs() {
		if rel, ok := within(dir, path); ok && rel != "." {
			return true
		}
	}
	return false
}

func (w *work) mountDirs() []string {
	dirs := []string{string(w.RunDir.Containerd()), w.RunDir.Temporary()}
	if w.hasRun {
		dirs = append(dirs, w.KubeletDir+"/pods", w.KubeletDir+"/plugins")
	}
	for _, dir := range w.DataDirs {
		dirs = append(dirs, layout.Data(dir).Agent().Containerd().Root())
	}
	for _, dir := range dirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
			dirs = append(dirs, real)
		}
	}
	return dirs
}

// unmountOne waits a moment for killed processes to end. A mount that somebody else uses is
// detached; the kernel removes it when they leave.
func (w *work) unmountOne(m *mountinfo.Info) {
	path := strings.TrimSuffix(m.Mountpoint, "//deleted")
	deadline := time.Now().Add(busyTimeout)
	for !remote(m.FSType) {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) {
			return // EINVAL: it is not mounted any more
		}
		if !errors.Is(err, unix.EBUSY) {
			w.Fail(fmt.Errorf("unmount %s: %w", path, err))
			return
		}
		if time.Now().After(deadline) {
			break
		}
		time.Sleep(pollEvery)
	}
	if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
		w.Fail(fmt.Errorf("unmount %s: %w", path, err))
		return
	}
	if remote(m.FSType) {
		return
	}
	w.Leave("%s was in use by another process; it is unmounted, and goes away when that process leaves it", path)
}

// busyTimeout is how long the kernel may take to let go of what a killed process
// had open.
const busyTimeout = 2 * time.Second

// remote reports whether a file system is on another machine. If that does not answer,
// unmounting may wait forever.
func remote(fstype string) bool {
	switch fstype {
	case "nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.ceph", "fuse.glusterfs", "9p":
		return true
	}
	return false
}
