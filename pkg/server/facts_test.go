package server

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore"
)

// configured is a server as a user would start it.
func configured(t *testing.T, dataDir string, args ...string) *config.Config {
	t.Helper()
	flags := config.Flags(config.Server)
	if err := flags.Parse(append([]string{"--config", dataDir + ".yaml", "--data-dir", dataDir, "--node-name=node-a", "--node-ip=192.0.2.10"}, args...)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dataDir+".yaml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Server, flags, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestFacts starts the server of a cluster again and again: what is in use stays, the rest
// follows the configuration, and a version that knew only the ranges is believed.
func TestFacts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	at := configured(t, dir).Layout().Data.Server()
	if err := os.MkdirAll(string(at), 0o700); err != nil {
		t.Fatal(err)
	}
	start := func(args ...string) (cluster.Facts, error) {
		t.Helper()
		f, err := Facts(configured(t, dir, args...))
		if err == nil {
			err = remember(at, f)
		}
		return f, err
	}
	if f, err := start("--cluster-cidr=10.50.0.0/16", "--cluster-domain=a.test", "--disable=dns"); err != nil || f.ClusterDomain != "a.test" || !slices.Equal(f.Disable, addon.Disabled{addon.DNS}) {
		t.Fatalf("first start: %+v, %v", f, err)
	}
	if f, err := start("--cluster-cidr=10.50.0.0/16", "--cluster-domain=A.TEST.", "--disable=metrics"); err != nil || !slices.Equal(f.Disable, addon.Disabled{addon.Metrics}) {
		t.Errorf("another battery: %+v, %v", f, err)
	}
	var c *config.Contradiction
	if _, err := start("--cluster-cidr=10.51.0.0/16", "--service-cidr=10.52.0.0/16", "--cluster-domain=b.test"); !errors.As(err, &c) || len(c.Differences) != 3 {
		t.Errorf("three that are in use: %v", err)
	}
	if f, err := Known(configured(t, dir), os.ReadFile); err != nil || f.ClusterDomain != "a.test" || f.Datastore != cluster.Etcd {
		t.Errorf("what is known afterwards: %+v, %v", f, err)
	}

	const older = `{"clusterCIDR":["10.50.0.0/16"],"serviceCIDR":["10.43.0.0/16"]}`
	if err := errors.Join(os.Remove(at.Facts()), os.WriteFile(at.Ranges(), []byte(older), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := start(); !errors.As(err, &c) || len(c.Differences) != 1 || c.Differences[0].Cluster != "10.50.0.0/16" {
		t.Errorf("ranges of an older version: %v", err)
	}
	if _, err := start("--cluster-cidr=10.50.0.0/16", "--cluster-domain=b.test"); err != nil {
		t.Errorf("a domain that the older version did not note: %v", err)
	}
	if _, err := os.Stat(at.Ranges()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the older version's file is still there: %v", err)
	}
	if _, err := start("--cluster-cidr=10.50.0.0/16"); !errors.As(err, &c) || len(c.Differences) != 1 {
		t.Errorf("the domain that is noted now: %v", err)
	}
}

func TestDamagedFacts(t *testing.T) {
	for _, content := range []string{"", "{}", "[]", `{"clusterCIDR":["10.50.0.0/16"]}`, `{"clusterCIDR":["x"],"serviceCIDR":["10.43.0.0/16"]}`} {
		dir := filepath.Join(t.TempDir(), "data")
		cfg := configured(t, dir)
		file := cfg.Layout().Data.Server().Facts()
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
		if f, err := Facts(cfg); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "; restore the file, or remove it ") || !f.Known() {
			t.Errorf("%q: %+v, %v", content, f, err)
		}
	}
}

// idle is a component that does nothing.
type idle struct{}

func (idle) Name() string                  { return "store" }
func (idle) Ready(context.Context) error   { return nil }
func (idle) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// TestSharedStore composes a server that may not stay alone: what must run once per
// cluster waits for an election, though there is no kubeconfig yet.
func TestSharedStore(t *testing.T) {
	for _, shared := range []chan struct{}{nil, make(chan struct{})} {
		cfg := configured(t, filepath.Join(t.TempDir(), "data"))
		c := Config{Node: cfg, Cluster: config.StandardFacts(), Host: agent.Host{Systemd: true, NFTables: true}}
		s, err := New(c, func(component.Status) {})
		if err != nil {
			t.Fatal(err)
		}
		g, err := s.compose(datastore.Store{Component: idle{}, Shared: shared}, newClients(s.Node, s.controlplane), func(component.Status) {})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, one := range g.Status(t.Context()) {
			names = append(names, one.Name)
		}
		if names[0] == "etcd" || slices.Contains(names, "election") != (shared != nil) || !slices.Contains(names, "store") {
			t.Errorf("shared %v: the parts are %v", shared != nil, names)
		}
	}
}

// A server that is given the facts of a cluster goes by these, whatever its own
// configuration has by default.
func TestReceivedFacts(t *testing.T) {
	f := config.StandardFacts()
	f.ClusterDomain, f.ServiceCIDR = "cluster.test", []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}
	f.Disable = addon.Disabled{addon.Metrics}
	s, err := New(Config{Node: configured(t, filepath.Join(t.TempDir(), "data")), Cluster: f, Host: agent.Host{Systemd: true, NFTables: true}}, func(component.Status) {})
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.group.Settings()
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, one := range all {
		args = append(args, one.Arguments...)
	}
	for _, want := range []string{"--service-cluster-ip-range=10.99.0.0/16", "--service-account-issuer=https://kubernetes.default.svc.cluster.test"} {
		if !slices.Contains(args, want) {
			t.Errorf("no %s in %v", want, args)
		}
	}
	if id := identity(s.Node, s.Cluster); id.ClusterDomain != "cluster.test" || id.ServiceIPs[0] != netip.MustParseAddr("10.99.0.1") {
		t.Errorf("its certificates are for %+v", id)
	}
	if len(s.controlplane.Local) > 0 {
		t.Error("it answers for a battery that the cluster does not have")
	}
}

func TestUnknownStore(t *testing.T) {
	f := config.StandardFacts()
	f.Datastore = "newer"
	_, err := New(Config{Node: configured(t, filepath.Join(t.TempDir(), "data")), Cluster: f}, func(component.Status) {})
	if err == nil || !strings.Contains(err.Error(), `"newer"`) || !strings.Contains(err.Error(), "; use the version that ") {
		t.Errorf("got %v", err)
	}
}
