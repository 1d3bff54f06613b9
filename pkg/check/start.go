package check

import (
	"context"
	"errors"
	"fmt"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/server"
	"lite.io/lite/pkg/version"
)

// Start finds what prevents a start, and changes nothing.
func Start(cfg *config.Config) error {
	for _, run := range []func() error{
		func() error { return server.CheckClaim(cfg.DataDir, version.Version()) },
		cfg.Check,
		func() error { return Role(cfg) },
		func() error { return checkWatches(cfg) },
		func() error { return probe.CheckDisk(cfg.DataDir) },
		func() error { return vital(context.Background(), startEnv(This(), cfg)) },
		func() error { return agent.CheckRuntime(cfg) },
	} {
		if err := run(); err != nil {
			return err
		}
	}
	return nil
}

// startEnv is what the checks of a start see. No lite is asked: whether one runs is
// known by its lock.
func startEnv(m *Machine, cfg *config.Config) *Env {
	e := &Env{Machine: m, Subject: Subject{Role: cfg.Role, Config: cfg}}
	if e.Facts, e.Assumed = e.findFacts(); e.Assumed {
		e.Facts.Backend = "" // the cluster may have another than the default
	}
	return e
}

// vital finds what would let every component of a node become ready and no pod start. It
// uses checks of the table that cost next to nothing and leave no doubt; a Fail that
// affects other things than pods is for a person to judge.
func vital(ctx context.Context, e *Env) error {
	var errs []error
	for _, run := range []func(context.Context, *Env) []Result{user, kernel, vitalFeatures, kernelLog, openFiles, fileSystem, inherited} {
		for _, r := range run(ctx, e) {
			if r.Status == Fail && !r.bearable {
				errs = append(errs, fmt.Errorf("%s; %s", line(r.Found), line(r.Remedy)))
			}
		}
	}
	return errors.Join(errs...)
}

// vitalFeatures tries what the kernel can do for pods where something seems to be
// missing; to try it always would take a start the time of several processes.
func vitalFeatures(ctx context.Context, e *Env) []Result {
	if e.disabled(addon.CNI) {
		return nil // another network wants other things
	}
	options, source := probe.Root(e.Root).KernelOptions(e.release())
	for _, f := range e.wanted() {
		if !f.needed {
			continue
		}
		if s, _ := e.lookUp(f, options, source); s == missing {
			return features(ctx, e)
		}
	}
	return nil
}

func checkWatches(cfg *config.Config) error {
	if cfg.Role == config.Server {
		return probe.CheckWatches(agent.ServerWatches)
	}
	return probe.CheckWatches(agent.Watches)
}

// Role refuses what does not go with what the data directory was used for.
func Role(cfg *config.Config) error {
	stamp, err := cfg.Layout().Data.Stamp()
	switch {
	case err != nil:
		return err
	case stamp.Role != "" && stamp.Role != string(cfg.Role) && cfg.Role == config.Server && etcd.Used(cfg.Layout().Data.Server().Etcd()):
		// Such as a server's data that somebody has copied here: `lite uninstall` would delete it.
		return fmt.Errorf("data-dir %s contains a server's datastore, and an agent of a cluster used it last; to start the server, remove %s",
			cfg.DataDir, cfg.Layout().Data.Role())
	case stamp.Role != "" && stamp.Role != string(cfg.Role) && cfg.Role == config.Server:
		return fmt.Errorf("data-dir %s contains an agent of a cluster; start it with `lite agent`, remove it first with `lite uninstall`, or choose another --data-dir for the server", cfg.DataDir)
	case stamp.Role != "" && stamp.Role != string(cfg.Role):
		return fmt.Errorf("data-dir %s contains a server; start it with `lite server`, or choose another --data-dir for the agent", cfg.DataDir)
	case cfg.Role == config.Server:
		_, err = server.Facts(cfg)
	}
	return err
}
