package approver

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificates "k8s.io/api/certificates/v1"
	coordination "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

var _ component.Component = (*Approver)(nil)

const (
	approvedKind = certificates.CertificateApproved
	deniedKind   = certificates.CertificateDenied
)

// ask is a request as a kubelet makes it, before it is signed.
type ask struct {
	signer string
	user   string
	groups []string
	usages []certificates.KeyUsage
	csr    x509.CertificateRequest
	key    crypto.Signer
	data   []byte // instead of the signed request
	// What the API server notes of who asks.
	address string
	shown   string
}

// joins is what a kubelet asks with a token.
func joins(node string) *ask {
	return &ask{
		signer: certificates.KubeAPIServerClientKubeletSignerName,
		user:   "system:bootstrap:abcdef",
		groups: []string{"system:bootstrappers", "system:bootstrappers:lite:agent", "system:authenticated"},
		usages: []certificates.KeyUsage{certificates.UsageDigitalSignature, certificates.UsageClientAuth},
		csr: x509.CertificateRequest{Subject: pkix.Name{
			CommonName: "system:node:" + node, Organization: []string{"system:nodes"},
		}},
		key: newKey(elliptic.P256()),
	}
}

// renews is what a kubelet asks with the certificate it has.
func renews(node string) *ask {
	a := joins(node)
	a.user, a.groups = "system:node:"+node, []string{"system:nodes", "system:authenticated"}
	return a
}

// serves is what a kubelet asks when it knows its addresses.
func serves(node string, ips ...string) *ask {
	a := renews(node)
	a.signer = certificates.KubeletServingSignerName
	a.usages = []certificates.KeyUsage{certificates.UsageDigitalSignature, certificates.UsageServerAuth}
	a.csr.DNSNames = []string{node}
	for _, ip := range ips {
		a.csr.IPAddresses = append(a.csr.IPAddresses, net.ParseIP(ip))
	}
	return a
}

// but changes one thing.
func (a *ask) but(change func(*ask)) *ask { change(a); return a }

func newKey(curve elliptic.Curve) crypto.Signer { return must(ecdsa.GenerateKey(curve, rand.Reader)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (a *ask) pem() []byte {
	if a.data != nil {
		return a.data
	}
	return encode(must(x509.CreateCertificateRequest(rand.Reader, &a.csr, a.key)))
}

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// cluster is a fake API with an approver. It is to be used within synctest.
type cluster struct {
	*fake.Clientset
	t        *testing.T
	approver *Approver
}

func newCluster(t *testing.T, present ...runtime.Object) *cluster {
	token := join.Secret(join.Token{ID: "abcdef", Secret: "0123456789abcdef"}, join.Settings{Role: join.Agent})
	return &cluster{fake.NewClientset(append(present, token)...), t, New(Config{
		ServiceCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")},
		ClusterDomain: "cluster.local",
		Servers:       []string{"server1", "API.example.com", "::ffff:192.0.2.50", "2001:db8:0::50"},
	})}
}

// start runs the approver until stop; it returns when all that was there is
// handled.
func (c *cluster) start() (stop func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.approver.run(ctx, c, kube.NodesOf(c)) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	}
}

// with says by which key a node is known that asks.
func (a *ask) with(key string) *ask { a.shown = key; return a }

// keyName names the key that is asked for.
func (a *ask) keyName() string { return roll.Key(must(x509.MarshalPKIXPublicKey(a.key.Public()))) }

// object is the request as the API has it.
func (a *ask) object(name string) *certificates.CertificateSigningRequest {
	csr := &certificates.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.Now()},
		Spec: certificates.CertificateSigningRequestSpec{
			Request: a.pem(), SignerName: a.signer, Username: a.user, Groups: a.groups, Usages: a.usages,
			Extra: map[string]certificates.ExtraValue{},
		},
	}
	if a.address != "" {
		csr.Spec.Extra[layout.AddressExtra] = certificates.ExtraValue{a.address}
	}
	if a.shown != "" {
		csr.Spec.Extra[layout.KeyExtra] = certificates.ExtraValue{a.shown}
	}
	return csr
}

