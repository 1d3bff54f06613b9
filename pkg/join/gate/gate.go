// Package gate is what the API server asks of nodes, and of machines that want to be
// nodes, before their requests reach it: whether a node's certificate is still good,
// and that nobody asks for certificates faster than they can be judged. Besides it
// notes of each who asks from where, and with which key, for the approver.
package gate

import (
	"context"
	"crypto/x509"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/tools/cache"
	bootstrap "k8s.io/cluster-bootstrap/token/api"

	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/layout"
)

// Gate is complete once it has an informer of Secrets, from [Gate.Follow].
// Until the Secrets are there no node is let in.
type Gate struct {
	mu      sync.Mutex
	refused map[string]map[string]*roll.Refusal // by Secret, by node
	visits  map[string]map[*visit]struct{}      // by node, or user of a token; what is being answered

	synced func() bool
	isGood func(user string) bool // a token that there is
	limits limits
}

// visit is a request that is being answered, such as a watch.
type visit struct {
	key string
	end context.CancelFunc
}

// New makes a Gate.
func New() *Gate {
	return &Gate{
		refused: map[string]map[string]*roll.Refusal{}, visits: map[string]map[*visit]struct{}{},
		synced: func() bool { return false }, isGood: func(string) bool { return true },
	}
}

// Follow has the gate learn from an informer which certificates are refused. The API
// server has one anyway, for its tokens.
func (g *Gate) Follow(secrets cache.SharedIndexInformer) error {
	handler, err := secrets.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { g.learn(o) },
		UpdateFunc: func(_, o any) { g.learn(o) },
		DeleteFunc: func(o any) { g.unlearn(o); g.endToken(o) },
	})
	if err != nil {
		return err
	}
	g.synced = handler.HasSynced
	g.isGood = func(user string) bool {
		_, found, err := secrets.GetIndexer().GetByKey(
			metav1.NamespaceSystem + "/" + bootstrap.BootstrapTokenSecretPrefix + strings.TrimPrefix(user, layout.TokenUser))
		return found || err != nil
	}
	return nil
}

// endToken ends what is being answered to those who have a token that is gone, such as a
// watch, which would go on for as long as they have asked for.
func (g *Gate) endToken(o any) {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	secret, ok := o.(*corev1.Secret)
	if !ok || secret.Namespace != metav1.NamespaceSystem {
		return
	}
	if id, ok := strings.CutPrefix(secret.Name, bootstrap.BootstrapTokenSecretPrefix); ok {
		g.mu.Lock()
		defer g.mu.Unlock()
		for v := range g.visits[layout.TokenUser+id] {
			v.end()
		}
	}
}

func (g *Gate) learn(o any) {
	secret, ok := o.(*corev1.Secret)
	if !ok {
		return
	}
	all := roll.Refusals(secret)
	if all == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused[secret.Name] = all
	for node, r := range all {
		for v := range g.visits[node] {
			if !r.Admits(v.key) {
				v.end()
			}
		}
	}
}

func (g *Gate) unlearn(o any) {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	if secret, ok := o.(*corev1.Secret); ok && roll.Refusals(secret) != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.refused, secret.Name)
	}
}

// enter notes that a node is being answered; end is called when it is refused
// meanwhile. Whoever is refused now does not enter.
func (g *Gate) enter(node, key string, end context.CancelFunc) (leave func(), refusal *roll.Refusal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, all := range g.refused {
		if r := all[node]; !r.Admits(key) {
			return nil, r
		}
	}
	return g.note(node, &visit{key, end}), nil
}

// note is called with the lock, and what it returns without.
func (g *Gate) note(who string, v *visit) (leave func()) {
	if g.visits[who] == nil {
		g.visits[who] = map[*visit]struct{}{}
	}
	g.visits[who][v] = struct{}{}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if delete(g.visits[who], v); len(g.visits[who]) == 0 {
			delete(g.visits, who)
		}
	}
}

