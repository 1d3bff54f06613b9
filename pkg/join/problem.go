package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"lite.io/lite/pkg/layout"
)

// Error is why a machine cannot join, for the one who sits before it.
type Error struct {
	Problem string // a sentence without a full stop
	Remedy  string // what the user can do, in the imperative
	Retry   bool   // whether it can heal by itself
	err     error

	topic  string // stays the same while details of Problem change; "" if none do
	recent bool   // is also so for seconds after the token was made
}

func (e *Error) Error() string { return e.Problem + "; " + e.Remedy }

func (e *Error) Unwrap() error { return e.err }

// noAnswer reports why a request got none. The texts of the net package name ports
// that are others each time, so they are not repeated.
func (p peer) noAnswer(err error) error {
	var (
		name   *net.DNSError
		op     *net.OpError
		record tls.RecordHeaderError
		cert   *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &cert):
		return p.untrusted(cert.Err)
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return p.notKubernetes("does not speak TLS", err)
	case errors.As(err, &op) && op.Op == "remote error":
		return p.notKubernetes("does not accept TLS connections from here ("+op.Err.Error()+")", err)
	case errors.As(err, &name) && name.IsNotFound && !name.IsTemporary:
		return &Error{
			Problem: fmt.Sprintf("the name %s of the server does not exist", name.Name),
			Remedy:  "correct the server's address, or make this machine resolve the name",
			err:     err,
		}
	case errors.As(err, &name):
		return p.unreachable(fmt.Sprintf("cannot look up the name %s", name.Name), err)
	case errors.Is(err, context.Canceled):
		return p.unreachable("the request was canceled", err)
	case isTimeout(err):
		return p.unreachable("no answer in time", err)
	}
	var number syscall.Errno
	if errors.As(err, &number) {
		return p.unreachable(number.Error(), err)
	}
	return p.unreachable("the connection was closed", err)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func (p peer) unreachable(why string, err error) error {
	return &Error{
		Problem: fmt.Sprintf("cannot reach the server %s: %s", p.server, why),
		Remedy:  "start `lite server` there, and open that port to this machine",
		Retry:   true,
		err:     err,
	}
}

func (p peer) notKubernetes(what string, err error) error {
	return &Error{
		Problem: fmt.Sprintf("what listens at %s is not a lite server: it %s", p.server, what),
		Remedy:  "correct the server's address; its port is " + layout.APIPortText + " unless --https-listen-port changes it",
		err:     err,
	}
}

// starting is for answers that a server gives for some seconds.
func (p peer) starting(waiting string) error {
	return &Error{
		Problem: fmt.Sprintf("the server %s is not ready: waiting for %s", p.server, waiting),
		Remedy:  "if that lasts, check `lite status` on the server",
		Retry:   true,
	}
}

// untrusted reports why the server's certificate is not good under the CA.
func (p peer) untrusted(err error) error {
	var (
		invalid x509.CertificateInvalidError
		host    x509.HostnameError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return p.outOfTime(invalid)
	case errors.As(err, &host):
		return &Error{
			Problem: fmt.Sprintf("the certificate of the server %s is not for that address", p.server),
			Remedy:  "add the address to --tls-san of `lite server`, or use another address of the server",
			err:     err,
		}
	}
	return &Error{
		Problem: fmt.Sprintf("the certificate of the server %s is not signed by the cluster's CA (%s)", p.server, strings.TrimPrefix(err.Error(), "x509: ")),
		Remedy:  "make sure that the address is the server's: another machine, or somebody in between, answers there",
		err:     err,
	}
}

// aloof is how far clocks may be apart before they count as different.
const aloof = 2 * time.Minute

