package check

import (
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/pflag"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/server"
)

// Local is the node that this machine is, or will be.
type Local struct {
	Role   config.Role
	Why    string // how the role is known
	Config *config.Config
	Err    error // why there is no configuration
}

// Here finds which node this machine is, for every command without a role. The stamp of the
// data directory decides; without one, other signs of a role. If m is not nil, its
// processes and services come first. given are flags for a node; nil = none.
func Here(m *Machine, given *pflag.FlagSet) Local {
	load := func(role config.Role) (*config.Config, error) {
		if given != nil {
			return config.Load(role, given, os.Environ())
		}
		return config.Load(role, config.Flags(role), os.Environ())
	}
	n := Local{Role: config.Server}
	if n.Config, n.Err = load(n.Role); n.Err != nil {
		// The data directory does not depend on the role.
		if cfg, err := load(config.Agent); err == nil {
			n = Local{Role: config.Agent, Config: cfg}
		}
	}
	role, why := n.decide(m, n.dataDir(given))
	if role != n.Role {
		n.Role = role
		n.Config, n.Err = load(role)
	}
	n.Why = why
	return n
}

// decide finds the role of the node with a data directory, and how it is known.
func (n Local) decide(m *Machine, dataDir string) (config.Role, string) {
	if m != nil {
		return m.RoleOf(dataDir)
	}
	switch s, err := layout.Data(dataDir).Stamp(); {
	case s.Role != "":
		return config.Role(s.Role), dataDir + " contains one"
	case errors.Is(err, fs.ErrPermission):
		return n.Role, "only root can read " + dataDir
	}
	return This().RoleOf(dataDir)
}

// dataDir is the one that is configured, whatever else is wrong with the configuration.
func (n Local) dataDir(given *pflag.FlagSet) string {
	if n.Config != nil {
		return n.Config.DataDir
	}
	if given != nil {
		if f := given.Lookup("data-dir"); f != nil && f.Value.String() != "" {
			return f.Value.String()
		}
	}
	return string(layout.Default().Data)
}

// KnownFacts is what a node knows of its cluster while it does not run, as far as this
// user may read it: the zero Facts if nothing.
func KnownFacts(cfg *config.Config) cluster.Facts {
	if cfg.Role == config.Agent {
		return agent.Known(cfg, os.ReadFile)
	}
	facts, _ := server.Known(cfg, os.ReadFile) // a start reports what is wrong
	return facts
}