// enterByToken is enter for who has a token. That there is one was looked up some seconds
// ago perhaps, and is looked up again once it is noted.
func (g *Gate) enterByToken(user string, end context.CancelFunc) (leave func(), good bool) {
	g.mu.Lock()
	leave = g.note(user, &visit{end: end})
	g.mu.Unlock()
	if !g.isGood(user) {
		leave()
		return nil, false
	}
	return leave, true
}

// Recognize adds to who a node or a machine with a token is where it asks from, and
// with which key.
func (g *Gate) Recognize(others authenticator.Request) authenticator.Request {
	return authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		res, ok, err := others.AuthenticateRequest(r)
		if !ok || err != nil || res == nil || res.User == nil {
			return res, ok, err
		}
		name := res.User.GetName()
		node, key := shown(r)
		isNode := node != "" && name == layout.NodeUser+node
		if !isNode && !strings.HasPrefix(name, layout.TokenUser) {
			return res, ok, err
		}
		// What others have answered may be kept by them for the next time.
		extra := maps.Clone(res.User.GetExtra())
		if extra == nil {
			extra = map[string][]string{}
		}
		extra[layout.AddressExtra] = []string{origin(r)}
		if delete(extra, layout.KeyExtra); isNode {
			extra[layout.KeyExtra] = []string{key}
		}
		known := *res
		known.User = &user.DefaultInfo{Name: name, UID: res.User.GetUID(), Groups: res.User.GetGroups(), Extra: extra}
		return &known, true, nil
	})
}

// shown is the node that a certificate is of which a connection was made with.
func shown(r *http.Request) (node, key string) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", ""
	}
	return nodeOf(r.TLS.PeerCertificates[0])
}

func nodeOf(cert *x509.Certificate) (node, key string) {
	node, ok := strings.CutPrefix(cert.Subject.CommonName, layout.NodeUser)
	if !ok || !slices.Contains(cert.Subject.Organization, layout.NodesGroup) {
		return "", ""
	}
	return node, roll.Key(cert.RawSubjectPublicKeyInfo)
}

// patience is how long a node's request waits for what is refused to be known, which
// takes a moment after the API server has begun to listen.
const patience = 10 * time.Second

// Before lets those requests pass that next may answer. It goes by the certificate of
// the connection, whoever was recognized by it, so it must not stand behind a cache.
func (g *Gate) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if node, key := shown(r); node != "" {
			if !g.await(r.Context()) {
				answer(w, r, notYet())
				return
			}
			ctx, end := context.WithCancel(r.Context())
			defer end()
			leave, refusal := g.enter(node, key, end)
			if refusal != nil {
				answer(w, r, refused(node, refusal))
				return
			}
			defer leave()
			r = r.WithContext(ctx)
		}
		if u, ok := request.UserFrom(r.Context()); ok && strings.HasPrefix(u.GetName(), layout.TokenUser) {
			ctx, end := context.WithCancel(r.Context())
			defer end()
			leave, good := g.enterByToken(u.GetName(), end)
			if !good {
				answer(w, r, apierrors.NewUnauthorized("the token has expired"))
				return
			}
			defer leave()
			r = r.WithContext(ctx)
		}
		if who, from, ok := asks(r); ok && !g.limits.allow(who, from) {
			answer(w, r, tooFast(who, from))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// await reports that it is known what is refused.
func (g *Gate) await(ctx context.Context) bool {
	if g.synced() {
		return true
	}
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	return cache.WaitForCacheSync(ctx.Done(), g.synced)
}

// asks finds who makes a certificate signing request, if it is for the approver.
func asks(r *http.Request) (who, from string, ok bool) {
	info, found := request.RequestInfoFrom(r.Context())
	if !found || info.Verb != "create" || info.APIGroup != "certificates.k8s.io" || info.Resource != "certificatesigningrequests" {
		return "", "", false
	}
	u, found := request.UserFrom(r.Context())
	if !found || !strings.HasPrefix(u.GetName(), layout.NodeUser) && !strings.HasPrefix(u.GetName(), layout.TokenUser) {
		return "", "", false
	}
	return u.GetName(), origin(r), true
}
