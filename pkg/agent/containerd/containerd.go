// Package containerd runs containerd, with its CRI service, inside the
// process. The shims of running pods are processes of their own: they outlive
// it and are found again at the next start.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"lite.io/lite/pkg/file"
)

// Containerd is the component.
type Containerd struct {
	config Config
	client cri.RuntimeServiceClient
}

// New makes the component; nothing is touched before Run.
func New(c Config) (*Containerd, error) {
	conn, err := grpc.NewClient("unix://"+c.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A refused connection is normal while containerd starts.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: fastBackoff, MinConnectTimeout: time.Second}))
	if err != nil {
		return nil, fmt.Errorf("make a client of containerd: %w", err)
	}
	return &Containerd{c, cri.NewRuntimeServiceClient(conn)}, nil
}

// Name implements component.Component.
func (*Containerd) Name() string { return "containerd" }

// Run implements component.Component.
func (c *Containerd) Run(ctx context.Context) error {
	r, err := parseRegistries(c.config.RegistryFile)
	if err != nil {
		return err
	}
	through, err := r.listen()
	if err != nil {
		return err
	}
	path, err := c.writeConfig(r, through)
	if err != nil {
		return err
	}
	if through != nil {
		through.serve(ctx)
	}
	cfg := &srvconfig.Config{}
	if err := srvconfig.LoadConfig(ctx, path, cfg); err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	if err := server.CreateTopLevelDirectories(cfg); err != nil {
		return err
	}
	// Not ctx: what the plugins do in the background must be able to end in
	// order, in Stop.
	s, err := server.New(context.WithoutCancel(ctx), cfg)
	if err != nil {
		return err
	}
	defer s.Stop()
	if err := s.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	<-ctx.Done()
	return nil
}

// Ready implements component.Component: the CRI answers.
func (c *Containerd) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	status, err := c.client.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return errors.New("the container runtime does not answer yet")
	}
	for _, condition := range status.GetStatus().GetConditions() {
		if condition.Type == "RuntimeReady" && !condition.Status {
			return errors.New(condition.Message)
		}
	}
	return nil
}

// writeConfig writes containerd's configuration and registry files.
func (c *Containerd) writeConfig(r *registries, through *rewriter) (string, error) {
	for _, dir := range []string{c.config.Dir, c.config.StateDir, c.config.CNIConfDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", fmt.Errorf("make a directory for containerd: %w", err)
		}
	}
	if err := r.write(c.config.registryDir(), through); err != nil {
		return "", err
	}
	snapshotter, reason := probe(c.config.Dir)
	if reason != nil {
		slog.Warn("Images cannot be stacked with overlayfs here and will take more room", "snapshotter", snapshotter, "reason", reason)
	}
	content, err := c.config.toml(snapshotter, r.auths())
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.config.Dir, "config.toml")
	// Registry passwords are in it.
	if err := file.Write(path, []byte(content), 0o600); err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return path, nil
}

// fastBackoff makes the client notice within a moment that containerd listens.
var fastBackoff = backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.2, MaxDelay: time.Second}
