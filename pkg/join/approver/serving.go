package approver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"lite.io/lite/pkg/join/roll"
)

// serving decides about a certificate that a node's kubelet is known by.
func (j judge) serving(ctx context.Context, r *request) (*verdict, error) {
	refusal, err := roll.RefusalOf(ctx, j.client, r.name)
	if err != nil {
		return nil, err
	}
	if v := refusedOf(r, refusal); v != nil {
		return v, nil
	}
	for _, name := range r.csr.DNSNames {
		if v := j.checkName(name); v != nil {
			return v, nil
		}
	}
	for _, ip := range r.csr.IPAddresses {
		if v := j.checkIP(address(ip)); v != nil {
			return v, nil
		}
	}
	own, others := j.nodes.sortOut(r.name)
	missing := ""
	for _, san := range r.sans() {
		// A node writes its own addresses, so that it lists one proves nothing
		// if another does as well. Its name it has by its certificate.
		if other, ok := others[san]; ok && (san.isIP || san.text != r.name) {
			return denied(badAddress, "%s is a name or address of node %s; if that node is gone, delete it", san, other), nil
		}
		if !own[san] {
			missing = san.text
		}
	}
	if missing != "" {
		if missing, err = j.missing(ctx, r); err != nil {
			return nil, err
		}
	}
	if missing != "" {
		// Doubles from look to look: what has been waited is waited again.
		return waiting(r.age(), notReported, "node %s does not list %s in its status.addresses", r.name, missing), nil
	}
	return approved("serving certificate of node %s", r.name), nil
}

// missing asks the API which name or address the node does not list, "" for none: a
// kubelet asks right after it has written them, and the watch may be behind.
func (j judge) missing(ctx context.Context, r *request) (string, error) {
	own := map[san]bool{{text: r.name}: true}
	node, err := j.client.CoreV1().Nodes().Get(ctx, r.name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("read node %s: %w", r.name, err)
	}
	if err == nil {
		for _, a := range knownOf(node).addresses {
			own[a] = true
		}
	}
	for _, san := range r.sans() {
		if !own[san] {
			return san.text, nil
		}
	}
	return "", nil
}

// reserved reports that a name is of the cluster's own: clients who trust the
// cluster's authority would take its holder for the API server or a Service.
func (j judge) reserved(name string) bool {
	switch name {
	case "localhost", "kubernetes", "kubernetes.default":
		return true
	}
	return slices.Contains(j.servers, name) || j.nodes.serve(name) || strings.HasSuffix(name, ".svc") ||
		j.domain != "" && strings.HasSuffix(name, ".svc."+j.domain)
}

// canonical brings names and addresses into the form in which they are compared.
func canonical(texts []string) (all []string) {
	for _, text := range texts {
		if ip, err := netip.ParseAddr(text); err == nil {
			text = ip.Unmap().String()
		}
		all = append(all, strings.ToLower(text))
	}
	return all
}

// checkName denies names that no node may have.
func (j judge) checkName(name string) *verdict {
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return denied(badName, "DNS subjectAltName %q is not a node name: %s", name, problems[0])
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return denied(badName, "DNS subjectAltName %q is an address", name)
	}
	if j.reserved(name) {
		return denied(badName, "DNS subjectAltName %q belongs to the cluster", name)
	}
	return nil
}

// checkIP denies addresses that no node may have.
func (j judge) checkIP(ip netip.Addr) *verdict {
	if !ip.IsValid() || ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() {
		return denied(badAddress, "IP subjectAltName %s cannot be the address of a node", ip)
	}
	if slices.Contains(j.servers, ip.String()) {
		return denied(badAddress, "IP subjectAltName %s is the address of an API server", ip)
	}
	for _, p := range j.services {
		if p.Contains(ip) {
			return denied(badAddress, "IP subjectAltName %s is in %s, the range of Services", ip, p)
		}
	}
	return nil
}

// san is a name or an address in a form that can be compared.
type san struct {
	text string
	isIP bool
}

func (s san) String() string { return s.text }

// address is an IP as a netip.Addr; IPv4 has one form only.
func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// sans is all that the certificate would speak for.
func (r *request) sans() []san {
	var all []san
	for _, name := range r.csr.DNSNames {
		all = append(all, san{text: name})
	}
	for _, ip := range r.csr.IPAddresses {
		all = append(all, san{text: address(ip).String(), isIP: true})
	}
	return all
}

// reported reads an address in a node's status.
func reported(a v1.NodeAddress) (san, bool) {
	switch a.Type {
	case v1.NodeInternalIP, v1.NodeExternalIP:
		ip, err := netip.ParseAddr(a.Address)
		return san{ip.Unmap().String(), true}, err == nil
	case v1.NodeHostName, v1.NodeInternalDNS, v1.NodeExternalDNS:
		return san{text: strings.ToLower(a.Address)}, true
	}
	return san{}, false
}
