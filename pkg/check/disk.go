package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// networked is the file systems that are elsewhere. etcd's are no place for them:
// a lock or a sync that lies loses data.
var networked = []string{"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "afs", "ocfs2",
	"lustre", "virtiofs"}

// fileSystem checks the file systems of the data directory and of pods' volumes.
func fileSystem(_ context.Context, e *Env) []Result {
	if e.Config == nil {
		return noConfig()
	}
	results := e.underData(e.Config.DataDir)
	for _, v := range []struct{ dir, what string }{{e.Layout.Host.Kubelet, "emptyDir volumes, ConfigMaps and Secrets"}, {e.Config.LocalStoragePath, "volumes of claims"}} {
		results = append(results, e.underVolumes(v.dir, v.what)...)
	}
	return results
}

// underData checks the file system of the data directory.
func (e *Env) underData(dir string) []Result {
	mount, err := e.mountOf(dir)
	if err != nil {
		return skip(err.Error())
	}
	found := fmt.Sprintf("%s is on %s (%s)", dir, mount.Mountpoint, mount.FSType)
	options := strings.Split(mount.Options, ",")
	// The kernel sets a file system that is damaged to read-only as a whole.
	whole := slices.Contains(strings.Split(mount.VFSOptions, ","), "ro")
	switch {
	case slices.Contains(options, "noexec"):
		return fail("data-dir "+found+", mounted noexec: lite's helper programs cannot run there",
			"mount it without noexec, or choose another --data-dir", "mount -o remount,exec "+mount.Mountpoint)
	case whole && !slices.Contains(options, "ro"):
		return fail(found+", which the kernel has made read-only, probably because of errors", "read `dmesg`, check the file system (fsck), or choose another --data-dir")
	case slices.Contains(options, "ro"):
		return fail(found+", mounted read-only", "mount it read-write, or choose another --data-dir", "mount -o remount,rw "+mount.Mountpoint)
	case slices.Contains(networked, mount.FSType) && e.Role == config.Server:
		r := fail(found+", a network file system: a datastore there loses data", "choose a --data-dir on a disk of this machine")
		r[0].bearable = true
		return r
	case slices.Contains(networked, mount.FSType):
		return warn(found+", a network file system: containers start slowly there, if at all", "choose a --data-dir on a disk of this machine")
	case mount.FSType == "tmpfs" || mount.FSType == "ramfs":
		return warn(found+": a reboot loses everything", "choose a --data-dir on a disk")
	case mount.FSType == "vfat" || mount.FSType == "exfat" || strings.HasPrefix(mount.FSType, "ntfs") || mount.FSType == "fuseblk":
		return fail(found+", which has no owners and modes", "choose a --data-dir on ext4 or xfs")
	}
	return pass(found)
}

// underVolumes checks the file system of volumes, which containers get with its mount
// options. If it is the data directory's, underData covers it.
func (e *Env) underVolumes(dir, what string) []Result {
	mount, err := e.mountOf(dir)
	if err != nil || dir == "" {
		return nil
	}
	if data, err := e.mountOf(e.Config.DataDir); err == nil && data.Mountpoint == mount.Mountpoint {
		return nil
	}
	found := fmt.Sprintf("%s is on %s (%s)", dir, mount.Mountpoint, mount.FSType)
	options := strings.Split(mount.Options, ",")
	switch {
	case slices.Contains(options, "ro"):
		return fail(found+", mounted read-only: no pod with "+what+" starts", "mount it read-write", "mount -o remount,rw "+mount.Mountpoint)
	case slices.Contains(options, "noexec"):
		return warn(found+", mounted noexec: containers cannot run programs and scripts from "+what, "mount it without noexec", "mount -o remount,exec "+mount.Mountpoint)
	}
	return nil
}

