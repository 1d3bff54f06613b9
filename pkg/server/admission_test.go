package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/server/controlplane"
)

// A damaged token kept the server from starting, and to make another one takes a
// server that runs.
func TestADamagedTokenNamesItsRemedy(t *testing.T) {
	cfg := &config.Config{DataDir: t.TempDir()}
	file := cfg.Layout().Data.Server().Token()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := ensureToken(cfg, cluster.Facts{}, pki.Dir(t.TempDir()))
	if err == nil || !strings.HasPrefix(err.Error(), file+" is empty") || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("got %v", err)
	}
}

// What keeps a server from publishing for good was not to be found anywhere.
func TestReadySaysWhyNothingIsPublished(t *testing.T) {
	a := newAdmission(controlplane.Config{}, nil, &members{})
	if err := a.Ready(t.Context()); err == nil || err.Error() != "waiting to publish how to join the cluster" {
		t.Errorf("got %v", err)
	}
	problem := errors.New("token abcdef is there already")
	a.problem.Store(&problem)
	if err := a.Ready(t.Context()); !errors.Is(err, problem) {
		t.Errorf("got %v", err)
	}
	a.published.Store(true)
	if err := a.Ready(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
}
