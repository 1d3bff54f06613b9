package upgrade

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// container is one that runs, and has to run still when lite is another.
type container struct {
	ID     string `json:"id"`
	Name   string `json:"name"` // namespace/pod/container
	PodUID string `json:"podUID"`
}

// The labels that the kubelet puts on containers.
const (
	labelPod       = "io.kubernetes.pod.name"
	labelNamespace = "io.kubernetes.pod.namespace"
	labelUID       = "io.kubernetes.pod.uid"
	labelContainer = "io.kubernetes.container.name"
)

// withRuntime asks the container runtime itself: the API knows containers only as of the
// kubelet's last check.
func withRuntime(endpoint string, f func(cri.RuntimeServiceClient) error) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to the container runtime: %w", err)
	}
	defer conn.Close()
	return f(cri.NewRuntimeServiceClient(conn))
}

// runningContainers lists those of pods.
func runningContainers(ctx context.Context, endpoint string) (running []container, err error) {
	err = withRuntime(endpoint, func(runtime cri.RuntimeServiceClient) error {
		running, err = listRunning(ctx, runtime)
		return err
	})
	return running, err
}

func listRunning(ctx context.Context, runtime cri.RuntimeServiceClient) ([]container, error) {
	list, err := runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
		State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return nil, fmt.Errorf("list the containers of this node: %w", err)
	}
	var running []container
	for _, c := range list.Containers {
		running = append(running, container{
			ID: c.Id, PodUID: c.Labels[labelUID],
			Name: c.Labels[labelNamespace] + "/" + c.Labels[labelPod] + "/" + c.Labels[labelContainer],
		})
	}
	return running, nil
}

// compareContainers returns which of the containers that ran before were lost to the
// change, and which have ended for other reasons: a program that exits because the API was
// away is restarted, as its author intended, and a pod that was deleted is gone.
func compareContainers(ctx context.Context, endpoint string, before []container) (lost, ended []string, err error) {
	err = withRuntime(endpoint, func(runtime cri.RuntimeServiceClient) error {
		now, err := listRunning(ctx, runtime)
		if err != nil {
			return err
		}
		for _, c := range before {
			if slices.ContainsFunc(now, func(other container) bool { return other.ID == c.ID }) {
				continue
			}
			why, ours, err := explainEnd(ctx, runtime, c)
			if err != nil {
				return err
			}
			if ours {
				lost = append(lost, c.Name+" ("+why+")")
			} else {
				ended = append(ended, c.Name+" ("+why+")")
			}
		}
		return nil
	})
	return lost, ended, err
}

// What the runtime reports about a program that did not exit on its own: that it was
// killed, or that its end is unknown, because the runtime lost track of it.
const (
	exitKilled    = 128 + 9
	reasonUnknown = "Unknown"
)

// explainEnd returns why a container no longer runs; ours is whether lite may be the cause.
func explainEnd(ctx context.Context, runtime cri.RuntimeServiceClient, c container) (why string, ours bool, err error) {
	sandboxes, err := runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		LabelSelector: map[string]string{labelUID: c.PodUID},
	}})
	if err != nil {
		return "", false, fmt.Errorf("get the pod of %s: %w", c.Name, err)
	}
	if len(sandboxes.Items) == 0 {
		return "its pod was deleted", false, nil
	}
	answer, err := runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: c.ID})
	if grpcstatus.Code(err) == codes.NotFound {
		return "it is gone, but its pod is not", true, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("inspect container %s: %w", c.Name, err)
	}
	s := answer.Status
	why = fmt.Sprintf("exit code %d", s.ExitCode)
	if s.Reason != "" {
		why += ", " + s.Reason
	}
	switch {
	case s.State != cri.ContainerState_CONTAINER_EXITED:
		return "its state is not known", true, nil
	case s.Reason == "OOMKilled":
		return why, false, nil
	case s.ExitCode == exitKilled, s.Reason == reasonUnknown:
		return why, true, nil
	}
	return why, false, nil
}
