package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	certificates "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/kubernetes/pkg/kubelet/certificate/bootstrap"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/join/approver"
	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/version"
)

// Membership is what a machine has once it is a node of a cluster.
type Membership struct {
	// Servers are the URLs that the user has named, the newest first.
	Servers []string      `json:"servers"`
	Facts   cluster.Facts `json:"facts"`
	dir     layout.Agent
	refused bool // the cluster lets nobody in by the certificate that is here
}

// CAFile is the file of the cluster's CA.
func (m Membership) CAFile() string { return m.dir.CA() }

// Kubeconfig is the file of the node's identity, by way of the load balancer.
func (m Membership) Kubeconfig() string { return m.dir.Kubeconfig() }

// joined is the file of the node's identity as the kubelet's bootstrap writes
// it: straight to the server that it joined by.
func (m Membership) joined() string { return m.dir.Joined() }
func (m Membership) file() string   { return m.dir.Cluster() }

// certificates is where the kubelet keeps what the cluster has signed for it.
func (m Membership) certificates() string { return m.dir.Kubelet().PKI() }

// Join makes this machine a node of its cluster: it finds the cluster with its token,
// verifies it, and requests a certificate for a key that is created here and never leaves
// the machine. A machine that is already a node does not need a token; it updates what it
// knows of the cluster if the server answers. One whose node was deleted or revoked is new.
// report gets what is being waited for.
func Join(ctx context.Context, cfg *config.Config, report func(string)) (Membership, error) {
	m := Membership{dir: cfg.Layout().Data.Agent()}
	member, damage := m.load()
	token, err := join.Read(cfg.Token, cfg.TokenFile)
	if err != nil && !(member && errors.Is(err, fs.ErrNotExist)) {
		return m, err // a member's token may be gone
	}
	if member {
		if err := m.checkCluster(cfg, token); err != nil {
			return m, err
		}
		m.prefer(named(cfg, token))
		damage = m.refresh(ctx)
		m.refused = damage != nil
	}
	if !member || m.refused {
		if err := lacks(cfg, token, damage); err != nil {
			return m, err
		}
		if damage != nil {
			slog.Warn("Joining again", "because", damage)
		}
		if err := m.join(ctx, cfg, token, report); err != nil {
			return m, err
		}
	}
	if err := cfg.Contradicts(m.Facts); err != nil {
		return m, err
	}
	if err := m.save(); err != nil {
		return m, err
	}
	return m, Remember(cfg)
}

// Known is what the agent knows of its cluster, the zero Facts if it is in none. read
// reads a file.
func Known(cfg *config.Config, read func(path string) ([]byte, error)) cluster.Facts {
	var m Membership
	data, err := read(cfg.Layout().Data.Agent().Cluster())
	if err != nil || json.Unmarshal(data, &m) != nil || !m.Facts.Known() {
		return cluster.Facts{}
	}
	return m.Facts
}

// CheckJoin returns what is missing in the configuration to join, if the machine is not a
// node yet. It changes nothing and sends nothing.
func CheckJoin(cfg *config.Config) error {
	m := Membership{dir: cfg.Layout().Data.Agent()}
	member, damage := m.load()
	token, err := join.Read(cfg.Token, cfg.TokenFile)
	switch {
	case member && (err == nil || errors.Is(err, fs.ErrNotExist)):
		return nil
	case err != nil:
		return err
	}
	return lacks(cfg, token, damage)
}

// lacks returns what is missing to join with a token.
func lacks(cfg *config.Config, token join.Token, damage error) error {
	switch {
	case token == (join.Token{}) && damage != nil:
		return fmt.Errorf("%w; to join again, run `lite token create --print-join-command` on a server, and then the command that it prints here", damage)
	case token == (join.Token{}):
		return errors.New("token: this machine has not joined a cluster yet; run `lite token create --print-join-command` on a server and then the command that it prints here")
	case token.Server == "" && cfg.ServerURL == "":
		return errors.New("server: the token does not contain the address of the cluster; add --server https://<address of a server>:" + layout.APIPortText)
	}
	return nil
}

