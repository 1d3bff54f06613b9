package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/server/controlplane"
)

// ReadToken reads the token by which agents may always join.
func ReadToken(dataDir string) (join.Token, error) {
	file := layout.Data(dataDir).Server().Token()
	text, err := os.ReadFile(file)
	if err != nil {
		return join.Token{}, fmt.Errorf("read the cluster's token: %w", err)
	}
	t, err := join.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return t, fmt.Errorf("%s %w", file, err)
	}
	return t, nil
}

// WriteToken puts another token in its place.
func WriteToken(dataDir string, t join.Token) error {
	if err := file.Write(layout.Data(dataDir).Server().Token(), []byte(t.Text()+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the cluster's token: %w", err)
	}
	return nil
}

// ensureToken keeps the token that agents join with: what the user said, else
// the one there was, else a new one. With it stand the address and the CA's
// hash, which are this server's as of now.
func ensureToken(cfg *config.Config, shared cluster.Facts, dir pki.Dir) error {
	said, err := join.Read(cfg.Token, cfg.TokenFile)
	if err != nil {
		return err
	}
	t, err := ReadToken(cfg.DataDir)
	several, unknown := readMembership(cfg.Layout().Data.Server())
	switch {
	case unknown != nil:
		return unknown
	case said.ID != "" && several == nil: // else it is what the server joined by
		t = said
	case errors.Is(err, fs.ErrNotExist):
		t = join.New()
	case err != nil:
		return fmt.Errorf("%w, or remove the file: then lite creates a new token", err)
	}
	ca, err := os.ReadFile(dir.CA(pki.ClusterCA))
	if err != nil {
		return fmt.Errorf("create the cluster's token: %w", err)
	}
	if t.CAHash, err = join.CAHash(ca); err != nil {
		return fmt.Errorf("create the cluster's token: %w", err)
	}
	t.Server = endpoint(cfg, shared)
	return WriteToken(cfg.DataDir, t)
}

// endpoint is where other machines reach the API: at the address that moves to whichever
// server leads, else at this server's.
func endpoint(cfg *config.Config, shared cluster.Facts) string {
	if !shared.VIP.IsValid() {
		return ownEndpoint(cfg)
	}
	return net.JoinHostPort(shared.VIP.String(), strconv.Itoa(cfg.HTTPSListenPort))
}

// ownEndpoint is where other machines reach this server's API.
func ownEndpoint(cfg *config.Config) string {
	return net.JoinHostPort(cfg.AdvertiseAddress.String(), strconv.Itoa(cfg.HTTPSListenPort))
}

// admission is the component "join": it publishes what machines need that want
// to join, and clears away tokens that have expired.
type admission struct {
	controlplane controlplane.Config
	client       *kube.Client
	members      *members
	published    atomic.Bool
	problem      atomic.Pointer[error] // why it could not publish when it last tried
}

func newAdmission(cp controlplane.Config, client *kube.Client, m *members) *admission {
	return &admission{controlplane: cp, client: client, members: m}
}

func (*admission) Name() string { return "join" }

func (a *admission) Ready(context.Context) error {
	switch problem := a.problem.Load(); {
	case a.published.Load():
		return nil
	case problem != nil:
		return fmt.Errorf("waiting to publish how to join the cluster: %w", *problem)
	}
	return errors.New("waiting to publish how to join the cluster")
}

// sweepAtLeast bounds how long a token that somebody made meanwhile outlives
// its time.
const sweepAtLeast = 10 * time.Minute

func (a *admission) Run(ctx context.Context) error {
	cfg, err := a.client.Config()
	if err != nil {
		return err
	}
	client, err := a.client.Clientset()
	if err != nil {
		return err
	}
	// The namespaces and policies appear a moment after the API does.
	var hidden time.Time // since when another policy answers in its place
	for {
		err := guarded(ctx, cfg)
		if _, other := errors.AsType[otherPolicy](err); other {
			if hidden.IsZero() {
				hidden = time.Now()
			}
			if time.Since(hidden) > hiddenFor && written(ctx, client) == nil {
				slog.Warn("Whether the policy "+layout.PolicyOfNodes+" is in force is not visible, because another policy refuses first; it was written long enough ago", "err", err)
				err = nil
			}
		}
		if err == nil {
			err = a.publish(ctx, client)
		}
		if err == nil {
			break
		}
		a.problem.Store(&err)
		if !kube.Sleep(ctx, 100*time.Millisecond) {
			return nil
		}
	}
	a.published.Store(true)
	if err := a.members.forget(); err != nil {
		slog.Warn("This server goes on as one of several, though it is alone", "err", err)
	}
	for {
		next, err := join.Sweep(ctx, client, time.Now())
		if err != nil && ctx.Err() == nil {
			slog.Warn("Cannot delete expired tokens", "err", err)
		}
		wait := sweepAtLeast
		if until := time.Until(next); !next.IsZero() && until < wait {
			wait = max(until, time.Second)
		}
		if !kube.Sleep(ctx, wait) {
			return nil
		}
	}
}

// guarded returns nil once the policy nodes.lite.io is in force: no machine may join
// before it keeps nodes from choosing their own ranges. The API server looks at its
// policies once a second (1.37), so having written it is not enough. Nothing is made.
func guarded(ctx context.Context, cfg *rest.Config) error {
	const probe = layout.PolicyProbe
	cfg = rest.CopyConfig(cfg)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: layout.NodeUser + probe, Groups: []string{layout.NodesGroup, "system:authenticated"}}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Create(ctx, &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: probe}, Spec: v1.NodeSpec{PodCIDR: "192.0.2.0/24", PodCIDRs: []string{"192.0.2.0/24"}},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
		return errors.New("the ValidatingAdmissionPolicy " + layout.PolicyOfNodes + " is not in force; if this lasts, do not disable the admission plugin of that name")
	case strings.Contains(err.Error(), "'"+layout.PolicyOfNodes+"'"):
		return nil
	}
	err = fmt.Errorf("get the ValidatingAdmissionPolicy %s: %w", layout.PolicyOfNodes, err)
	if strings.Contains(err.Error(), " denied request: ") {
		return otherPolicy{err}
	}
	return err
}