func (c *cluster) create(name string, a *ask) {
	c.t.Helper()
	if _, err := c.CertificatesV1().CertificateSigningRequests().Create(c.t.Context(), a.object(name), metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// ask makes a request and waits until what can be done at once is done.
func (c *cluster) ask(name string, a *ask) {
	c.t.Helper()
	c.create(name, a)
	synctest.Wait()
}

func (c *cluster) request(name string) *certificates.CertificateSigningRequest {
	c.t.Helper()
	csr, err := c.CertificatesV1().CertificateSigningRequests().Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return csr
}

// want checks what has come of a request; kind "" is nothing at all.
func (c *cluster) want(name string, kind certificates.RequestConditionType, message string) {
	c.t.Helper()
	synctest.Wait()
	conditions := c.request(name).Status.Conditions
	if kind == "" {
		if len(conditions) > 0 {
			c.t.Errorf("%s: got %+v, want nothing", name, conditions)
		}
		return
	}
	if len(conditions) != 1 || conditions[0].Type != kind || !strings.Contains(conditions[0].Message, message) {
		c.t.Errorf("%s: got %+v, want %s with %q", name, conditions, kind, message)
		return
	}
	if conditions[0].Status != v1.ConditionTrue || conditions[0].Reason == "" || conditions[0].LastUpdateTime.IsZero() {
		c.t.Errorf("%s: %+v is not complete", name, conditions[0])
	}
}

// issue is what the signer does.
func (c *cluster) issue(name string) {
	c.t.Helper()
	csr := c.request(name)
	csr.Status.Certificate = []byte("a certificate")
	if _, err := c.CertificatesV1().CertificateSigningRequests().UpdateStatus(c.t.Context(), csr, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// register makes the node, as of now.
func (c *cluster) register(name string, addresses ...v1.NodeAddress) {
	c.t.Helper()
	n := node(name, addresses...)
	n.CreationTimestamp = metav1.Now()
	if _, err := c.CoreV1().Nodes().Create(c.t.Context(), n, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) report(name string, addresses ...v1.NodeAddress) {
	c.t.Helper()
	if _, err := c.CoreV1().Nodes().UpdateStatus(c.t.Context(), node(name, addresses...), metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// renew writes the node's lease, as of now.
func (c *cluster) renew(name string) {
	c.t.Helper()
	now, lasts := metav1.NowMicro(), int32(40)
	lease := &coordination.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: v1.NamespaceNodeLease},
		Spec:       coordination.LeaseSpec{RenewTime: &now, LeaseDurationSeconds: &lasts},
	}
	api := c.CoordinationV1().Leases(v1.NamespaceNodeLease)
	_, err := api.Update(c.t.Context(), lease, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(c.t.Context(), lease, metav1.CreateOptions{})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func node(name string, addresses ...v1.NodeAddress) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Addresses: addresses}}
}

func internal(ip string) v1.NodeAddress { return v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip} }

// A node that claims all addresses of a network keeps no other from being one: neither where
// none is proven to be its own, nor while it is not ready and nobody knows.
func TestANodeKeepsOnlyAFewAddressesFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuted, open := node("refuted"), node("open")
		for i := range 250 {
			refuted.Status.Addresses = append(refuted.Status.Addresses, internal(fmt.Sprintf("192.0.2.%d", i)))
			open.Status.Addresses = append(open.Status.Addresses, internal(fmt.Sprintf("198.51.100.%d", i)))
		}
		refuted.Annotations = map[string]string{layout.ProvenAnnotation: "192.0.2.200"}
		asks := map[string]certificates.RequestConditionType{
			"192.0.2.7": approvedKind, "192.0.2.200": deniedKind, "198.51.100.7": deniedKind, "198.51.100.8": approvedKind,
		}
		present := []runtime.Object{refuted, open}
		for ip := range asks {
			present = append(present, node("n-"+ip, internal(ip)))
		}
		c := newCluster(t, present...)
		defer c.start()()
		for ip, want := range asks {
			c.ask("csr-"+ip, serves("n-"+ip, ip))
			c.want("csr-"+ip, want, "")
		}
	})
}

