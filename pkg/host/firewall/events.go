package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// buffer is for events that the kernel has sent and we have not read. It takes memory only
// while it fills. A full synchronization of some thousand Services sends more at once; then
// the kernel reports that events were lost, and everything is checked.
const buffer = 1 << 20

// listen opens a socket on which the kernel reports the events of some groups.
func listen(protocol int, groups ...int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("subscribe to changes in the kernel: %w", err)
	}
	if protocol == unix.NETLINK_ROUTE {
		_ = hideNew(fd) // without, it is more to read
	}
	var mask uint32
	for _, group := range groups {
		mask |= 1 << (group - 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: mask}); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to changes in the kernel: %w", err), unix.Close(fd))
	}
	// Without the right to do so the default remains, 208 KiB.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer)
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// read gives each message to hear, until ctx is done or the socket fails. Where the
// kernel had to drop some, it calls dropped.
func read(ctx context.Context, socket *os.File, hear func(syscall.NetlinkMessage), dropped func()) error {
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	piece := make([]byte, 1<<16) // the kernel sends at most 32 KiB at once
	for {
		n, err := socket.Read(piece)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, unix.ENOBUFS) {
			dropped()
			continue
		}
		if err != nil {
			return fmt.Errorf("read events of the kernel: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(piece[:n])
		if err != nil {
			dropped()
			continue
		}
		for _, m := range messages {
			hear(m)
		}
	}
}
