package approver

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	certificates "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
)

// The reasons of conditions.
const (
	// NameHeld: the name that is asked for is another machine's.
	NameHeld = "NameHeld"

	nodeCertificate = "NodeCertificate" // approved
	badRequest      = "BadRequest"      // not a request that a kubelet makes
	badRequester    = "BadRequester"    // may not ask for this
	badName         = "BadName"         // would speak for what is no node, or another
	badAddress      = "BadAddress"
	notReported     = "AddressNotReported" // the node has not reported that it has what it requests
	clockWrong      = "ClockWrong"
	tokenEnded      = "TokenEnded" // since it was asked with
	tooManyNodes    = "TooManyNodes"
	nodeRefused     = "NodeRefused" // the certificate, or the key, that is asked with
)

// How long a request waits before it is denied. A kubelet asks again of itself.
// Upstream's cleaner takes away what is denied, and would leave what waits.
const (
	nameLimit    = time.Hour
	addressLimit = 5 * time.Minute
)

// judge decides what comes of a request. It remembers nothing but what the watches
// tell: all that counts is in the cluster.
type judge struct {
	client   kubernetes.Interface
	services []netip.Prefix
	domain   string
	servers  []string  // canonical
	since    time.Time // when it began
	built    time.Time // a clock that is behind it is wrong
	perHour  int       // nodes that each token may admit; 0 is as many as come
	requests *index
	nodes    *nodes
	tokens   *locks // of one token one request at a time is decided
	admitted func() // is told when there is somebody new on the roll
}

// verdict is what comes of a request: it is approved, denied, or Waiting.
type verdict struct {
	kind       certificates.RequestConditionType
	reason     string
	message    string
	retryAfter time.Duration // when to look again; only with Waiting
}

func approved(format string, args ...any) *verdict {
	return &verdict{kind: certificates.CertificateApproved, reason: nodeCertificate, message: fmt.Sprintf(format, args...)}
}

func denied(reason, format string, args ...any) *verdict {
	return &verdict{kind: certificates.CertificateDenied, reason: reason, message: fmt.Sprintf(format, args...)}
}

// waiting looks again after a minute at the latest: a lease may last for as long
// as its node pleases, and what waits has its limit.
func waiting(again time.Duration, reason, format string, args ...any) *verdict {
	again = min(max(again, time.Second), time.Minute)
	return &verdict{kind: Waiting, reason: reason, message: fmt.Sprintf(format, args...), retryAfter: again}
}

// decide returns an error only if the API failed.
func (j judge) decide(ctx context.Context, csr *certificates.CertificateSigningRequest) (verdict, error) {
	r, v := parse(csr)
	if v != nil {
		return *v, nil
	}
	if j.reserved(r.name) {
		return *denied(badName, "the name %q belongs to the cluster, and no node may have it; join with another --node-name", r.name), nil
	}
	// Its serving certificate would be for that address, whoever has it.
	if _, err := netip.ParseAddr(r.name); err == nil {
		return *denied(badName, "%q is an address, which cannot be a node name; join with another --node-name", r.name), nil
	}
	if now := time.Now(); now.Before(j.built) {
		// A certificate that is signed now would have run out once it is right.
		return *waiting(10*time.Second, clockWrong, "the clock of the server is wrong: it shows %s; set it", now.UTC().Format(time.RFC3339)), nil
	}
	ask, limit := j.joining, nameLimit
	if csr.Spec.SignerName == certificates.KubeletServingSignerName {
		ask, limit = j.serving, addressLimit
	}
	v, err := ask(ctx, r)
	if err != nil {
		return verdict{}, err
	}
	if v.kind == Waiting && r.age() >= limit {
		return *denied(v.reason, "%s; it has waited for %s", v.message, limit), nil
	}
	return *v, nil
}
