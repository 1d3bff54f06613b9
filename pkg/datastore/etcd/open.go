package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"lite.io/lite/pkg/kube"
)

// Shared is closed once there may be other members.
func (e *Etcd) Shared() <-chan struct{} { return e.shared }

// Share lets other members reach this one. A member that has been alone listens on loopback, where no stranger gets
// to it, and etcd opens no other listener while it runs. So what comes in at the node's address is passed on; from the next
// start on etcd listens there itself. That only members are let in is etcd's to see to, as ever.
func (e *Etcd) Share(ctx context.Context) error {
	e.sharing.Lock()
	defer e.sharing.Unlock()
	if kube.IsClosed(e.shared) {
		return nil
	}
	server := e.server.Load()
	if server == nil {
		return &BusyError{"the datastore of the server that was asked is not open yet"}
	}
	listener, err := net.Listen("tcp", e.config.AdvertisePeerUrls[0].Host)
	if err != nil {
		return fmt.Errorf("let other servers reach the datastore: %w; stop what uses that port", err)
	}
	self := server.Server.Cluster().Member(server.Server.MemberID())
	if self == nil {
		return errors.Join(&BusyError{"the datastore of the server that was asked does not know itself yet"}, listener.Close())
	}
	moved := self.Clone()
	moved.PeerURLs = types.URLs(e.config.AdvertisePeerUrls).StringSlice()
	if _, err := server.Server.UpdateMember(ctx, *moved); err != nil {
		return errors.Join(&BusyError{fmt.Sprintf("the datastore does not announce its address yet: %v", err)}, listener.Close())
	}
	context.AfterFunc(e.running, func() { listener.Close() })
	go passOn(e.running, listener, e.config.ListenPeerUrls[0].Host)
	close(e.shared)
	return nil
}

// passOn connects each who comes to a listener with an address, until the listener is closed or ctx is done.
func passOn(ctx context.Context, listener net.Listener, to string) {
	for {
		from, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		go connect(ctx, from, to)
	}
}

func connect(ctx context.Context, from net.Conn, to string) {
	defer from.Close()
	there, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer there.Close()
	defer context.AfterFunc(ctx, func() { from.Close(); there.Close() })()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, there}, {there, from}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			// Without the other direction neither side has a use for this one: both speak TLS.
			way[0].Close()
			way[1].Close()
		})
	}
	both.Wait()
}
