package policy

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"lite.io/lite/pkg/kube"
)

// reconnectEvery is how long the container runtime is left alone after it ended
// the stream of its events.
const reconnectEvery = time.Second

// followSandboxes gets from the container runtime which addresses it gives to pods of this
// node. The kubelet updates the API a second or two later, when the pod's programs already
// run.
func (e *enforcer) followSandboxes(ctx context.Context) {
	if e.config.Runtime == "" {
		return
	}
	for ctx.Err() == nil {
		// A runtime that is away or has no events costs the head start, no more.
		_ = e.readEvents(ctx)
		kube.Sleep(ctx, reconnectEvery)
	}
}

func (e *enforcer) readEvents(ctx context.Context) error {
	conn, err := grpc.NewClient(e.config.Runtime, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to the container runtime: %w", err)
	}
	defer conn.Close()
	stream, err := cri.NewRuntimeServiceClient(conn).GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return err
		}
		if uid, s, ok := sandboxOf(event); ok {
			e.change(func(f *filter) { f.setEarly(uid, s) })
		}
	}
}

// sandbox is the network of a pod of this node; without addresses it has ended.
type sandbox struct {
	id    string
	addrs []netip.Addr
}

// sandboxOf is the sandbox that has begun or ended, and its pod. Events of other containers
// do not matter.
func sandboxOf(event *cri.ContainerEventResponse) (types.UID, sandbox, bool) {
	s := event.PodSandboxStatus
	if s == nil || event.ContainerId != s.Id {
		return "", sandbox{}, false
	}
	uid := types.UID(s.GetMetadata().GetUid())
	switch event.ContainerEventType {
	case cri.ContainerEventType_CONTAINER_CREATED_EVENT:
		texts := []string{s.GetNetwork().GetIp()}
		for _, ip := range s.GetNetwork().GetAdditionalIps() {
			texts = append(texts, ip.Ip)
		}
		var addrs []netip.Addr
		for _, text := range texts {
			if a, err := netip.ParseAddr(text); err == nil {
				addrs = append(addrs, a.Unmap())
			}
		}
		return uid, sandbox{s.Id, addrs}, len(addrs) > 0
	case cri.ContainerEventType_CONTAINER_STOPPED_EVENT:
		return uid, sandbox{id: s.Id}, true
	}
	return "", sandbox{}, false
}