// TestDecisions has what can be decided at once. The cluster has the nodes n1
// and n2, of which nobody has heard for long.
func TestDecisions(t *testing.T) {
	weak, strong := must(rsa.GenerateKey(rand.Reader, 1024)), must(rsa.GenerateKey(rand.Reader, 2048))
	_, edwards := must2(ed25519.GenerateKey(rand.Reader))
	forged := must(x509.CreateCertificateRequest(rand.Reader, &joins("n9").csr, newKey(elliptic.P256())))
	forged[len(forged)-1] ^= 1
	extra := func(n *pkix.Name) {
		n.ExtraNames = []pkix.AttributeTypeAndValue{{Type: []int{1, 3, 6, 1, 4, 1, 57683, 2}, Value: "uid"}}
	}

	for name, test := range map[string]struct {
		ask  *ask
		kind certificates.RequestConditionType
		want string
	}{
		"an agent joins":    {joins("n9"), approvedKind, "n9"},
		"a server joins":    {joins("n9").but(func(a *ask) { a.groups = []string{"system:bootstrappers:lite:server"} }), approvedKind, "n9"},
		"key encipherment":  {joins("n9").but(func(a *ask) { a.usages = append(a.usages, certificates.UsageKeyEncipherment) }), approvedKind, ""},
		"an RSA key":        {joins("n9").but(func(a *ask) { a.key = strong }), approvedKind, ""},
		"an Ed25519 key":    {joins("n9").but(func(a *ask) { a.key = edwards }), approvedKind, ""},
		"a P-384 key":       {joins("n9").but(func(a *ask) { a.key = newKey(elliptic.P384()) }), approvedKind, ""},
		"a name with dots":  {joins("n9.example.com"), approvedKind, ""},
		"a dead node's":     {joins("n1"), approvedKind, "joins"},
		"a node renews":     {renews("n1"), approvedKind, "renewed"},
		"serving":           {serves("n1", "192.0.2.1"), approvedKind, "serving certificate of node n1"},
		"serving IPv6":      {serves("n1", "192.0.2.1", "2001:db8::1"), approvedKind, ""},
		"serving, names":    {serves("n1").but(func(a *ask) { a.csr.DNSNames = []string{"n1", "n1.example.com", "host1"} }), approvedKind, ""},
		"serving, IPs only": {serves("n1", "192.0.2.1").but(func(a *ask) { a.csr.DNSNames = nil }), approvedKind, ""},

		"foreign signer":   {joins("n9").but(func(a *ask) { a.signer = certificates.KubeAPIServerClientSignerName }), "", ""},
		"homemade signer":  {joins("n9").but(func(a *ask) { a.signer = "example.com/signer" }), "", ""},
		"no PEM":           {joins("n9").but(func(a *ask) { a.data = []byte("hello") }), deniedKind, "single PEM block"},
		"nothing":          {joins("n9").but(func(a *ask) { a.data = []byte("\n") }), deniedKind, "must be CERTIFICATE REQUEST"},
		"a PEM of another": {joins("n9").but(func(a *ask) { a.data = []byte(strings.ReplaceAll(string(a.pem()), "REQUEST", "WISH")) }), deniedKind, "must be CERTIFICATE REQUEST"},
		"two requests":     {joins("n9").but(func(a *ask) { a.data = append(a.pem(), joins("n8").pem()...) }), deniedKind, "single PEM block"},
		"no DER":           {joins("n9").but(func(a *ask) { a.data = encode([]byte("hello")) }), deniedKind, "not a certificate request"},
		"bad signature":    {joins("n9").but(func(a *ask) { a.data = encode(forged) }), deniedKind, "signature"},
		"weak RSA key":     {joins("n9").but(func(a *ask) { a.key = weak }), deniedKind, "1024 bits"},
		"weak ECDSA key":   {joins("n9").but(func(a *ask) { a.key = newKey(elliptic.P224()) }), deniedKind, "224 bits"},

		"no node's CN":                         {joins("n9").but(func(a *ask) { a.csr.Subject.CommonName = "admin" }), deniedKind, "system:node:"},
		"an empty name":                        {joins(""), deniedKind, "is not a node name"},
		"a wrong name":                         {joins("N_9"), deniedKind, "is not a node name"},
		"extra org":                            {joins("n9").but(func(a *ask) { a.csr.Subject.Organization = []string{"system:nodes", "system:masters"} }), deniedKind, "organization"},
		"another org":                          {joins("n9").but(func(a *ask) { a.csr.Subject.Organization = []string{"system:masters"} }), deniedKind, "organization"},
		"no org":                               {joins("n9").but(func(a *ask) { a.csr.Subject.Organization = nil }), deniedKind, "organization"},
		"a unit":                               {joins("n9").but(func(a *ask) { a.csr.Subject.OrganizationalUnit = []string{"u"} }), deniedKind, "more than"},
		"a UID":                                {joins("n9").but(func(a *ask) { extra(&a.csr.Subject) }), deniedKind, "more than"},
		"client, DNS":                          {joins("n9").but(func(a *ask) { a.csr.DNSNames = []string{"n9"} }), deniedKind, "DNS"},
		"client, IP":                           {joins("n9").but(func(a *ask) { a.csr.IPAddresses = []net.IP{{192, 0, 2, 9}} }), deniedKind, "IP"},
		"client, URI":                          {joins("n9").but(func(a *ask) { a.csr.URIs = []*url.URL{{Scheme: "spiffe", Host: "n9"}} }), deniedKind, "URI"},
		"client, email":                        {joins("n9").but(func(a *ask) { a.csr.EmailAddresses = []string{"a@example.com"} }), deniedKind, "Email"},
		"more usages":                          {joins("n9").but(func(a *ask) { a.usages = append(a.usages, certificates.UsageServerAuth) }), deniedKind, "usages"},
		"fewer usages":                         {joins("n9").but(func(a *ask) { a.usages = a.usages[1:] }), deniedKind, "usages"},
		"serving usages":                       {joins("n9").but(func(a *ask) { a.usages = serves("n9").usages }), deniedKind, "usages"},
		"the API's name":                       {joins("kubernetes"), deniedKind, "belongs to the cluster"},
		"a Service's":                          {joins("a.b.svc"), deniedKind, "belongs to the cluster"},
		"a Service's, 2":                       {joins("a.b.svc.cluster.local"), deniedKind, "--node-name"},
		"a server's name":                      {joins("server1"), deniedKind, "belongs to the cluster"},
		"a tls-san":                            {joins("api.example.com"), deniedKind, "--node-name"},
		"an address":                           {joins("192.0.2.2"), deniedKind, "is an address"},
		"a node renews, named like an address": {renews("192.0.2.2"), deniedKind, "is an address"},
		"another server's name":                {joins("api2.example.com"), deniedKind, "belongs to the cluster"},
		"localhost":                            {joins("localhost"), deniedKind, "belongs to the cluster"},
		"no group":                             {joins("n9").but(func(a *ask) { a.groups = []string{"system:authenticated"} }), deniedKind, "may not request"},
		"a foreign token":                      {joins("n9").but(func(a *ask) { a.groups = []string{"system:bootstrappers"} }), deniedKind, "may not request"},
		"no token":                             {joins("n9").but(func(a *ask) { a.user = "system:serviceaccount:a:b" }), deniedKind, "may not request"},
		"other's name":                         {renews("n1").but(func(a *ask) { a.user = "system:node:n2" }), deniedKind, `"n1"`},
		"node, no group":                       {renews("n1").but(func(a *ask) { a.groups = nil }), deniedKind, "may not request"},

		"serving by token":      {serves("n1", "192.0.2.1").but(func(a *ask) { a.user, a.groups = joins("").user, joins("").groups }), deniedKind, "may not request"},
		"serving, other's CN":   {serves("n1", "192.0.2.1").but(func(a *ask) { a.user = "system:node:n2" }), deniedKind, "may not request"},
		"serving, no SAN":       {serves("n1").but(func(a *ask) { a.csr.DNSNames = nil }), deniedKind, "required"},
		"serving, URI":          {serves("n1").but(func(a *ask) { a.csr.URIs = []*url.URL{{Scheme: "https", Host: "n1"}} }), deniedKind, "URI"},
		"serving, email":        {serves("n1").but(func(a *ask) { a.csr.EmailAddresses = []string{"a@example.com"} }), deniedKind, "Email"},
		"serving, client auth":  {serves("n1").but(func(a *ask) { a.usages = joins("").usages }), deniedKind, "usages"},
		"loopback":              {serves("n1", "192.0.2.1", "127.0.0.2"), deniedKind, "127.0.0.2"},
		"loopback IPv6":         {serves("n1", "::1"), deniedKind, "::1"},
		"mapped loopback":       {serves("n1").but(func(a *ask) { a.csr.IPAddresses = []net.IP{net.ParseIP("::ffff:127.0.0.1")} }), deniedKind, "127.0.0.1"},
		"unspecified":           {serves("n1", "0.0.0.0"), deniedKind, "0.0.0.0"},
		"multicast":             {serves("n1", "224.0.0.1"), deniedKind, "224.0.0.1"},
		"a Service's IP":        {serves("n1", "10.43.0.1"), deniedKind, "10.43.0.0/16"},
		"other node's IP":       {serves("n1", "192.0.2.2"), deniedKind, "192.0.2.2 is a name or address of node n"},
		"claimed IP":            {serves("n3", "192.0.2.2"), deniedKind, "node n2"},
		"other node's name":     {serves("n1").but(func(a *ask) { a.csr.DNSNames = []string{"n1", "n2"} }), deniedKind, "n2 is a name or address of node n"},
		"claimed name":          {serves("n3").but(func(a *ask) { a.csr.DNSNames = []string{"n2"} }), deniedKind, "node n2"},
		"claimed, upper case":   {serves("n3").but(func(a *ask) { a.csr.DNSNames = []string{"N2"} }), deniedKind, "not a node name"},
		"wildcard":              {serves("n1").but(func(a *ask) { a.csr.DNSNames = []string{"*.example.com"} }), deniedKind, "not a node name"},
		"IP as a name":          {serves("n1").but(func(a *ask) { a.csr.DNSNames = []string{"192.0.2.2"} }), deniedKind, "is an address"},
		"claimed API":           {serves("n3").but(func(a *ask) { a.csr.DNSNames = []string{"kubernetes.default.svc"} }), deniedKind, "belongs to the cluster"},
		"server's address":      {serves("n3", "192.0.2.50"), deniedKind, "API server"},
		"server's IPv6":         {serves("n3", "2001:db8::50"), deniedKind, "API server"},
		"another's tls-san":     {serves("n3").but(func(a *ask) { a.csr.DNSNames = []string{"api2.example.com"} }), deniedKind, "belongs to the cluster"},
		"another's address":     {serves("n3").but(func(a *ask) { a.csr.IPAddresses = []net.IP{net.ParseIP("192.0.2.78")} }), deniedKind, "192.0.2.78 is a name or address of node server2"},
		"claimed tls-san":       {serves("n3").but(func(a *ask) { a.csr.DNSNames = []string{"api.example.com"} }), deniedKind, "belongs to the cluster"},
		"named like an address": {serves("192.0.2.2", "192.0.2.2").but(func(a *ask) { a.csr.DNSNames = nil }), deniedKind, "is an address"},
		"own name, claimed by":  {serves("n2"), approvedKind, ""},
		"not reported":          {serves("n1", "192.0.2.77"), Waiting, "192.0.2.77"},
		"no node yet":           {serves("n9", "192.0.2.9"), Waiting, "192.0.2.9"},
		"hostname as an IP":     {serves("n3", "192.0.2.33"), Waiting, "192.0.2.33"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server2, agent := node("server2"), node("agent")
				server2.Labels = map[string]string{kube.ServerLabel: "true"}
				server2.Annotations = map[string]string{layout.APINamesAnnotation: "API2.example.com,192.0.2.78"}
				agent.Annotations = map[string]string{layout.APINamesAnnotation: "n9,192.0.2.1"} // it serves no API
				c := newCluster(t, server2, agent,
					node("n1", internal("192.0.2.1"), v1.NodeAddress{Type: v1.NodeExternalIP, Address: "2001:db8:0::1"},
						v1.NodeAddress{Type: v1.NodeExternalDNS, Address: "n1.example.com"}, v1.NodeAddress{Type: v1.NodeHostName, Address: "Host1"}),
					node("n2", internal("192.0.2.2")),
					// n3 lies about itself.
					node("n3", internal("192.0.2.2"), v1.NodeAddress{Type: v1.NodeHostName, Address: "n2"},
						v1.NodeAddress{Type: v1.NodeInternalDNS, Address: "kubernetes.default.svc"}, internal("192.0.2.50"),
						internal("2001:db8::50"), v1.NodeAddress{Type: v1.NodeExternalDNS, Address: "api.example.com"}, v1.NodeAddress{Type: v1.NodeHostName, Address: "192.0.2.33"}),
					// This one's name is the address of n2, and it says so.
					node("192.0.2.2", internal("192.0.2.2")))
				defer c.start()()
				time.Sleep(time.Hour)
				c.ask("csr", test.ask)
				c.want("csr", test.kind, test.want)
			})
		})
	}
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

func TestALivingNodeKeepsItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		c.register("n1")
		c.renew("n1")
		time.Sleep(30 * time.Second)
		c.renew("n1")
		time.Sleep(10 * time.Second)
		c.ask("hijack", joins("n1"))
		c.want("hijack", Waiting, "renewed its lease")
		if r := c.request("hijack").Status.Conditions[0].Reason; r != NameHeld {
			t.Errorf("reason = %s", r)
		}
		for range 60 {
			time.Sleep(10 * time.Second)
			c.renew("n1")
		}
		c.want("hijack", Waiting, "renewed its lease")
		if got := c.events(); len(got) != 1 || got[0].Reason != NameHeld || got[0].InvolvedObject.Name != "hijack" {
			t.Errorf("events = %+v, want one", got)
		}
		// Now the node dies, and nothing else happens.
		time.Sleep(38 * time.Second)
		c.want("hijack", Waiting, "renewed its lease")
		time.Sleep(4 * time.Second)
		c.want("hijack", approvedKind, "n1")
	})
}

func (c *cluster) events() []v1.Event {
	list, err := c.CoreV1().Events(metav1.NamespaceAll).List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

func TestWhatWaitsForTooLongIsDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		c.register("n1", internal("192.0.2.1"))
		c.renew("n1")
		c.ask("name", joins("n1"))
		c.ask("address", serves("n1", "192.0.2.77"))
		for i := range 62 * 6 {
			time.Sleep(10 * time.Second)
			c.renew("n1")
			if i == 4*6 {
				c.want("address", Waiting, "192.0.2.77")
			}
			if i == 6*6 {
				c.want("address", deniedKind, "192.0.2.77")
			}
		}
		c.want("name", deniedKind, "1h0m0s")
	})
}

