package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

const (
	// lookTimeout bounds one question to another server.
	lookTimeout = 5 * time.Second
	// absenceTimeout is how long others may take to catch up with what this server has applied when it is asked.
	absenceTimeout = 10 * time.Second
)

// absence finds out whether the other servers go on while this one is stopped. Where they are is remembered: if this
// server comes back without data, one of them admits it.
func (m *members) absence(_ http.ResponseWriter, r *http.Request) (any, error) {
	all, err := m.store.Members()
	if err != nil {
		return nil, busy(err)
	}
	if len(all) == 1 {
		return etcd.NewAbsence(all, nil, nil), nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), absenceTimeout)
	defer cancel()
	for {
		servers, err := m.apiServers(r.Context(), metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		others, silent := m.askOthers(r.Context(), servers)
		verdict := etcd.NewAbsence(all, others, silent)
		if !verdict.Late || !kube.Sleep(ctx, time.Second) {
			return verdict, nil
		}
	}
}

// apiServers is where the API servers are, this one among them, as the cluster knows them.
func (m *members) apiServers(ctx context.Context, opts metav1.GetOptions) (urls []string, err error) {
	client, err := m.client.Clientset()
	if err != nil {
		return nil, err
	}
	slice, err := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(ctx, "kubernetes", opts)
	if err != nil {
		return nil, fmt.Errorf("find the other servers: %w", err)
	}
	for _, e := range slice.Endpoints {
		for _, p := range slice.Ports {
			if p.Port != nil && len(e.Addresses) > 0 {
				urls = append(urls, (&url.URL{Scheme: "https", Host: net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port)))}).String())
			}
		}
	}
	return urls, nil
}

// askOthers asks servers at the same time what they are in the datastore.
func (m *members) askOthers(ctx context.Context, servers []string) (others map[string]etcd.Member, silent []string) {
	others = map[string]etcd.Member{}
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, server := range servers {
		asked.Go(func() {
			self, err := m.askSelf(ctx, server)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = append(silent, fmt.Sprintf("%s: %v", server, err))
				return
			}
			others[self.ID] = self
			if self.Name != m.nodeName {
				err = m.remember(server)
			}
			if err != nil {
				silent = append(silent, err.Error())
			}
		})
	}
	asked.Wait()
	slices.Sort(silent)
	return others, silent
}

// askSelf asks a server what it is in the datastore.
func (m *members) askSelf(ctx context.Context, server string) (self etcd.Member, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	client, err := m.other(server)
	if err != nil {
		return self, err
	}
	all, err := get[[]etcd.Member](ctx, client, layout.MembersPath)
	if err != nil {
		return self, err
	}
	i := slices.IndexFunc(all, func(m etcd.Member) bool { return m.Self })
	if i < 0 {
		return self, errors.New("it does not know itself")
	}
	return all[i], nil
}
