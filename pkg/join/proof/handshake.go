package proof

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"lite.io/lite/pkg/layout"
)

// askTimeout is for one connection.
const askTimeout = 5 * time.Second

// handshake asks kubelets who they are, by the cluster's authority.
type handshake struct{ roots *x509.CertPool }

// ask wants the node's own kubelet to answer. Its certificate need not name the address:
// the approver gives a node a certificate for any address that it reports and nobody
// else does. That it has the key is what a handshake shows.
func (h handshake) ask(ctx context.Context, c claim) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	certs, err := shown(ctx, c.at)
	if err == nil {
		err = h.verify(certs, c.node)
	}
	if err != nil {
		return fmt.Errorf("ask the kubelet at port %d: %w", c.at.Port(), err)
	}
	return nil
}

// shown is the certificates that somebody shows who has the key of the first. They are
// verified when the connection is over: whoever is asked in vain would log each time that
// we did not like his.
func shown(ctx context.Context, at netip.AddrPort) ([]*x509.Certificate, error) {
	dialer := net.Dialer{}
	conn, err := dialer.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil, plain(err)
	}
	client := tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}) //nolint:gosec // see above
	defer client.Close()
	if err := client.HandshakeContext(ctx); err != nil {
		return nil, plain(err)
	}
	return client.ConnectionState().PeerCertificates, nil
}

// plain leaves out what a connection is called, such as its own port, which is another
// each time.
func plain(err error) error {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer")
	case errors.As(err, &op):
		return op.Err
	}
	return err
}

func (h handshake) verify(certs []*x509.Certificate, node string) error {
	if len(certs) == 0 {
		return errors.New("no certificate is shown")
	}
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	// By default it has to be one to serve: that of a client may be elsewhere.
	if _, err := certs[0].Verify(x509.VerifyOptions{Roots: h.roots, Intermediates: intermediates}); err != nil {
		return errors.New("who answers has no serving certificate of the cluster's authority")
	}
	name := certs[0].Subject.CommonName
	if name != layout.NodeUser+node || !slices.Contains(certs[0].Subject.Organization, layout.NodesGroup) {
		return fmt.Errorf("%.80q answers there", name)
	}
	return nil
}