// TestHeld has the signs of life but for a lease that is renewed.
func TestHeld(t *testing.T) {
	for name, test := range map[string]struct {
		live func(*cluster)
		want string
	}{
		"a lease without a node":    {func(c *cluster) { c.renew("n1") }, "renewed its lease"},
		"a node without a lease":    {func(c *cluster) { c.register("n1") }, "registered"},
		"a lease with a wrong time": {func(c *cluster) { c.register("n1"); c.renew("n1"); c.backdate("n1") }, "renewed its lease"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				defer c.start()()
				time.Sleep(time.Hour)
				test.live(c)
				time.Sleep(38 * time.Second)
				c.ask("csr", joins("n1"))
				c.want("csr", Waiting, test.want)
				time.Sleep(4 * time.Second)
				c.want("csr", approvedKind, "n1")
			})
		})
	}
}

// backdate makes the lease look as by a node whose clock is behind.
func (c *cluster) backdate(name string) {
	api := c.CoordinationV1().Leases(v1.NamespaceNodeLease)
	lease := must(api.Get(c.t.Context(), name, metav1.GetOptions{}))
	now := metav1.Now()
	lease.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "lite", Operation: metav1.ManagedFieldsOperationUpdate, Time: &now}}
	lease.Spec.RenewTime.Time = now.Add(-time.Hour)
	// Not by the client, which would write the managed fields itself.
	c.PrependReactor("get", "leases", func(clienttesting.Action) (bool, runtime.Object, error) { return true, lease, nil })
}

