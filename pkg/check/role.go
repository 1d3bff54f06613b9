package check

import (
	"strings"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// RoleOf finds the role of this machine, and how it is known: by what runs, what starts it,
// or what its data directory has. Without any of these, it is a server.
func (m *Machine) RoleOf(dataDir string) (role config.Role, why string) {
	for _, p := range m.processes() {
		if p.name == "lite" && len(p.args) > 1 && (p.args[1] == "server" || p.args[1] == "agent") {
			return config.Role(p.args[1]), "it runs"
		}
	}
	for _, f := range []string{m.Layout.Host.SystemdUnit, m.Layout.Host.OpenRCScript} {
		text := m.text(f)
		for _, role := range []config.Role{config.Agent, config.Server} {
			if strings.Contains(text, "lite "+string(role)) || strings.Contains(text, `command_args="`+string(role)) {
				return role, f + " starts it"
			}
		}
	}
	if s, _ := layout.Data(m.path(dataDir)).Stamp(); s.Role != "" {
		return config.Role(s.Role), dataDir + " contains one"
	}
	return config.Server, "the default"
}
