package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// peer is the server that is asked. client-go is no help here: it hides the
// Date of answers, and repeats requests on its own.
type peer struct {
	server string // URL
	client *http.Client
	clock  time.Time // what the server's was, if that is known
}

const (
	dialTimeout    = 5 * time.Second
	answerTimeout  = 10 * time.Second // of one request, with the dialing
	longestAnswer  = 4 << 20          // more than fits into etcd
	longestMessage = 500              // bytes of an error that are repeated
)

// unverified is for the one request that learns the CA. It sends nothing, and
// nothing of the answer is used before the token has vouched for it.
func unverified() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
}

func verified(ca []*x509.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	for _, cert := range ca {
		pool.AddCert(cert)
	}
	return &tls.Config{RootCAs: pool}
}

// client makes one that goes nowhere but to the server: not by a proxy, since
// the node's own connections will not either, and not where an answer leads to.
func client(c *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:       (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:   c,
			DisableKeepAlives: true,
		},
		Timeout:       answerTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is how a request went.
type answer struct {
	code       int
	kubernetes bool // an error in the form of the Kubernetes API
	date       time.Time
	message    string              // the error's, on one line
	shown      []*x509.Certificate // what the server has shown, its own first
}

// ask makes one request, with a bearer token unless it is "", and reads a
// successful answer into object. Not getting an answer is an *Error.
func (p peer) ask(ctx context.Context, method, path, bearer string, body string, object any) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.server+path, strings.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("ask %s: %w", p.server, err)
	}
	req.Header.Set("User-Agent", "lite/join")
	req.Header.Set("Accept", "application/json")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return answer{}, p.noAnswer(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, longestAnswer))
	if err != nil {
		return answer{}, p.noAnswer(err)
	}
	a := answer{code: res.StatusCode}
	if res.TLS != nil {
		a.shown = res.TLS.PeerCertificates
	}
	a.date, _ = http.ParseTime(res.Header.Get("Date"))
	if res.StatusCode/100 == 2 {
		if err := json.Unmarshal(data, object); err != nil {
			return a, p.notKubernetes("answers with something else", err)
		}
		return a, nil
	}
	var s metav1.Status
	if a.kubernetes = json.Unmarshal(data, &s) == nil && s.Kind == "Status"; a.kubernetes {
		a.message = strings.Join(strings.Fields(s.Message), " ")
		a.message = a.message[:min(len(a.message), longestMessage)]
	}
	return a, nil
}

// unexpected is for answers that have no meaning of their own.
func (p peer) unexpected(a answer) error {
	// The server's own words might be anything.
	status := fmt.Sprintf("answers %d %s", a.code, http.StatusText(a.code))
	if a.code >= 500 || a.code == http.StatusTooManyRequests {
		return p.starting("its API (it " + status + ")")
	}
	return p.notKubernetes(status, nil)
}