// While no server ran no lease could be renewed: that they are old says nothing.
func TestARestartOfTheServerFreesNoName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.register("n1")
		c.renew("n1")
		time.Sleep(10 * time.Minute)
		c.ask("hijack", joins("n1"))
		defer c.start()()
		c.want("hijack", Waiting, "before this server became the leader")
		time.Sleep(30 * time.Second)
		c.renew("n1")
		time.Sleep(15 * time.Second)
		c.want("hijack", Waiting, "renewed its lease")
	})
}

func TestTwoMachinesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		c.ask("a", joins("n1"))
		c.ask("b", joins("n1"))
		c.want("a", approvedKind, "n1")
		c.want("b", Waiting, "another machine got the name")
		c.issue("a")
		time.Sleep(50 * time.Second)
		c.register("n1")
		c.renew("n1")
		time.Sleep(15 * time.Second)
		c.want("b", Waiting, "renewed its lease")
		time.Sleep(time.Minute)
		c.want("b", approvedKind, "n1")
	})
}

func TestTheSameMachineAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		first, second := joins("n1"), joins("n1")
		c.ask("first", first)
		c.issue("first")
		c.ask("again", first)
		c.want("again", approvedKind, "same key")

		// The machine is re-installed, and has the name by another key now.
		time.Sleep(2 * time.Minute)
		c.ask("second", second)
		c.want("second", approvedKind, "joins")
		c.issue("second")
		c.register("n1")
		c.renew("n1")
		c.ask("old key", first)
		c.want("old key", Waiting, "another machine got the name")
		c.ask("new key", second)
		c.want("new key", approvedKind, "same key")
	})
}