// named is the server that the user names, "" for none.
func named(cfg *config.Config, token join.Token) string {
	if cfg.ServerURL == "" && token.Server != "" {
		return "https://" + token.Server
	}
	return cfg.ServerURL
}

// prefer puts a server before the others. Where the only server of a cluster has
// got another address, naming it is how an agent learns that.
func (m *Membership) prefer(server string) {
	if server == "" {
		return
	}
	const enough = 3
	others := slices.DeleteFunc(m.Servers, func(s string) bool { return s == server })
	m.Servers = slices.Insert(others, 0, server)
	m.Servers = m.Servers[:min(len(m.Servers), enough)]
}

// join is the way of a machine that is new.
func (m *Membership) join(ctx context.Context, cfg *config.Config, token join.Token, report func(string)) error {
	found, err := join.Await(ctx, token, cfg.ServerURL, join.Agent, report)
	if err != nil {
		return err
	}
	m.Servers = []string{found.Server}
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: found.Server, BearerToken: bearer(token), TLSClientConfig: rest.TLSClientConfig{CAData: found.CA}, Proxy: direct,
	})
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if m.Facts, err = awaitFacts(ctx, client); err != nil {
		return err
	}
	// A machine that is configured for another cluster must not be a node of this one, not
	// even for a moment.
	if err := cfg.Contradicts(m.Facts); err != nil {
		return err
	}
	if err := m.forget(found.CA); err != nil {
		return err
	}
	if err := m.clear(cfg.NodeName); err != nil {
		return err
	}
	if err := os.MkdirAll(m.certificates(), 0o700); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := file.Write(m.CAFile(), found.CA, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", m.CAFile(), err)
	}
	for try := 1; ; try++ {
		err := m.requestCertificate(ctx, client, cfg.NodeName, found.Server, token, report)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if try == tries {
			// An answer that is final would be given for the same key again.
			return errors.Join(err, remove(m.unusedKey()))
		}
		// The server may have gone, or the token have ended, since it was asked.
		if _, err := join.Await(ctx, token, cfg.ServerURL, join.Agent, report); err != nil {
			return err
		}
	}
}

// tries is how often a certificate is asked for.
const tries = 3

// clear removes what would break the kubelet's bootstrap: an identity of another name,
// which it would use for this one, a refused one, and a key that a full disk or a kill has
// left incomplete, which ends it (1.37).
func (m *Membership) clear(nodeName string) error {
	if name, err := m.nodeName(); err == nil && (name != nodeName || m.refused) {
		if err := errors.Join(os.RemoveAll(m.certificates()), os.RemoveAll(m.joined())); err != nil {
			return fmt.Errorf("remove the identity of node %s: %w", name, err)
		}
	}
	if _, err := keyutil.PrivateKeyFromFile(m.unusedKey()); err != nil {
		return remove(m.unusedKey())
	}
	return nil
}

// unusedKey is where the kubelet's bootstrap keeps a key that has no certificate
// yet.
func (m Membership) unusedKey() string { return m.dir.Kubelet().UnusedKey() }

// remove removes a file that may not be there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// forget removes the identity that the machine had in another cluster, which
// the kubelet's bootstrap would take for one in this.
func (m *Membership) forget(ca []byte) error {
	if old, err := os.ReadFile(m.CAFile()); err != nil || bytes.Equal(old, ca) {
		return nil
	}
	if err := errors.Join(os.RemoveAll(m.certificates()), os.RemoveAll(m.joined())); err != nil {
		return fmt.Errorf("remove the identity of another cluster: %w", err)
	}
	return nil
}

// direct uses no proxy: the API is part of the cluster, and proxies in the environment are
// for images.
func direct(*http.Request) (*url.URL, error) { return nil, nil }

// awaitFacts reads the cluster's facts. A server that has just been made
// publishes them a moment after it lets tokens in.
func awaitFacts(ctx context.Context, client kubernetes.Interface) (facts cluster.Facts, err error) {
	const enough = 30 * time.Second
	for end := time.Now().Add(enough); ; {
		if facts, err = join.FetchFacts(ctx, client); err == nil || time.Now().After(end) {
			return facts, err
		}
		if !kube.Sleep(ctx, 250*time.Millisecond) {
			return facts, err
		}
	}
}

