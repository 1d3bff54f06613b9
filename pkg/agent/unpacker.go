package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"lite.io/lite/pkg/helpers"
)

// unpacker unpacks the bundled programs. Components that run one of them need it.
type unpacker struct {
	dataDir string
	done    atomic.Bool
}

// Name implements component.Component.
func (*unpacker) Name() string { return "helpers" }

// Run implements component.Component.
func (u *unpacker) Run(ctx context.Context) error {
	if _, err := helpers.Unpack(u.dataDir); err != nil {
		return err
	}
	u.done.Store(true)
	<-ctx.Done()
	return nil
}

// Ready implements component.Component.
func (u *unpacker) Ready(context.Context) error {
	if !u.done.Load() {
		return errors.New("unpacking programs")
	}
	return nil
}

// Crictl is where crictl is, which comes with lite; it is unpacked unless a node has run here.
func Crictl(dataDir string) (string, error) {
	// Unpack would make it readable by everybody.
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return "", fmt.Errorf("create data-dir: %w", err)
	}
	unpacked, err := helpers.Unpack(dataDir)
	if err != nil {
		return "", err
	}
	return filepath.Join(unpacked.Bin(), "crictl"), nil
}
