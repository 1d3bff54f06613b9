package config

import (
	"fmt"
	"strings"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// kubeletPort is where the API server reaches the kubelet of every node.
const kubeletPort = 10250

// otherPorts is who listens on which port of a server besides the API server,
// on all addresses or on loopback.
var otherPorts = map[int]string{
	2379:        "etcd",
	2380:        "etcd",
	10248:       "the kubelet",
	10249:       "kube-proxy",
	kubeletPort: "the kubelet",
	10256:       "kube-proxy",
	10257:       "the controller manager",
	10259:       "the scheduler",
	10349:       "the metrics API",
}

// nodePorts is what Services are given ports of, unless the API server is told
// another range.
var nodePorts = utilnet.PortRange{Base: 30000, Size: 2768}

// validatePort keeps the API server off the ports of all others. One that is
// taken on another address only is refused too: nobody should have to know.
func (c *Config) validatePort(wrong func(key string, value any, problem, remedy string)) {
	const key, remedy = "https-listen-port", "use another port, like 6443"
	if who, taken := otherPorts[c.HTTPSListenPort]; taken {
		wrong(key, c.HTTPSListenPort, "is a port that "+who+" listens on", remedy)
	}
	services := nodePorts
	for _, arg := range c.APIServerArgs {
		if text, ok := strings.CutPrefix(arg, "service-node-port-range="); ok {
			_ = services.Set(text) // kube-apiserver says what is wrong with it
		}
	}
	if services.Contains(c.HTTPSListenPort) {
		wrong(key, c.HTTPSListenPort, fmt.Sprintf("is one of the ports %s, which a Service may be given", services), remedy)
	}
}
