package check

import (
	"errors"
	"log/slog"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/server"
	"lite.io/lite/pkg/version"
)

// Service finds what would keep a service from starting, whatever runs on the machine now.
// It changes nothing.
func Service(cfg *config.Config) error {
	if err := errors.Join(server.CheckVersion(cfg.DataDir, version.Version()), Role(cfg)); err != nil {
		return err
	}
	if cfg.Role == config.Agent {
		if err := agent.CheckJoin(cfg); err != nil {
			return err
		}
	}
	return Accepted(cfg)
}

// Accepted finds what a start would find wrong with a configuration itself.
func Accepted(cfg *config.Config) error {
	if err := agent.CheckRuntime(cfg); err != nil {
		return err
	}
	return Arguments(cfg)
}

// Arguments is Accepted for arguments of components, and the files that they
// name: they are checked where they are parsed. Of the machine it matters only who
// makes cgroups.
func Arguments(cfg *config.Config) error {
	log.Bridge(slog.New(slog.DiscardHandler)) // upstream's log is not of interest here
	host := agent.Host{Systemd: probe.HasSystemd()}
	if cfg.Role == config.Agent {
		return agent.Check(cfg, host)
	}
	return server.Check(cfg, host)
}