// reportWaiting reports the approver's condition of this node's request, until ctx is done:
// a reserved name can take a while to become free. It calls refused if the token is no
// longer valid, which the kubelet's bootstrap would not notice for an hour.
func reportWaiting(ctx context.Context, client kubernetes.Interface, nodeName string, report func(string), refused func()) {
	reported := ""
	for {
		if !kube.Sleep(ctx, 2*time.Second) {
			return
		}
		requests, err := client.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{
			FieldSelector: "spec.signerName=" + certificates.KubeAPIServerClientKubeletSignerName,
		})
		if apierrors.IsUnauthorized(err) {
			refused()
			return
		}
		if err != nil {
			continue
		}
		if why := waitsFor(requests.Items, nodeName); why != "" && why != reported {
			reported = why
			report(why)
		}
	}
}

// waitsFor finds why the newest request for a name waits, "" if it does not.
func waitsFor(requests []certificates.CertificateSigningRequest, nodeName string) (why string) {
	var newest time.Time
	for _, r := range requests {
		block, _ := pem.Decode(r.Spec.Request)
		if block == nil || r.CreationTimestamp.Time.Before(newest) {
			continue
		}
		asked, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || asked.Subject.CommonName != layout.NodeUser+nodeName {
			continue
		}
		newest, why = r.CreationTimestamp.Time, ""
		for _, c := range r.Status.Conditions {
			if c.Type == approver.Waiting {
				why = c.Message
			}
		}
	}
	return why
}

// requestCertificate is the kubelet's own bootstrap. The token is on the disk
// for as long as that takes, for root only.
func (m *Membership) requestCertificate(ctx context.Context, client kubernetes.Interface, nodeName, server string, token join.Token,
	report func(string)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go reportWaiting(ctx, client, nodeName, report, stop)
	file := m.dir.Bootstrap()
	if err := m.writeKubeconfig(file, server, &api.AuthInfo{Token: bearer(token)}); err != nil {
		return err
	}
	defer os.Remove(file)
	if err := bootstrap.LoadClientCert(ctx, m.joined(), file, m.certificates(), types.NodeName(nodeName)); err != nil {
		return fmt.Errorf("request a certificate for node %s: %w", nodeName, err)
	}
	return nil
}

