package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/version"
)

// names is the component "server-names": the certificate of each API server is also for what
// the others are called, so that clients reach any of them by a name of all.
type names struct {
	dir   layout.Server
	pki   pki.Dir
	node  pki.Node // of this server, without the names of others
	self  string
	nodes *kube.Nodes
	port  int // of the API, on all servers
	// learn is told where the API of the other servers is.
	learn func(urls []string) error

	problem atomic.Pointer[error]
}

// mostNames keeps the certificate small, whoever may write Nodes.
const mostNames = 100

// ownNames is what this server tells the others, on its Node, that it is called.
func ownNames(cfg *config.Config) []string {
	all := slices.Clone(cfg.TLSSANs)
	if at := cfg.AdvertiseAddress; !slices.Contains(cfg.NodeIP, at) {
		all = append(all, at.String())
	}
	return all
}

// readNames is what other servers are called, as of the last start; nothing if that is not known.
func readNames(dir layout.Server) []string {
	var all []string
	data, err := os.ReadFile(dir.Names())
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		slog.Warn("The names of other servers are read again from the cluster", "err", err)
	}
	return all
}

func (*names) Name() string { return "server-names" }

func (n *names) Ready(context.Context) error {
	if problem := n.problem.Load(); problem != nil {
		return *problem
	}
	return nil
}

func (n *names) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	wake := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	differ := func(before, after *v1.Node) bool {
		return !slices.Equal(kube.APINames(before), kube.APINames(after)) || !slices.Equal(n.urls(before), n.urls(after))
	}
	leave, err := kube.Follow(ctx, n.nodes.With(kube.Wake(wake, differ)))
	defer leave()
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := n.update(); err != nil {
			n.problem.Store(&err)
			slog.Warn("Cannot make a certificate for the names of all servers", "err", err)
			kube.Sleep(ctx, 10*time.Second)
			continue
		}
		n.problem.Store(nil)
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// update makes the certificate anew if the names are others. The API server follows the file.
func (n *names) update() error {
	nodes := n.nodes.List()
	var urls []string
	for _, other := range nodes {
		urls = append(urls, n.urls(other)...)
	}
	slices.Sort(urls)
	if err := n.learn(urls); err != nil {
		return err
	}
	now := n.others(nodes)
	if slices.Equal(now, readNames(n.dir)) {
		return nil
	}
	node := n.node
	node.SANs = slices.Concat(node.SANs, now)
	renewed, err := pki.EnsureLeaf(n.pki, pki.APIServer, node, version.NotBeforeBuilt(time.Now()))
	if err != nil {
		return err
	}
	if renewed != "" {
		slog.Info("Renewed a certificate", "which", pki.APIServer, "why", renewed, "servers", strings.Join(now, ","))
	}
	data, err := json.Marshal(now)
	if err == nil {
		err = file.Write(n.dir.Names(), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember the names of other servers: %w", err)
	}
	return nil
}

// urls are where a node answers the API, none unless it is another server. That it is one, no node says of itself.
func (n *names) urls(node *v1.Node) (all []string) {
	if _, server := node.Labels[kube.ServerLabel]; !server || node.Name == n.self {
		return nil
	}
	for _, a := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == v1.NodeInternalIP {
			all = append(all, "https://"+netip.AddrPortFrom(ip, uint16(n.port)).String())
		}
	}
	return all
}

// others is what other servers are called, each once and in order.
func (n *names) others(nodes []*v1.Node) []string {
	all := []string{}
	for _, other := range nodes {
		if other.Name == n.self {
			continue
		}
		for _, name := range kube.APINames(other) {
			_, err := netip.ParseAddr(name)
			if err == nil || len(validation.IsDNS1123Subdomain(strings.TrimPrefix(name, "*."))) == 0 {
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), mostNames)]
}
