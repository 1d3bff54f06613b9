package agent

import (
	"testing"

	v1 "k8s.io/api/core/v1"

	"lite.io/lite/pkg/config"
)

func TestSocketIsOursUnlessTheUserBringsOne(t *testing.T) {
	if got := Socket(&config.Config{}); got != "unix:///run/lite/containerd/containerd.sock" {
		t.Errorf("got %q", got)
	}
	if got := Socket(&config.Config{ContainerRuntimeEndpoint: "unix:///run/crio.sock"}); got != "unix:///run/crio.sock" {
		t.Errorf("got %q", got)
	}
}

func TestNodeIsReadyWhenKubernetesSaysSo(t *testing.T) {
	with := func(conditions ...v1.NodeCondition) *v1.Node {
		return &v1.Node{Status: v1.NodeStatus{Conditions: conditions}}
	}
	memory := v1.NodeCondition{Type: v1.NodeMemoryPressure, Status: v1.ConditionTrue}
	for name, test := range map[string]struct {
		node *v1.Node
		want string
	}{
		"ready":         {with(memory, v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue}), ""},
		"not ready":     {with(v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionFalse, Message: "cni plugin not initialized"}), "cni plugin not initialized"},
		"lost":          {with(v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionUnknown, Message: "Kubelet stopped posting node status."}), "Kubelet stopped posting node status."},
		"no conditions": {with(), "the kubelet has not reported yet"},
		"others only":   {with(memory), "the kubelet has not reported yet"},
	} {
		err := notReady(test.node)
		if test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	r := &readiness{name: "node-a"}
	if err := r.Ready(t.Context()); err == nil || err.Error() != "the kubelet has not registered the node yet" || r.Name() != "node" {
		t.Errorf("%s: got %v", r.Name(), err)
	}
}
