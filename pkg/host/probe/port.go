package probe

import (
	"fmt"
	"io"
	"net"
	"syscall"
)

// Unused returns an error if address ("host:port") of network "tcp" or "udp" cannot be listened at.
func Unused(network, address string) error {
	// Between fork and exec a child has all descriptors of its parent. One that is started just now
	// would keep the address in use after this has returned, for somebody who listens there next.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	var socket io.Closer
	var err error
	switch network {
	case "tcp":
		socket, err = net.Listen(network, address)
	case "udp":
		socket, err = net.ListenPacket(network, address)
	default:
		err = fmt.Errorf("network %q is neither tcp nor udp", network)
	}
	if err != nil {
		return err
	}
	return socket.Close()
}
