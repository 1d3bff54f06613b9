package setup

import (
	"path"

	"lite.io/lite/pkg/install/release"
	"lite.io/lite/pkg/layout"
)

// Where the installation has what.
var (
	standard = layout.Default()

	configDir     = string(standard.Config)
	installFile   = standard.Config.Install()
	inventoryFile = standard.Config.Installed()
	pendingFile   = standard.Config.Pending()
	envFile       = standard.Config.Environment()
	releaseKey    = standard.Config.ReleaseKey()

	workDir    = string(standard.Config.Setup())
	finalFile  = standard.Config.Setup().After()
	beforeFile = standard.Config.Setup().Before()
	sumsFile   = standard.Config.Setup().File(release.SumsFile)
	keyFile    = standard.Config.Setup().Key()

	unit          = standard.Host.SystemdUnit
	scopesFile    = standard.Host.SystemdScopes
	initScript    = standard.Host.OpenRCScript
	openRCLog     = standard.Host.OpenRCLog
	logrotateFile = standard.Host.Logrotate
)

// defaultBinDir is where the commands go unless a user names another directory.
const defaultBinDir = "/usr/local/bin"

// unitDirs are those in which systemd looks for services, as far as somebody may have put one there.
func unitDirs() []string {
	return []string{path.Dir(unit), "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
}

// completion is where a shell looks for what completes lite's commands.
type completion struct{ shell, path string }

func completions() []completion {
	h := standard.Host
	return []completion{{"bash", h.BashCompletion}, {"zsh", h.ZshCompletion}, {"fish", h.FishCompletion}}
}