// load reads what an earlier Join left. The error is why a machine that has
// joined is a member no more: its certificate has run out, or a file is damaged.
func (m *Membership) load() (member bool, err error) {
	data, err := os.ReadFile(m.file())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, m)
	}
	if err == nil {
		err = m.check()
	}
	if err != nil {
		*m = Membership{dir: m.dir}
		return false, fmt.Errorf("read %s: %w", m.file(), err)
	}
	for _, file := range []string{m.CAFile(), m.joined()} {
		if _, err := os.Stat(file); err != nil {
			return false, nil
		}
	}
	if ca, err := os.ReadFile(m.CAFile()); err != nil || !isCA(ca) {
		return false, fmt.Errorf("read %s: it does not contain a certificate", m.CAFile())
	}
	own, err := bootstrapped(m.dir.Kubelet().Client())
	if err != nil {
		return false, err
	}
	if !time.Now().Before(own.NotAfter) {
		return false, fmt.Errorf("the node's certificate has expired at %s", own.NotAfter.UTC().Format(time.RFC3339))
	}
	if now := time.Now(); now.After(version.Built()) && now.Add(ahead).Before(own.NotBefore) {
		return false, fmt.Errorf("the node's certificate is valid from %s on, and the clock shows %s: it was signed while the server's clock was ahead, or this machine's is behind",
			own.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return true, nil
}

// ahead is more than a clock is behind that was saved over a power cut. A clock that is
// behind the build of lite was not saved, and means nothing.
const ahead = 24 * time.Hour

func isCA(pem []byte) bool {
	_, err := join.CAHash(pem)
	return err == nil
}

// check looks for what a node cannot do without.
func (m *Membership) check() error {
	for _, server := range m.Servers {
		if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Port() == "" || u.Hostname() == "" || u.User != nil {
			return fmt.Errorf("%q is not the address of a server", server)
		}
	}
	unknown := func(p netip.Prefix) bool { return !p.IsValid() }
	switch f := m.Facts; {
	case len(m.Servers) == 0:
		return errors.New("it contains no server")
	case len(f.ClusterCIDR) == 0 || len(f.ServiceCIDR) == 0 || !f.ClusterDNS.IsValid(),
		slices.ContainsFunc(f.ClusterCIDR, unknown), slices.ContainsFunc(f.ServiceCIDR, unknown):
		return errors.New("the facts of the cluster are missing")
	}
	return nil
}

// nodeName is the name that the cluster knows this machine by.
func (m *Membership) nodeName() (string, error) {
	own, err := bootstrapped(m.dir.Kubelet().Client())
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(own.Subject.CommonName, layout.NodeUser), nil
}

// checkCluster refuses another name, which the node's certificate does not have,
// and a token of another cluster: the machine would be in the old one still, and
// its user would believe it in the new one.
func (m *Membership) checkCluster(cfg *config.Config, token join.Token) error {
	if name, err := m.nodeName(); err != nil || name != cfg.NodeName {
		return cmp.Or(err, fmt.Errorf("node-name %q: this machine is node %s of the cluster; omit node-name, or remove %s to join as another node", cfg.NodeName, name, m.dir))
	}
	ca, err := os.ReadFile(m.CAFile())
	if err != nil {
		return fmt.Errorf("read %s: %w", m.CAFile(), err)
	}
	hash, err := join.CAHash(ca)
	if err != nil {
		return fmt.Errorf("read %s: %w", m.CAFile(), err)
	}
	if token.CAHash != "" && token.CAHash != hash {
		return fmt.Errorf("token: its cluster (CA %.12s…) is not the one that this machine is in (CA %.12s…); remove %s to leave the old one", token.CAHash, hash, m.dir)
	}
	return nil
}

// refresh updates the facts; without an answer, the known ones serve as well. The error
// means that the cluster refuses the node's certificate permanently.
func (m *Membership) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	cfg, err := kube.ClientConfig(m.joined(), "join")
	if err != nil {
		return nil
	}
	cfg.Host, cfg.Proxy = m.Servers[0], direct
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil
	}
	facts, err := join.FetchFacts(ctx, client)
	switch {
	case err == nil:
		m.Facts = facts
	case apierrors.HasStatusCause(err, roll.Refused):
		return fmt.Errorf("this machine is no longer a node of the cluster: %w", err)
	}
	return nil
}

func (m *Membership) save() error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", m.file(), err)
	}
	if err := file.Write(m.file(), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", m.file(), err)
	}
	current := m.dir.Kubelet().Client()
	if _, err := bootstrapped(current); err != nil {
		return err
	}
	return m.writeKubeconfig(m.Kubeconfig(), "https://"+layout.Local(layout.BalancerPort),
		&api.AuthInfo{ClientCertificate: current, ClientKey: current})
}

func (m *Membership) writeKubeconfig(path, server string, user *api.AuthInfo) error {
	const name = "lite"
	content, err := clientcmd.Write(api.Config{
		Clusters:       map[string]*api.Cluster{name: {Server: server, CertificateAuthority: m.CAFile()}},
		AuthInfos:      map[string]*api.AuthInfo{name: user},
		Contexts:       map[string]*api.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	})
	if err != nil {
		return fmt.Errorf("create kubeconfig %s: %w", path, err)
	}
	if err := file.Write(path, content, 0o600); err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", path, err)
	}
	return nil
}

// bearer is how the API knows the token.
func bearer(t join.Token) string { return join.Token{ID: t.ID, Secret: t.Secret}.Text() }

// bootstrapped finds the node's certificate as the kubelet keeps and renews it,
// in one file with its key.
func bootstrapped(file string) (*x509.Certificate, error) {
	certs, err := cert.CertsFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	return certs[0], nil
}