// otherPolicy is the answer of a user's policy on nodes: of several that refuse a request
// upstream names the first (1.37).
type otherPolicy struct{ error }

// hiddenFor is far more than the second within which the API server looks at its policies.
const hiddenFor = 5 * time.Second

// written returns nil if the policy nodes.lite.io is there.
func written(ctx context.Context, client kubernetes.Interface) error {
	const name = layout.PolicyOfNodes
	_, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, name, metav1.GetOptions{})
	if err == nil {
		_, err = client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Get(ctx, name, metav1.GetOptions{})
	}
	return err
}

func (a *admission) publish(ctx context.Context, client kubernetes.Interface) error {
	ca, err := os.ReadFile(a.controlplane.PKI.CA(pki.ClusterCA))
	if err != nil {
		return fmt.Errorf("read the cluster's CA: %w", err)
	}
	if err := join.Publish(ctx, client, "https://"+endpoint(a.controlplane.Node, a.controlplane.Cluster), ca); err != nil {
		return err
	}
	if err := join.PublishFacts(ctx, client, a.controlplane.Cluster); err != nil {
		return err
	}
	token, err := a.token(ctx, client)
	if err != nil {
		return err
	}
	return join.Keep(ctx, client, token)
}

// token is the standing token: with several servers the one that the cluster knows, since another server may have
// replaced it. The file of this one follows.
func (a *admission) token(ctx context.Context, client kubernetes.Interface) (join.Token, error) {
	token, err := ReadToken(a.controlplane.Node.DataDir)
	if err != nil {
		return token, err
	}
	several, err := readMembership(a.controlplane.Dir)
	if err != nil || several == nil {
		return token, err
	}
	kept, err := join.Kept(ctx, client)
	if err != nil || kept.ID == "" || kept.ID == token.ID && kept.Secret == token.Secret {
		return token, err
	}
	token.ID, token.Secret = kept.ID, kept.Secret
	return token, WriteToken(a.controlplane.Node.DataDir, token)
}