// A certificate counts, not the approval: the signer may be away.
func TestWhatIsApprovedIsNotYetIssued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		first, second := joins("n1"), joins("n1")
		c.ask("first", first)
		c.ask("again", first)
		c.want("again", approvedKind, "joins")
		c.issue("first")
		time.Sleep(2 * time.Minute)
		c.ask("second", second)
		c.want("second", approvedKind, "joins")
		time.Sleep(2 * time.Minute)
		c.register("n1")
		c.ask("no certificate", second)
		c.want("no certificate", Waiting, "registered")
		c.ask("certificate", first)
		c.want("certificate", approvedKind, "same key")
	})
}

// A kubelet that starts again and again while it waits leaves requests whose
// keys it has forgotten; they must not come before the one it looks at.
func TestTheNewestOfThoseThatWaitIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		c.register("n1")
		c.renew("n1")
		c.ask("1", joins("n1"))
		time.Sleep(3 * time.Second)
		c.ask("2", joins("n1"))
		time.Sleep(3 * time.Second)
		c.ask("3", joins("n1"))
		time.Sleep(40 * time.Second)
		c.want("3", approvedKind, "n1")
		c.want("1", Waiting, "")
		c.want("2", Waiting, "")
	})
}

func TestAddressesAreReportedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		c.ask("csr", serves("n1", "192.0.2.1"))
		c.want("csr", Waiting, "192.0.2.1")
		time.Sleep(1500 * time.Millisecond)
		c.register("n1")
		time.Sleep(time.Second)
		c.want("csr", Waiting, "192.0.2.1")
		c.report("n1", internal("192.0.2.1"))
		time.Sleep(2 * time.Second)
		c.want("csr", approvedKind, "n1")
		if got := c.events(); len(got) > 0 {
			t.Errorf("events = %+v, want none", got)
		}
	})
}

func TestTwentyNodesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		// Half of them before the approver starts.
		names := make([]string, 20)
		for i := range names {
			names[i] = fmt.Sprintf("n%d", i)
			ip := fmt.Sprintf("192.0.2.%d", i+1)
			c.register(names[i], internal(ip))
			c.renew(names[i])
			if i == 10 {
				defer c.start()()
			}
			c.ask(names[i]+"-serving", serves(names[i], ip))
			c.ask(names[i]+"-client", renews(names[i]))
			c.ask(names[i]+"-joins", joins("new-"+names[i]))
			c.ask(names[i]+"-hijack", joins(names[i]))
		}
		for _, n := range names {
			c.want(n+"-serving", approvedKind, n)
			c.want(n+"-client", approvedKind, n)
			c.want(n+"-joins", approvedKind, n)
			c.want(n+"-hijack", Waiting, n)
		}
	})
}

func TestWhatIsDecidedIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		for _, kind := range []certificates.RequestConditionType{approvedKind, deniedKind, certificates.CertificateFailed} {
			c.ask(string(kind), joins("n9"))
			csr := c.request(string(kind))
			csr.Status.Conditions = []certificates.CertificateSigningRequestCondition{{
				Type: kind, Status: v1.ConditionTrue, Reason: "ByAdmin", Message: "by hand", LastUpdateTime: metav1.Now(),
			}}
			must(c.CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), csr.Name, csr, metav1.UpdateOptions{}))
		}
		defer c.start()()
		for _, kind := range []certificates.RequestConditionType{approvedKind, deniedKind, certificates.CertificateFailed} {
			c.want(string(kind), kind, "by hand")
		}
	})
}

// TestFailuresOfTheAPI fails each kind of request once.
func TestFailuresOfTheAPI(t *testing.T) {
	resource := certificates.Resource("certificatesigningrequests")
	for _, test := range []struct {
		verb, resource string
		err            error
	}{
		{"update", "certificatesigningrequests", apierrors.NewConflict(resource, "csr", errors.New("changed"))},
		{"update", "certificatesigningrequests", errors.New("cut off")},
		{"get", "certificatesigningrequests", errors.New("cut off")},
		{"get", "secrets", errors.New("cut off")},
		{"create", "secrets", errors.New("cut off")},
		{"create", "secrets", apierrors.NewAlreadyExists(v1.Resource("secrets"), "x")},
		{"get", "nodes", errors.New("cut off")},
		{"list", "secrets", errors.New("cut off")},
		{"get", "leases", errors.New("cut off")},
	} {
		t.Run(test.verb+" "+test.resource, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, node("n9"))
				defer c.start()()
				time.Sleep(time.Minute)
				failed := false
				c.PrependReactor(test.verb, test.resource, func(clienttesting.Action) (bool, runtime.Object, error) {
					first := !failed
					failed = true
					return first, nil, test.err
				})
				c.ask("client", joins("n9"))
				c.ask("serving", serves("n9"))
				time.Sleep(time.Second)
				c.want("client", approvedKind, "n9")
				c.want("serving", approvedKind, "n9")
				if !failed {
					t.Error("nothing has failed")
				}
			})
		})
	}
}

func TestReadyOnceAllIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		if err := c.approver.Ready(t.Context()); err == nil {
			t.Error("ready before it runs")
		}
		stop := c.start()
		if err := c.approver.Ready(t.Context()); err != nil {
			t.Error(err)
		}
		stop()
		// In a later term of leadership it runs again.
		c.ask("csr", joins("n9"))
		defer c.start()()
		c.want("csr", approvedKind, "n9")
		watched := slices.ContainsFunc(c.Actions(), func(a clienttesting.Action) bool {
			w, ok := a.(clienttesting.WatchAction)
			return ok && w.GetWatchRestrictions().Fields.String() == "spec.signerName=kubernetes.io/kubelet-serving"
		})
		if !watched {
			t.Error("the watch is not by signer")
		}
	})
}

func TestRunNamesTheKubeconfig(t *testing.T) {
	if err := New(Config{Client: kube.NewClient("/nowhere", "test")}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("got %v", err)
	}
}
