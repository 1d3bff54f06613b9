// Package metrics answers the API metrics.k8s.io, which `kubectl top` and
// HorizontalPodAutoscalers ask, with metrics-server's library in the process.
//
// Every server runs it, listening on loopback, and its API server asks nobody
// else. So nothing has to be found or elected, and a server that is up answers.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// Address is where the API server of the same process finds it.
func Address() string { return layout.Local(layout.MetricsPort) }

// Config is the configuration of Metrics.
type Config struct {
	// Client is of the identity lite:metrics. Kubelets are asked with the same
	// certificate, and theirs are verified with the same authority.
	Client   *kube.Client
	Nodes    *kube.Nodes
	CAFile   string // of the cluster's authority, which the API server verifies us with
	CertFile string
	KeyFile  string
	// ClientCAFile is the authority of the aggregation layer. A client that does
	// not show a certificate of it for ClientName is not spoken to.
	ClientCAFile string
	ClientName   string
}

// Metrics is the component.
type Metrics struct {
	config  Config
	serves  atomic.Bool
	figures atomic.Bool
	reason  atomic.Pointer[string]
}

// New makes the component; nothing is touched before Run.
func New(c Config) *Metrics { return &Metrics{config: c} }

// Name implements component.Component.
func (*Metrics) Name() string { return "metrics" }

// Ready implements component.Component: the API answers. It has figures a little
// later, because CPU is the difference of two readings.
func (m *Metrics) Ready(context.Context) error {
	if m.serves.Load() {
		return nil
	}
	if reason := m.reason.Load(); reason != nil {
		return errors.New(*reason)
	}
	return errors.New("starting to listen")
}

// Note implements component.Noter.
func (m *Metrics) Note() string {
	if !m.figures.Load() {
		return "no metrics yet: waiting for the second reading of a kubelet"
	}
	return ""
}

func (m *Metrics) waitsFor(reason string) { m.reason.Store(&reason) }

// Run implements component.Component.
func (m *Metrics) Run(ctx context.Context) error {
	m.serves.Store(false)
	m.figures.Store(false)
	cfg, err := m.config.Client.Config()
	if err != nil {
		return err
	}
	client, err := m.config.Client.Clientset()
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("create a client: %w", err)
	}

	var running sync.WaitGroup
	defer running.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	readings, err := newReadings(cfg, objects, nodes{m.config.Nodes})
	if err != nil {
		return err
	}
	handler, err := handler(readings.store, pods{ctx, objects, ""}, nodes{m.config.Nodes})
	if err != nil {
		return err
	}
	failed, err := m.serve(ctx, &running, handler)
	if err != nil {
		return err
	}
	leave, err := readings.follow(m.config.Nodes)
	if err != nil {
		return err
	}
	defer leave()
	if !m.publish(ctx, client) {
		return nil
	}
	m.serves.Store(true)
	running.Go(func() { readings.take(ctx, &m.figures) })
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// publish writes into the APIService which authority the API server verifies us with, as
// soon as that object exists. The manifests create it, and grant the right to do so and to
// ask kubelets.
func (m *Metrics) publish(ctx context.Context, client kubernetes.Interface) bool {
	ca, err := os.ReadFile(m.config.CAFile)
	for {
		if err == nil {
			err = writeAuthority(ctx, client.Discovery().RESTClient(), ca)
		}
		if err == nil {
			return true
		}
		m.waitsFor("registering with the API: " + err.Error())
		if !kube.Sleep(ctx, 100*time.Millisecond) {
			return false
		}
		ca, err = os.ReadFile(m.config.CAFile)
	}
}
