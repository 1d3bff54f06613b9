package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"
)

// mounter uses system calls for what the kubelet itself mounts: file systems in memory, and
// bind mounts. Upstream's runs the programs mount and umount, twice per volume, and for a
// subPath needs those of util-linux, which not every machine has (1.37). All else, such as
// NFS and file systems with a mount helper, is left to upstream's.
type mounter struct{ mount.MounterForceUnmounter }

func newMounter(path string) mount.Interface {
	upstream, ok := mount.New(path).(mount.MounterForceUnmounter)
	if !ok {
		return mount.New(path)
	}
	return mounter{upstream}
}

// inMemory is the file systems that are mounted by nothing more than a system call.
var inMemory = []string{"tmpfs", "hugetlbfs"}

// Mount implements mount.Interface.
func (m mounter) Mount(source, target, fstype string, options []string) error {
	if plain(fstype, options) {
		return mountPlain(source, target, fstype, options)
	}
	return m.MounterForceUnmounter.Mount(source, target, fstype, options)
}

// MountSensitive implements mount.Interface.
func (m mounter) MountSensitive(source, target, fstype string, options, sensitive []string) error {
	if len(sensitive) == 0 && plain(fstype, options) {
		return mountPlain(source, target, fstype, options)
	}
	return m.MounterForceUnmounter.MountSensitive(source, target, fstype, options, sensitive)
}

// MountSensitiveWithoutSystemd implements mount.Interface.
func (m mounter) MountSensitiveWithoutSystemd(source, target, fstype string, options, sensitive []string) error {
	return m.MountSensitiveWithoutSystemdWithMountFlags(source, target, fstype, options, sensitive, nil)
}

// MountSensitiveWithoutSystemdWithMountFlags implements mount.Interface. The one
// flag that the kubelet knows keeps mount from following links, which a system
// call leaves to the kernel.
func (m mounter) MountSensitiveWithoutSystemdWithMountFlags(source, target, fstype string, options, sensitive, flags []string) error {
	others := slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return f == "--no-canonicalize" })
	if len(sensitive) == 0 && len(others) == 0 && plain(fstype, options) {
		return mountPlain(source, target, fstype, options)
	}
	return m.MounterForceUnmounter.MountSensitiveWithoutSystemdWithMountFlags(source, target, fstype, options, sensitive, flags)
}

// Unmount implements mount.Interface.
func (m mounter) Unmount(target string) error {
	if helped, err := m.helped(target); err != nil || helped {
		return m.MounterForceUnmounter.Unmount(target)
	}
	return unmountPlain(target)
}

// UnmountWithForce implements mount.MounterForceUnmounter.
func (m mounter) UnmountWithForce(target string, timeout time.Duration) error {
	if helped, err := m.helped(target); err != nil || helped {
		return m.MounterForceUnmounter.UnmountWithForce(target, timeout)
	}
	return unmountPlain(target)
}

// CanSafelySkipMountPointCheck implements mount.Interface.
func (mounter) CanSafelySkipMountPointCheck() bool { return true }

// helped reports whether what is mounted at target may have a program that has to
// end with it, or a server that does not answer.
func (m mounter) helped(target string) (bool, error) {
	points, err := m.List()
	if err != nil {
		return false, err
	}
	// What is above target is followed; target itself is not touched, a server
	// may hang.
	if dir, err := filepath.EvalSymlinks(filepath.Dir(target)); err == nil {
		target = filepath.Join(dir, filepath.Base(target))
	}
	for _, p := range slices.Backward(points) {
		if p.Path != target {
			continue
		}
		for _, network := range []string{"nfs", "cifs", "smb", "fuse", "ceph", "gluster", "9p"} {
			if strings.HasPrefix(p.Type, network) {
				return true, nil
			}
		}
		_, err := os.Stat("/sbin/umount." + p.Type)
		return err == nil, nil
	}
	return false, nil
}

// plain reports whether mountPlain can do it: of options it knows those that it
// gives to the kernel as flags, and those of file systems in memory.
func plain(fstype string, options []string) bool {
	if slices.Contains(inMemory, fstype) {
		return !slices.Contains(options, "remount")
	}
	if fstype != "" || !slices.Contains(options, "bind") {
		return false
	}
	return !slices.ContainsFunc(options, func(o string) bool { _, known := flagOf(o); return !known })
}

// flagOf is the kernel's flag for an option.
func flagOf(option string) (flag uintptr, known bool) {
	switch option {
	case "bind":
		return unix.MS_BIND, true
	case "remount":
		return unix.MS_REMOUNT, true
	case "ro":
		return unix.MS_RDONLY, true
	case "nosuid":
		return unix.MS_NOSUID, true
	case "nodev":
		return unix.MS_NODEV, true
	case "noexec":
		return unix.MS_NOEXEC, true
	case "noatime":
		return unix.MS_NOATIME, true
	case "nodiratime":
		return unix.MS_NODIRATIME, true
	case "relatime":
		return unix.MS_RELATIME, true
	case "rw", "defaults", "_netdev": // the kernel does not need these
		return 0, true
	}
	return 0, false
}

func mountPlain(source, target, fstype string, options []string) error {
	var flags uintptr
	var data []string
	for _, o := range options {
		if flag, known := flagOf(o); known {
			flags |= flag
		} else {
			data = append(data, o)
		}
	}
	if flags&unix.MS_BIND == 0 {
		return failed("mount", source, target, unix.Mount(source, target, fstype, flags, strings.Join(data, ",")))
	}
	if flags&unix.MS_REMOUNT == 0 {
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return failed("bind", source, target, err)
		}
	}
	// A directory at a second place keeps the restrictions of the first.
	inherited, err := restrictions(source)
	if err != nil {
		return failed("check the options of", source, target, err)
	}
	return failed("remount", source, target, unix.Mount(source, target, "", flags|inherited|unix.MS_BIND|unix.MS_REMOUNT, ""))
}

// stRelatime is the flag in statfs(2) of a mount with MS_RELATIME; the other flags have the
// same number in both.
const stRelatime = 0x1000

// restrictions is the flags of the mount that a path is on.
func restrictions(path string) (uintptr, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, err
	}
	const same = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME
	flags := uintptr(fs.Flags) & same
	if fs.Flags&stRelatime != 0 {
		flags |= unix.MS_RELATIME
	}
	return flags, nil
}

func unmountPlain(target string) error {
	err := unix.Unmount(target, 0)
	// EINVAL is what is no mount point, or none any more.
	if err == unix.EINVAL {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

func failed(what, source, target string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s at %s: %w", what, source, target, err)
}
