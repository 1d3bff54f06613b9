package cni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"lite.io/lite/pkg/layout"
)

// leave takes away what is left of other ranges than the node has now: those
// that it had as a Node object which somebody deleted. The bridge keeps its old
// address forever, and nobody reaches pods with an old one; the kubelet
// recreates their sandboxes. The configuration of the network must be the new one
// by then.
func (n *Network) leave(ctx context.Context, ranges []netip.Prefix) error {
	removed, err := removeBridge(ranges)
	if err != nil || !removed || n.config.Runtime == "" {
		return err
	}
	conn, err := grpc.NewClient(n.config.Runtime, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to the container runtime: %w", err)
	}
	defer conn.Close()
	return stopOld(ctx, cri.NewRuntimeServiceClient(conn), ranges)
}

// removeBridge removes our bridge if it has an address outside the ranges.
func removeBridge(ranges []netip.Prefix) (removed bool, err error) {
	link, err := netlink.LinkByName(layout.Bridge)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("inspect %s: %w", layout.Bridge, err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return false, fmt.Errorf("inspect %s: %w", layout.Bridge, err)
	}
	old := slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
		addr, ok := netip.AddrFromSlice(a.IP)
		return ok && !addr.Unmap().IsLinkLocalUnicast() && !within(ranges, addr.Unmap())
	})
	if !old {
		return false, nil
	}
	slog.Info("This node has a new pod CIDR; restarting its pods on the pod network")
	if err := netlink.LinkDel(link); err != nil {
		return false, fmt.Errorf("remove %s, which has addresses of another pod CIDR: %w", layout.Bridge, err)
	}
	return true, nil
}

func within(ranges []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// stopOld stops the sandboxes that have an address outside the ranges.
func stopOld(ctx context.Context, runtime cri.RuntimeServiceClient, ranges []netip.Prefix) error {
	list, err := runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list pod sandboxes: %w", err)
	}
	var errs []error
	for _, s := range list.Items {
		status, err := runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: s.Id})
		if err != nil {
			continue // it is being removed
		}
		addr, err := netip.ParseAddr(status.GetStatus().GetNetwork().GetIp())
		if err != nil || within(ranges, addr) {
			continue // on the node's own network, or right
		}
		if _, err := runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			errs = append(errs, fmt.Errorf("stop the sandbox of pod %s/%s: %w", s.Metadata.GetNamespace(), s.Metadata.GetName(), err))
		}
	}
	return errors.Join(errs...)
}
