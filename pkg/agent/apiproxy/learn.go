package apiproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	client "k8s.io/client-go/kubernetes/typed/discovery/v1"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/kube"
)

const (
	// retryAtMost bounds the pause between attempts to get the list of servers.
	retryAtMost = 30 * time.Second

	// listTimeout bounds one attempt: it is made through a server that may hang.
	listTimeout = 30 * time.Second
)

// learn follows the list of servers that the cluster keeps, through whichever
// server is in use. An informer would hold a cache and three goroutines for
// what is a handful of addresses.
func (b *Balancer) learn(ctx context.Context) {
	var list client.EndpointSliceInterface
	pause := b.timing.retry
	for ctx.Err() == nil {
		var err error
		if list == nil {
			list, err = b.list()
		}
		began := time.Now()
		if err == nil {
			err = b.follow(ctx, list)
		}
		if list == nil || time.Since(began) > retryAtMost {
			// Not joined yet, which only costs reading a file; or it went well for a while.
			pause = b.timing.retry
		}
		slog.Debug("Cannot get the list of API servers; retrying", "reason", err, "in", pause)
		kube.Sleep(ctx, pause)
		pause = min(2*pause, retryAtMost)
	}
}

// list is a client for where the cluster lists its servers.
func (b *Balancer) list() (client.EndpointSliceInterface, error) {
	set, err := b.config.Client.Clientset()
	if err != nil {
		return nil, err
	}
	return set.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault), nil
}

// follow applies the list and its changes until the watch ends, as every watch does sooner
// or later, with nil if it ended normally.
func (b *Balancer) follow(ctx context.Context, list client.EndpointSliceInterface) error {
	kubernetes := metav1.ListOptions{LabelSelector: discovery.LabelServiceName + "=kubernetes"}
	short, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	now, err := list.List(short, kubernetes)
	if err != nil {
		return err
	}
	known := map[string][]string{}
	for _, s := range now.Items {
		known[s.Name] = addresses(&s)
	}
	b.update(known)

	kubernetes.ResourceVersion = now.ResourceVersion
	w, err := list.Watch(ctx, kubernetes)
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		s, ok := event.Object.(*discovery.EndpointSlice)
		if !ok {
			return apierrors.FromObject(event.Object)
		}
		known[s.Name] = addresses(s)
		if event.Type == watch.Deleted {
			delete(known, s.Name)
		}
		b.update(known)
	}
	return nil
}

// addresses are the servers that one slice names.
func addresses(s *discovery.EndpointSlice) (found []string) {
	for _, p := range s.Ports {
		if p.Port == nil || p.Name == nil || *p.Name != "https" || p.Protocol != nil && *p.Protocol != v1.ProtocolTCP {
			continue
		}
		for _, e := range s.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, a := range e.Addresses {
				found = append(found, net.JoinHostPort(a, strconv.Itoa(int(*p.Port))))
			}
		}
	}
	return found
}

// update uses and remembers the servers of all slices.
func (b *Balancer) update(known map[string][]string) {
	var all []string
	for _, some := range known {
		for _, address := range some {
			if err := b.check(address); err != nil {
				slog.Warn("The cluster lists an API server with an unusable address", "err", err)
				continue
			}
			all = append(all, address)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	// Whoever answers is a server: an empty list is a moment in its life, such as
	// before it has entered itself, and no reason to forget it.
	if len(all) == 0 || !b.replace(all) {
		return
	}
	slog.Info("Updated the list of API servers", "servers", all)
	if err := b.remember(all); err != nil {
		slog.Warn("Cannot store the list of API servers for the next start", "err", err)
	}
}

// memory is the content of Config.File.
type memory struct {
	Servers []string `json:"servers"`
}

func (b *Balancer) remember(addresses []string) error {
	content, err := json.Marshal(memory{addresses})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.config.File), 0o700); err != nil {
		return fmt.Errorf("create the directory of the API servers: %w", err)
	}
	if err := file.Write(b.config.File, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", b.config.File, err)
	}
	return nil
}

// recall begins with the servers of the last run. It ignores a file that cannot be used:
// there is the seed, and the file is rewritten.
func (b *Balancer) recall() {
	addresses, err := b.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		slog.Debug("No list of API servers is stored yet", "file", b.config.File)
	case err != nil:
		slog.Warn("The stored list of API servers is unusable; using those with which the node joined", "err", err)
	default:
		b.replace(addresses)
	}
}

func (b *Balancer) read() ([]string, error) {
	content, err := os.ReadFile(b.config.File)
	if err != nil {
		return nil, err
	}
	var m memory
	if err := json.Unmarshal(content, &m); err != nil {
		return nil, fmt.Errorf("read %s: %w", b.config.File, err)
	}
	if len(m.Servers) == 0 {
		return nil, fmt.Errorf("read %s: it contains no server", b.config.File)
	}
	for _, address := range m.Servers {
		if err := b.check(address); err != nil {
			return nil, fmt.Errorf("read %s: %w", b.config.File, err)
		}
	}
	slices.Sort(m.Servers)
	return slices.Compact(m.Servers), nil
}
