// Package containerd runs containerd, with its CRI service, inside the
// process. The shims of running pods are processes of their own: they outlive
// it and are found again at the next start.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/file/unpack"
	"lite.io/lite/pkg/layout"
)

// Containerd is the component.
type Containerd struct {
	config     Config
	client     cri.RuntimeServiceClient
	registries *served
	runtimes   atomic.Pointer[string] // which there are
	contents   atomic.Pointer[content.Store]
}

// New makes the component; nothing is touched before Run.
func New(c Config) (*Containerd, error) {
	conn, err := grpc.NewClient("unix://"+c.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A refused connection is normal while containerd starts.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: fastBackoff, MinConnectTimeout: time.Second}))
	if err != nil {
		return nil, fmt.Errorf("create a client of containerd: %w", err)
	}
	return &Containerd{config: c, client: cri.NewRuntimeServiceClient(conn),
		registries: newServed(c.RegistryFile, c.Dir.Registries(), layout.Local(layout.RewritePort))}, nil
}

// Name implements component.Component.
func (*Containerd) Name() string { return "containerd" }

// Run implements component.Component.
func (c *Containerd) Run(ctx context.Context) error {
	if _, err := c.registries.load(); err != nil {
		return err
	}
	defer c.registries.through.close()
	cfg, err := c.configure(ctx)
	if err != nil {
		return err
	}
	if err := registerPuller(c.registries.credentials); err != nil {
		return err
	}
	if err := boundPlugins(unpack.ForImages(string(c.config.Dir)), func(s content.Store) { c.contents.Store(&s) }); err != nil {
		return err
	}
	if err := server.CreateTopLevelDirectories(cfg); err != nil {
		return err
	}
	// By default, it takes the one that the machine had when the process began (2.4).
	if err := mount.SetTempMountLocation(c.config.TempDir); err != nil {
		return fmt.Errorf("choose %s for mounts of images: %w", c.config.TempDir, err)
	}
	// Not ctx: what the plugins do in the background must be able to end in
	// order, in Stop.
	s, err := server.New(context.WithoutCancel(ctx), cfg)
	if err != nil {
		return fmt.Errorf("%w; if a file in %s sets this, correct it", err, c.config.dropIns())
	}
	defer s.Stop()
	if err := s.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	c.registries.watch(ctx)
	<-ctx.Done()
	return nil
}

// Contents is containerd's content store, once it is ready. Its socket leads there, too,
// but each mebibyte of an archive passes six goroutines on the way, each of which waits for
// the busy ones of the process: what took 5 s took 3 minutes beside four of these.
func (c *Containerd) Contents() content.Store { return *c.contents.Load() }

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

// Note implements component.Noter.
func (c *Containerd) Note() string {
	return component.Notes(*c.runtimes.Load(), c.registries.note())
}

// configure writes containerd's configuration and reads it with the user's drop-ins.
func (c *Containerd) configure(ctx context.Context) (*srvconfig.Config, error) {
	path, err := c.writeConfig()
	if err != nil {
		return nil, err
	}
	cfg, err := c.config.load(ctx, path)
	if err != nil {
		return nil, err
	}
	if pullsByItself(cfg) {
		c.registries.fixed = true
		c.registries.now.Load().giveCredentials(cfg)
	}
	runtimes := describeRuntimes(cfg)
	c.runtimes.Store(&runtimes)
	if unused := c.registries.now.Load().unused(); unused != "" {
		slog.Warn("A setting in registries.yaml has no effect", "file", c.config.RegistryFile, "what", unused)
	}
	return cfg, nil
}

// writeConfig writes containerd's configuration.
func (c *Containerd) writeConfig() (string, error) {
	if err := c.config.makeDirectories(); err != nil {
		return "", err
	}
	snapshotter, reason := probe(string(c.config.Dir))
	if reason != nil {
		slog.Warn("Overlayfs does not work here: images will take more space", "snapshotter", snapshotter, "reason", reason)
	}
	content, err := c.config.toml(snapshotter, c.config.findRuntimes(append(filepath.SplitList(os.Getenv("PATH")), runtimeDirs...)))
	if err != nil {
		return "", err
	}
	path := c.config.Dir.Config()
	if err := file.Write(path, []byte(content), 0o600); err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return path, nil
}

// makeDirectories creates containerd's directories, with their modes. A container in a user
// namespace (hostUsers: false) is created by a user without rights here, who has to reach
// the root of its files, but cannot list the directories on the way.
func (c Config) makeDirectories() error {
	run := filepath.Dir(string(c.StateDir))
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{
		{string(c.Dir), 0o700}, {c.CNIConfDir, 0o700}, {run, file.Passable}, {string(c.StateDir), file.Passable},
		{c.StateDir.State(), file.Passable}, {c.StateDir.Shims(), 0o700}, {c.StateDir.Runc(), 0o700},
	} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return fmt.Errorf("create a directory for containerd: %w", err)
		}
		if strings.HasPrefix(d.path, run) {
			// An earlier lite has made it otherwise.
			if err := os.Chmod(d.path, d.mode); err != nil {
				return fmt.Errorf("create a directory for containerd: %w", err)
			}
		}
	}
	return nil
}

// fastBackoff makes the client notice within a moment that containerd listens.
var fastBackoff = backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.2, MaxDelay: time.Second}
