package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Note implements component.Noter. The kubelet reads the file for each pod; when it is
// gone, or was never there, the kubelet is well and no pod starts (k3s#5503).
func (k *Kubelet) Note() string {
	if k.server.ResolverConfig == "" {
		return ""
	}
	info, err := os.Stat(k.server.ResolverConfig)
	if err == nil && !info.Mode().IsRegular() { // a directory cannot be read, a FIFO would be waited for
		err = fmt.Errorf("%s is not a regular file", k.server.ResolverConfig)
	}
	if err != nil {
		return fmt.Sprintf("no pod starts: its resolv-conf cannot be read: %v", err)
	}
	return ""
}

// share makes the file system that is mounted at a directory shared, if one is and it is
// not: pods pass on to the node what they mount there. The kubelet (1.37) mounts such a
// directory over itself, but containerd (2.4) goes by the mount below and refuses the
// pods. systemd shares all mounts, other init systems none.
func share(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
	if err != nil {
		return fmt.Errorf("find the mount at %s: %w", dir, err)
	}
	if len(mounts) == 0 || strings.Contains(mounts[0].Optional, "shared:") {
		return nil
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make the mount at %s shared: %w", dir, err)
	}
	return nil
}
