package gate

import (
	"net"
	"net/http"
	"net/netip"
	"sync"

	"k8s.io/client-go/util/flowcontrol"
)

// How many certificates may be asked for. An agent needs two, and some more when it is
// started again and again; many may come at once behind one address.
const (
	perAddress, burstPerAddress = 1, 60  // a second, of one who asks
	perAsker, burstPerAsker     = 5, 200 // a second, from all addresses
)

// mostLimits bounds what is remembered of who has asked.
const mostLimits = 4096

// limits remembers how fast each has asked: a token or node, and from where. Whoever has
// asked less in between is forgotten when there are many.
type limits struct {
	mu  sync.Mutex
	all recent[flowcontrol.RateLimiter]
}

// recent remembers values by keys, those that were asked for last.
type recent[T any] struct{ young, old map[string]T }

// allow counts a request. Whoever asks from one address too fast takes nothing from the
// others that have the same token.
func (l *limits) allow(who, from string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(who+"\n"+from, perAddress, burstPerAddress).TryAccept() && l.of(who, perAsker, burstPerAsker).TryAccept()
}

func (l *limits) of(key string, rate float32, burst int) flowcontrol.RateLimiter {
	return l.all.of(key, func() flowcontrol.RateLimiter { return flowcontrol.NewTokenBucketRateLimiter(rate, burst) })
}

func (r *recent[T]) of(key string, fresh func() T) T {
	if found, ok := r.young[key]; ok {
		return found
	}
	found, ok := r.old[key]
	if !ok {
		found = fresh()
	}
	if len(r.young) >= mostLimits || r.young == nil {
		r.old, r.young = r.young, map[string]T{}
	}
	r.young[key] = found
	return found
}

// origin is the address that a request comes from, as the kernel knows it. What
// headers say of it is a claim. Of IPv6 it is the network: a machine has all of it.
func origin(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		network, err := ip.Prefix(64)
		if err != nil {
			return ""
		}
		return network.String()
	}
	return ip.String()
}
