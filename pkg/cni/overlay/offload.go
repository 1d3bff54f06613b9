package overlay

import (
	"fmt"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/host/probe"
)

// checksums is the kernel's name for leaving checksums to the hardware.
const checksums = "tx-checksum-ip-generic"

// offload switches off that checksums of what goes into a VXLAN device are left
// to the hardware, where they come out wrong:
//
//   - Kernels before 5.7 that masquerade the outer packet with --random-fully
//     write a checksum into its header although it has none (fixed by "netfilter:
//     nat: never update the UDP checksum when it's 0"). Stable kernels have the
//     change from 4.14.181, 4.19.123 and 5.4.41 on; those of distributions cannot
//     be told apart, so all before 5.7 count.
//   - VMware's vmxnet3 computes wrong ones inside of tunnels on ports that it does
//     not expect, with kernels as new as 5.15 (projectcalico/calico#9433). All its
//     versions count, on any interface: the outer one may be a bond of those.
//
// The cost is that the kernel computes them, and that segments of TCP no longer
// pass in large ones: over veth a stream reached a third (1.4 Gbit/s instead of
// 4.4, Linux 6.18). That is why it is not switched off everywhere.
type offload struct {
	kernel *netlink.Handle
	tool   *ethtool.Ethtool
}

func newOffload(kernel *netlink.Handle) (*offload, error) {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return nil, fmt.Errorf("open a socket for settings of interfaces: %w", err)
	}
	return &offload{kernel, tool}, nil
}

func (o *offload) close() { o.tool.Close() }

// switchOff does nothing where the hardware can be trusted. It never switches on:
// an administrator may have had a reason.
func (o *offload) switchOff(device string) error {
	broken, err := o.broken()
	if err != nil || !broken {
		return err
	}
	return o.off(device)
}

func (o *offload) off(device string) error {
	features, err := o.tool.Features(device)
	if err != nil {
		return fmt.Errorf("get the features of %s: %w", device, err)
	}
	if !features[checksums] {
		return nil
	}
	if err := o.tool.Change(device, map[string]bool{checksums: false}); err != nil {
		return fmt.Errorf("switch off %s of %s: %w", checksums, device, err)
	}
	return nil
}

func (o *offload) broken() (bool, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false, fmt.Errorf("get the version of the kernel: %w", err)
	}
	if oldKernel(unix.ByteSliceToString(name.Release[:])) {
		return true, nil
	}
	links, err := probe.Dump(o.kernel.LinkList)
	if err != nil {
		return false, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		// An interface without a driver, or gone since, is no reason to stop.
		if driver, err := o.tool.DriverName(l.Attrs().Name); err == nil && driver == "vmxnet3" {
			return true, nil
		}
	}
	return false, nil
}

// oldKernel reports whether a release is before 5.7. One that cannot be read is
// taken for old: slow is better than wrong.
func oldKernel(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return true
	}
	return major < 5 || major == 5 && minor < 7
}
