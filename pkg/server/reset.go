package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
)

// reset is how far a server has come in becoming the only one of its cluster. A start that finds it goes on where one
// before was cut short. It stays, once done, for as long as the option is set: in a service file it must not reset a
// cluster that has grown again.
type reset struct {
	Began  time.Time `json:"began"`
	Forced bool      `json:"forced"` // the data may be those of the only one already
	Done   bool      `json:"done"`
	// Others is where the other members were. The data may have forgotten them when the next start goes on.
	Others []string `json:"others,omitempty"`
}

func readReset(dir layout.Server) (*reset, error) {
	data, err := os.ReadFile(dir.Reset())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var r reset
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return nil, fmt.Errorf("read how far the reset has come: %s: %w; remove the file if lite has run since then", dir.Reset(), err)
	}
	return &r, nil
}

func (r reset) write(dir layout.Server) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = file.Write(dir.Reset(), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("record the reset: %w", err)
	}
	return nil
}

// Resets reports whether a server has to become the only one of its cluster before it starts.
func Resets(cfg *config.Config) (bool, error) {
	dir := cfg.Layout().Data.Server()
	was, err := readReset(dir)
	switch {
	case err != nil:
		return false, err
	case was != nil && was.Forced && !was.Done && etcd.Used(dir.Etcd()):
		return true, nil // also if it is not asked for any more: half of it may be done
	case !cfg.ResetToSingle:
		return false, nil
	case was != nil && was.Done:
		slog.Warn("reset-to-single was done and is not done again; remove the option: a start without it allows another reset", "done", was.Began)
		return false, nil
	}
	known, err := readMembership(dir)
	if err == nil && (known == nil || !known.Complete || !etcd.Used(dir.Etcd())) {
		err = fmt.Errorf("reset-to-single: the server on data-dir %s is not one of several; remove the option", cfg.DataDir)
	}
	return err == nil, err
}

// Reset makes the server the only one of its cluster, with the data that it has; a copy of these is put aside before.
func Reset(ctx context.Context, cfg *config.Config) error {
	dir := cfg.Layout().Data.Server()
	r, err := readReset(dir)
	if err != nil {
		return err
	}
	if r == nil {
		r = &reset{Began: time.Now().UTC().Truncate(time.Second)}
	}
	if r.Forced {
		if up := etcd.Up(r.Others); up != "" {
			return fmt.Errorf("reset-to-single was cut short here, and another server is up meanwhile, at %s: two servers must not both go on with the data; stop lite there, or, to have this server join the others again, run `lite member remove %s` on one of them and `lite member rejoin` here", up, cfg.NodeName)
		}
	} else {
		if r.Others, err = etcd.CheckSingle(dir.Etcd()); err != nil {
			return fmt.Errorf("reset-to-single: %w; nothing was changed", err)
		}
		if err := r.write(dir); err != nil {
			return err
		}
	}
	aside, err := etcd.CopyAside(dir.Etcd(), r.Began)
	if err != nil {
		return fmt.Errorf("reset-to-single: %w", err)
	}
	r.Forced = true
	if err := r.write(dir); err != nil {
		return err
	}
	if err := etcd.ForceSingle(ctx, etcd.Config{Name: cfg.NodeName, Dir: dir.Etcd(), PKI: pkiDir(cfg), Args: cfg.EtcdArgs}); err != nil {
		return fmt.Errorf("reset-to-single: %w", err)
	}
	if err := alone(cfg); err != nil {
		return err
	}
	r.Done = true
	slog.Warn("This server is the only one of its cluster now; delete the nodes of the others, and remove the option reset-to-single", "copy of the data before", aside)
	return r.write(dir)
}

// alone has a server make the facts of its cluster again, if its configuration makes the same ones. One that has joined
// others was not told them.
func alone(cfg *config.Config) error {
	was, err := Known(cfg, os.ReadFile)
	if err != nil {
		return err
	}
	m := membership{Complete: true, Alone: true, Reset: true}
	if err := cfg.Differs(was); err != nil {
		warnOfFacts(err)
		m.Alone = false
	}
	return m.write(cfg.Layout().Data.Server())
}

func warnOfFacts(differ error) {
	slog.Warn("The settings of the cluster stay as they are, and cannot be changed on this server before its configuration has them all", "because", differ)
}

// forgetReset allows another reset once nobody asks for one.
func forgetReset(cfg *config.Config) error {
	if cfg.ResetToSingle {
		return nil
	}
	if err := os.Remove(cfg.Layout().Data.Server().Reset()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget a reset that was done: %w", err)
	}
	return nil
}