// outOfTime is for a certificate that is not valid now, by this clock.
func (p peer) outOfTime(err x509.CertificateInvalidError) error {
	now := time.Now()
	valid := fmt.Sprintf("valid from %s to %s", stamp(err.Cert.NotBefore), stamp(err.Cert.NotAfter))
	e := &Error{
		Problem: fmt.Sprintf("the certificate of the server %s is %s, and this machine's clock shows %s", p.server, valid, stamp(now)),
		Remedy:  "set the clocks of both machines, preferably with NTP (`timedatectl set-ntp true`)",
		Retry:   true,
		err:     err,
		topic:   "clock " + valid,
	}
	if p.clock.IsZero() {
		return e
	}
	e.Problem += ", the server's " + stamp(p.clock)
	if now.Sub(p.clock).Abs() < aloof {
		e.Remedy = "the clocks agree: if they are right, restart `lite server`, which renews its certificates"
	}
	return e
}

func (p peer) wrongCA(want string, got []string) error {
	if len(got) == 0 {
		return &Error{
			Problem: fmt.Sprintf("the server %s presents neither cluster-info nor the CA with the hash %s from the token", p.server, want),
			Remedy:  "use the address of the server itself, not of a proxy; or allow anonymous requests to read cluster-info",
		}
	}
	return &Error{
		Problem: fmt.Sprintf("the CA of %s has the hash %s, but the token has %s", p.server, strings.Join(got, ", "), want),
		Remedy: "make sure that the address is the server's, and use a token of that cluster: " +
			"this is another cluster, or somebody is in between",
	}
}

// closed is for a token without a hash, where no anonymous request is allowed.
func (p peer) closed() error {
	return &Error{
		Problem: fmt.Sprintf("the server %s allows no anonymous requests, and the token does not contain the hash of its CA", p.server),
		Remedy:  "use a full token, which begins with lite://, as `lite token create` prints it on the server",
	}
}

// unknown is for a token that is not let in, where the server does not say why.
func (p peer) unknown(t Token) error {
	return &Error{
		Problem: fmt.Sprintf("the server %s does not accept the token %s: it has expired, was deleted, has another secret, or never belonged to this cluster", p.server, t.ID),
		Remedy:  "compare it with `lite token list` on the server, or create one with `lite token create`",
		recent:  true,
	}
}

// absent is for a token that cluster-info has no signature of.
func (p peer) absent(t Token, i info) error {
	if how, when := i.ended(t.ID); how != "" {
		return p.over(t, how, when)
	}
	if !i.signed() {
		return &Error{
			Problem: fmt.Sprintf("the cluster at %s has no valid token, or none yet", p.server),
			Remedy:  "create one with `lite token create`, unless the server has just started",
			Retry:   true,
		}
	}
	return &Error{
		Problem: fmt.Sprintf("the cluster at %s has no token with the ID %s", p.server, t.ID),
		Remedy:  "compare the token and the address with `lite token list` on the server, or create one with `lite token create`",
		recent:  true,
	}
}

func (p peer) over(t Token, how Ending, when time.Time) error {
	did := "was deleted at "
	if how == Expired {
		did = "expired at "
	}
	return &Error{
		Problem: fmt.Sprintf("the token %s %s%s", t.ID, did, stamp(when)),
		Remedy:  "create one with `lite token create` on the server",
	}
}

func (p peer) wrongSecret(t Token) error {
	return &Error{
		Problem: fmt.Sprintf("the cluster at %s has the token %s with another secret", p.server, t.ID),
		Remedy:  "copy the whole token again, or create one with `lite token create` on the server",
		recent:  true,
	}
}

// refused is for a token that has the right secret, as its signature shows, and
// yet is not let in.
func (p peer) refused(t Token) error {
	return &Error{
		Problem: fmt.Sprintf("the server %s no longer accepts the token %s: it has expired or was deleted", p.server, t.ID),
		Remedy:  "create one with `lite token create` on the server",
		recent:  true,
	}
}

func (p peer) wrongRole(t Token, want, is Role) error {
	if is == "" {
		return &Error{
			Problem: fmt.Sprintf("the token %s is not for joining lite", t.ID),
			Remedy:  fmt.Sprintf("create one with `lite token create --role %s` on the server", want),
		}
	}
	return &Error{
		Problem: fmt.Sprintf("the token %s is for joining as %s, not as %s", t.ID, is, want),
		Remedy:  fmt.Sprintf("start `lite %s` with it, or create another one with `lite token create --role %s` on the server", is, want),
	}
}
