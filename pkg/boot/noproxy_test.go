package boot

import (
	"net"
	"net/netip"
	"testing"

	"lite.io/lite/pkg/config"
)

func TestNoProxy(t *testing.T) {
	cfg := config.Config{
		Role:   config.Server,
		NodeIP: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
	}
	local := []net.Addr{
		&net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(8, 32)},
		&net.IPNet{IP: net.IPv4(198, 51, 100, 1), Mask: net.CIDRMask(24, 32)},
		&net.IPNet{IP: net.IPv4(192, 0, 2, 7), Mask: net.CIDRMask(24, 32)},
	}
	const ours = ".svc,.cluster.local,10.42.0.0/16,10.43.0.0/16,192.0.2.0/24"
	for name, test := range map[string]struct {
		role config.Role
		env  map[string]string
		want string
	}{
		"no proxy":         {config.Server, map[string]string{"NO_PROXY": "a.test"}, "a.test"},
		"nothing said":     {config.Server, map[string]string{"https_proxy": "http://p:1"}, ours},
		"something said":   {config.Server, map[string]string{"HTTP_PROXY": "http://p:1", "no_proxy": "a.test"}, "a.test," + ours},
		"both are written": {config.Server, map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "a.test", "no_proxy": "b.test"}, "a.test," + ours},
		"agent":            {config.Agent, map[string]string{"HTTPS_PROXY": "http://p:1"}, ""},
	} {
		cfg.Role = test.role
		if got := noProxy(&cfg, config.StandardFacts(), func(name string) string { return test.env[name] }, local); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
