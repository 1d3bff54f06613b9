package battery

import (
	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/addon/dns"
	"lite.io/lite/pkg/addon/metrics"
	"lite.io/lite/pkg/addon/servicelb"
	"lite.io/lite/pkg/addon/storage"
	"lite.io/lite/pkg/pki"
)

func dnsEndpoints(s *Server) {
	s.Group.Add(s.Leader.Guard(dns.NewEndpoints(dns.EndpointsConfig{
		Client: s.Lite, Nodes: s.Nodes, ClusterDNS: s.Cluster.ClusterDNS,
		NodeAddresses: s.Cluster.Disable.Has(addon.CNI), Addresses: s.Addresses,
	})), s.Roles)
}

// metricsAPI runs on each server, because each API server asks the one in its process.
func metricsAPI(s *Server) {
	s.Group.Add(metrics.New(metrics.Config{
		Client: s.Metrics, Nodes: s.Nodes, CAFile: s.PKI.CA(pki.ClusterCA),
		CertFile: s.PKI.Cert(pki.Metrics), KeyFile: s.PKI.Key(pki.Metrics),
		ClientCAFile: s.PKI.CA(pki.FrontProxyCA), ClientName: pki.FrontProxyClient,
	}), s.API)
}

// Volumes and Services are users' objects, and are written as an administrator writes them, so that users' webhooks
// see it.

func provisioner(s *Server) {
	s.Group.Add(s.Leader.Guard(storage.New(storage.Config{Client: s.Admin})), s.Roles)
}

func loadBalancer(s *Server)   { addLoadBalancer(s, false) }
func noLoadBalancer(s *Server) { addLoadBalancer(s, true) }

func addLoadBalancer(s *Server, disabled bool) {
	s.Group.Add(s.Leader.Guard(servicelb.New(servicelb.Config{
		Client: s.Admin, Nodes: s.Nodes, APIPort: s.Config.HTTPSListenPort, Addresses: s.Addresses, Disabled: disabled,
	})), s.API)
}
