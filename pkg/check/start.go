package check

import (
	"fmt"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/server"
	"lite.io/lite/pkg/version"
)

// Start finds what stands in the way of a start, and touches nothing.
func Start(cfg *config.Config) error {
	for _, look := range []func() error{
		func() error { return server.CheckClaim(cfg.DataDir, version.Version()) },
		cfg.Check,
		func() error { return Role(cfg) },
		func() error { return checkWatches(cfg) },
		func() error { return agent.CheckDisk(cfg.DataDir) },
		func() error { return containerd.CheckRegistries(cfg.PrivateRegistry) },
	} {
		if err := look(); err != nil {
			return err
		}
	}
	return nil
}

func checkWatches(cfg *config.Config) error {
	if cfg.Role == config.Server {
		return agent.CheckWatches(agent.ServerWatches)
	}
	return agent.CheckWatches(agent.Watches)
}

// Role refuses what does not go with what the data directory was used for.
func Role(cfg *config.Config) error {
	if cfg.Role == config.Server {
		if agent.Joined(cfg.DataDir) && !server.Used(cfg.DataDir) {
			return fmt.Errorf("data-dir %s holds an agent of a cluster; start it with `lite agent`, remove it first with `lite uninstall`, or choose another --data-dir for the server", cfg.DataDir)
		}
		return server.CheckRanges(cfg)
	}
	if server.Used(cfg.DataDir) {
		return fmt.Errorf("data-dir %s holds a server; start it with `lite server`, or choose another --data-dir for the agent", cfg.DataDir)
	}
	return nil
}
