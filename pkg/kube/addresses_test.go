package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/pkg/layout"
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

var cluster = NodeAddresses{
	Pods: prefixes("10.42.0.0/16", "fd42::/56"), Services: prefixes("10.43.0.0/16", "fd43::/112"), API: addresses("192.0.2.1"),
}

// The zone of an address may have any length, and what is refused is logged.
func TestARefusalIsShort(t *testing.T) {
	err := cluster.Check(netip.MustParseAddr("fe80::1%"+strings.Repeat("a", 100<<10)), false)
	if err == nil || len(err.Error()) > 100 {
		t.Errorf("got %.200v", err)
	}
}

func TestProven(t *testing.T) {
	for text, want := range map[string][]netip.Addr{
		"": nil, "192.0.2.7": addresses("192.0.2.7"), "192.0.2.7, 2001:db8::7": addresses("192.0.2.7", "2001:db8::7"), "x,,192.0.2.7": addresses("192.0.2.7"),
	} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{layout.ProvenAnnotation: text}}}
		if got, decided := Proven(n); !decided || !slices.Equal(got, want) {
			t.Errorf("%q: got %v, %t", text, got, decided)
		}
	}
	if got, decided := Proven(&corev1.Node{}); decided || got != nil {
		t.Errorf("got %v, %t", got, decided)
	}
}

func TestAddressesThatNoNodeHas(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "", "2001:db8::7": "", "203.0.113.9": "",
		"192.0.2.1":        "192.0.2.1 is an address of the API server",
		"10.43.0.1":        "10.43.0.1 is an address of Services",
		"fd43::a":          "fd43::a is an address of Services",
		"10.42.3.1":        "10.42.3.1 is an address of pods",
		"127.0.0.1":        "127.0.0.1 cannot be the address of a host",
		"::1":              "::1 cannot be the address of a host",
		"0.0.0.0":          "0.0.0.0 cannot be the address of a host",
		"::":               ":: cannot be the address of a host",
		"224.0.0.1":        "224.0.0.1 cannot be the address of a host",
		"169.254.1.1":      "169.254.1.1 cannot be the address of a host",
		"fe80::1":          "fe80::1 cannot be the address of a host",
		"255.255.255.255":  "255.255.255.255 cannot be the address of a host",
		"::ffff:127.0.0.1": "::ffff:127.0.0.1 cannot be the address of a host",
		"::ffff:10.43.0.1": "::ffff:10.43.0.1 cannot be the address of a host",
		"2001:db8::7%eth0": "2001:db8::7%eth0 cannot be the address of a host",
	} {
		got := ""
		if err := cluster.Check(netip.MustParseAddr(text), false); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
	if err := cluster.Check(cluster.API[0], true); err != nil {
		t.Errorf("a server's own address: %v", err)
	}
}

func TestTheOlderNodeHasAnAddress(t *testing.T) {
	began := time.Unix(1e9, 0)
	claims := []Claim{
		{"a0", began.Add(time.Hour), false, addresses("192.0.2.2", "192.0.2.9", "10.43.0.10", "192.0.2.9"), nil},
		{"server", began, true, addresses("192.0.2.1"), nil},
		{"h2", began.Add(time.Minute), false, addresses("192.0.2.2", "192.0.2.1"), nil},
	}
	have, refused := cluster.Sort(claims)
	if got, want := fmt.Sprint(have), "map[a0:[192.0.2.9] h2:[192.0.2.2] server:[192.0.2.1]]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	own := cluster
	own.Own = "h3"
	if have, refused := own.Sort([]Claim{{"h3", began, false, addresses("192.0.2.1"), nil}}); len(have["h3"]) != 1 || refused != nil {
		t.Errorf("this server's Node before it has its role: %v, %v", have, refused)
	}
	if got, want := fmt.Sprint(refused), "[node h2: 192.0.2.1 is an address of the API server node a0: 192.0.2.2 is an address of node h2, which is older node a0: 10.43.0.10 is an address of Services]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Whoever claims an address first, and shows nothing, does not have it: neither that of another
// node nor, were something written there for it, the API server's.
func TestWhoHasProvenAnAddressHasIt(t *testing.T) {
	began := time.Unix(1e9, 0)
	have, refused := cluster.Sort([]Claim{
		{"a0", began, false, addresses("192.0.2.2", "192.0.2.1", "192.0.2.5"), addresses("192.0.2.1")},
		{"server", began.Add(time.Minute), true, addresses("192.0.2.1"), nil},
		{"h2", began.Add(time.Hour), false, addresses("192.0.2.2"), addresses("192.0.2.2", "192.0.2.5")},
		{"h3", began.Add(2 * time.Hour), false, addresses("192.0.2.2"), addresses("192.0.2.2")},
	})
	if got, want := fmt.Sprint(have), "map[a0:[192.0.2.5] h2:[192.0.2.2] server:[192.0.2.1]]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(refused), "[node a0: 192.0.2.2 is an address of node h2, which has proven it node a0: 192.0.2.1 is an address of the API server node h3: 192.0.2.2 is an address of node h2, which has proven it]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