// mountOf finds the mount that a path is on, the path being perhaps not there yet.
func (e *Env) mountOf(dir string) (*mountinfo.Info, error) {
	data, err := e.read("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	mounts, err := mountinfo.GetMountsFromReader(bytes.NewReader(data), nil)
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	dir = e.nearest(dir)
	if real, err := filepath.EvalSymlinks(e.path(dir)); err == nil && e.Root == "/" {
		dir = real
	}
	var on *mountinfo.Info
	for _, m := range mounts {
		// Of those on the same directory the last one is seen.
		if (dir == m.Mountpoint || strings.HasPrefix(dir, strings.TrimSuffix(m.Mountpoint, "/")+"/")) &&
			(on == nil || len(m.Mountpoint) >= len(on.Mountpoint)) {
			on = m
		}
	}
	if on == nil {
		return nil, fmt.Errorf("no mount has %s", dir)
	}
	return on, nil
}

// What the kubelet keeps free (1.37): below it, it removes images and evicts pods.
const (
	keptFree   = 15 // per cent of the bytes where images are
	keptInodes = 5  // per cent of the inodes
)

func room(_ context.Context, e *Env) []Result {
	if e.Config == nil {
		return noConfig()
	}
	if err := e.Room(e.Config); err != nil {
		return refused(err)
	}
	dir := e.nearest(e.Config.DataDir)
	fs, err := e.Statfs(e.path(dir))
	if err != nil {
		return skip(fmt.Sprintf("get the free space on %s: %v", dir, err))
	}
	free, total := fs.Bavail*uint64(fs.Bsize), fs.Blocks*uint64(fs.Bsize)
	found := fmt.Sprintf("%s of %s are free on %s", size(free), size(total), dir)
	switch {
	case total > 0 && free < total/100*keptFree:
		return warn(fmt.Sprintf("%s, less than %d %%: the kubelet removes images and then evicts pods", found, keptFree), "free some space, or choose another --data-dir")
	case fs.Files > 0 && fs.Ffree < fs.Files/100*keptInodes:
		return warn(fmt.Sprintf("%s, but only %d of %d inodes: the kubelet evicts pods", found, fs.Ffree, fs.Files), "remove small files, or choose another --data-dir")
	case free < 2<<30:
		return warn(found+"; images will soon fill it", "free some space: 10 GiB are comfortable")
	}
	return pass(found)
}

func overlayfs(_ context.Context, e *Env) []Result {
	if e.Config == nil {
		return noConfig()
	}
	if e.UID != 0 {
		return needsRoot("whether it works, by mounting it")
	}
	if e.Config.ContainerRuntimeEndpoint != "" {
		return pass("not needed with your own container runtime")
	}
	dir := e.nearest(e.Config.DataDir)
	if err := e.Overlay(e.path(dir)); err != nil {
		return warn(err.Error()+": image layers are mounted with fuse-overlayfs or copied, which takes much time and space",
			"choose a --data-dir on ext4 or xfs, or install fuse-overlayfs")
	}
	return pass("works on " + dir)
}

// What etcd asks of a disk: 99 of 100 syncs of its log within 10 ms.
const (
	goodSync = 10 * time.Millisecond
	badSync  = 100 * time.Millisecond
)

// latency measures what etcd waits for with every change.
func latency(ctx context.Context, e *Env) []Result {
	if e.Config == nil {
		return noConfig()
	}
	dir := e.nearest(e.Config.DataDir)
	took, err := e.Sync(ctx, e.path(dir))
	if denied(err) {
		return needsRoot("how long writes to " + dir + " take")
	}
	if err != nil {
		return skip(err.Error())
	}
	slices.Sort(took)
	median, p99 := took[len(took)/2], took[(len(took)*99+99)/100-1]
	found := fmt.Sprintf("on %s %d synced writes of %d bytes took %s at the median, %s at the 99th percentile", dir, len(took), syncBytes, millis(median), millis(p99))
	remedy := "use an SSD rather than an SD card or a shared disk, or choose another --data-dir; measure again when the machine is idle"
	switch {
	case p99 > badSync:
		return warn(found+"; etcd wants 10 ms, and above 100 ms leases are lost and the API stalls", remedy)
	case p99 > goodSync:
		return warn(found+"; etcd wants 10 ms", remedy)
	}
	return pass(found)
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// One measurement writes at most 200 times 2300 bytes, which is what etcd's log
// writes at once, and takes at most 2 s.
const (
	syncBytes  = 2300
	syncTimes  = 200
	syncFor    = 2 * time.Second
	syncEnough = 5
)

// timeWrites measures in a file that has no name, so that nothing stays whatever
// happens.
func timeWrites(ctx context.Context, dir string) ([]time.Duration, error) {
	f, err := nameless(dir)
	if err != nil {
		return nil, fmt.Errorf("measure writes to %s: %w", dir, err)
	}
	defer f.Close()
	var took []time.Duration
	block := bytes.Repeat([]byte{'x'}, syncBytes)
	for began := time.Now(); len(took) < syncTimes && (time.Since(began) < syncFor || len(took) < syncEnough) && ctx.Err() == nil; {
		at := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, fmt.Errorf("measure writes to %s: %w", dir, err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return nil, fmt.Errorf("measure writes to %s: %w", dir, err)
		}
		took = append(took, time.Since(at))
	}
	if len(took) == 0 {
		return nil, ctx.Err()
	}
	return took, nil
}

// nameless opens a file without a name; where the file system does not support that, one
// whose name is removed immediately.
func nameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, err
	}
	f, err := os.CreateTemp(dir, layout.TemporaryPrefix+"check-")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
