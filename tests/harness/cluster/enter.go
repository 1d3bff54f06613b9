package cluster

import (
	"context"
	"fmt"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// onOwnThread runs f on an operating system thread that ends afterwards, so
// that f may change what belongs to a thread: its namespaces and its cgroups.
// A process that f starts inherits them.
func onOwnThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread lives as long as the process. While
			// this goroutine keeps it, the next one gets another.
			result <- onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		result <- f() // never unlocked: the thread ends with the goroutine
	}()
	return <-result
}

// within runs f in namespaces given by a file descriptor: of a process with
// the kinds (unix.CLONE_NEW…) wanted, or of one namespace with its kind.
func within(fd, kinds int, f func() error) error {
	return onOwnThread(func() error {
		if kinds&unix.CLONE_NEWNS != 0 {
			// Threads share their root and working directory; the kernel lets
			// only those that do not change the mount namespace.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare fs: %w", err)
			}
		}
		if err := unix.Setns(fd, kinds); err != nil {
			return fmt.Errorf("enter namespaces: %w", err)
		}
		return f()
	})
}

// DialContext connects from within the host, as a program there would. The
// address must be numeric.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return dialWithin(ctx, h.pidfd, network, address)
}

// Listen listens within the host; what is served there runs in the test.
func (h *Host) Listen(network, address string) (l net.Listener, err error) {
	err = within(h.pidfd, unix.CLONE_NEWNET, func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket is Listen for datagrams, and for raw packets ("ip4:icmp").
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	return listenPacketWithin(h.pidfd, network, address)
}

func listenPacketWithin(fd int, network, address string) (conn net.PacketConn, err error) {
	err = within(fd, unix.CLONE_NEWNET, func() error {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	return conn, err
}

func dialWithin(ctx context.Context, fd int, network, address string) (conn net.Conn, err error) {
	err = within(fd, unix.CLONE_NEWNET, func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
