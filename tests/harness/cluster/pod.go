package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// PodNetwork is the network of a pod as its programs see it.
type PodNetwork struct{ namespace *os.File }

// PodNetwork enters the network of a pod that runs on this machine, whichever
// host it is on. It ends with the test.
func (ns *Namespace) PodNetwork(t testing.TB, pod string) *PodNetwork {
	t.Helper()
	uid := ns.Field(t, "pod/"+pod, ".metadata.uid")
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range files {
		groups, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(groups), "pod"+uid) {
			continue
		}
		namespace, err := os.Open(filepath.Join(filepath.Dir(file), "ns", "net"))
		if err != nil {
			continue // it has ended meanwhile
		}
		t.Cleanup(func() { namespace.Close() })
		return &PodNetwork{namespace}
	}
	t.Fatalf("no process of pod %s (%s) runs", pod, uid)
	return nil
}

// DialContext connects from within the pod. The address must be numeric.
func (p *PodNetwork) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return dialWithin(ctx, int(p.namespace.Fd()), network, address)
}

// Listen listens within the pod; what is served there runs in the test.
func (p *PodNetwork) Listen(network, address string) (l net.Listener, err error) {
	err = within(int(p.namespace.Fd()), unix.CLONE_NEWNET, func() error {
		l, err = net.Listen(network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen within the pod: %w", err)
	}
	return l, nil
}

// ListenPacket is Listen for datagrams, and for raw packets ("ip4:icmp").
func (p *PodNetwork) ListenPacket(network, address string) (net.PacketConn, error) {
	conn, err := listenPacketWithin(int(p.namespace.Fd()), network, address)
	if err != nil {
		return nil, fmt.Errorf("listen within the pod: %w", err)
	}
	return conn, nil
}
