package setup

import (
	"path"

	"lite.io/lite/pkg/layout"
)

// defaultBinDir is where the commands go unless a user names another directory.
const defaultBinDir = "/usr/local/bin"

// unitDirs are those in which systemd looks for services, as far as somebody may have put one there.
func unitDirs(h layout.Host) []string {
	return []string{path.Dir(h.SystemdUnit), "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
}

// completion is the path of a shell's completions for lite.
type completion struct{ shell, path string }

func completions(h layout.Host) []completion {
	return []completion{{"bash", h.BashCompletion}, {"zsh", h.ZshCompletion}, {"fish", h.FishCompletion}}
}
