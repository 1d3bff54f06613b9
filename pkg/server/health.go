package server

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/status"
)

// positionTimeout is how long other servers may take to say how far they are. Who is silent is not waited for.
const positionTimeout = 2 * time.Second

// health is how all members do, as this server sees it. Who answers is asked of each datastore; how far it is,
// of each server's API.
func (m *members) health(ctx context.Context) (etcd.Health, error) {
	return m.store.Health(ctx, m.positions(ctx))
}

// positions asks the other servers for theirs.
func (m *members) positions(ctx context.Context) (all []etcd.Position) {
	ctx, cancel := context.WithTimeout(ctx, positionTimeout)
	defer cancel()
	servers, err := m.others(ctx)
	if err != nil {
		slog.Debug("Cannot find the other servers", "err", err)
		return nil
	}
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, server := range servers {
		asked.Go(func() {
			p, err := m.position(ctx, server)
			if err != nil {
				slog.Debug("A server does not say how far its datastore is", "server", server, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, p)
		})
	}
	asked.Wait()
	return all
}

// others is where the other API servers are. They are read from memory, so that a cluster without quorum knows them.
func (m *members) others(ctx context.Context) ([]string, error) {
	urls, err := m.apiServers(ctx, metav1.GetOptions{ResourceVersion: "0"})
	return slices.DeleteFunc(urls, func(url string) bool { return url == "https://"+ownEndpoint(m.cfg) }), err
}

func (m *members) position(ctx context.Context, server string) (p etcd.Position, err error) {
	client, err := m.other(server)
	if err != nil {
		return p, err
	}
	return get[etcd.Position](ctx, client, layout.PositionPath)
}

// other is a client of another server's API, which keeps its connection: client-go has one transport for each client that is
// made with a Proxy (1.37).
func (m *members) other(server string) (*rest.RESTClient, error) {
	m.reach.Lock()
	defer m.reach.Unlock()
	if client := m.reached[server]; client != nil {
		return client, nil
	}
	client, err := otherServer(m.pki, server)
	if err == nil {
		if m.reached == nil {
			m.reached = map[string]*rest.RESTClient{}
		}
		m.reached[server] = client
	}
	return client, err
}

// Standing is what people are shown of health.
func Standing(h etcd.Health) (all []status.Member, quorum string) {
	for _, m := range h.Members {
		all = append(all, status.Member{Name: m.Called(), Role: m.Role(), Reachable: m.Reachable, Behind: m.Behind, Reason: m.Reason})
	}
	return all, h.Margin()
}

// show adds the members to what lite status shows, if there are several.
func (m *members) show(ctx context.Context, n *status.Node) {
	if m.store == nil {
		return
	}
	if all, err := m.store.Members(); err != nil || len(all) < 2 {
		return
	}
	if h, err := m.health(ctx); err == nil {
		n.Members, n.Quorum = Standing(h)
	}
}
