package setup

import (
	_ "embed"
	"os"
	"path"
	"strings"

	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

// What stands in the files of the init systems: names in braces are filled in.
var (
	//go:embed files/lite.service
	unitText string
	//go:embed files/scopes.conf
	scopesText string
	//go:embed files/openrc
	openRCText string
	//go:embed files/logrotate
	logrotateText string
)

// mark is in each of the files, so that lite recognizes them as its own.
const mark = "Written when lite was installed"

// planService plans what makes the init system keep lite running.
func (s *setup) planService() error {
	ours := func(path string) bool {
		text, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(text), mark)
	}
	fill := strings.NewReplacer("{bin}", s.plan.bin, "{role}", string(s.options.role), "{log}", s.layout.Host.OpenRCLog,
		"{env}", s.layout.Config.Environment(), "{guard}", s.layout.Config.Guard(), "{service}", layout.Service)
	switch s.init.Kind {
	case service.Systemd, service.Unbooted:
		for _, dir := range unitDirs(s.layout.Host) {
			if err := s.spare(path.Join(dir, path.Base(s.layout.Host.SystemdUnit)), "", ours); err != nil {
				return err
			}
		}
		s.serviceFile(s.layout.Host.SystemdUnit, 0o600, []byte(fill.Replace(unitText)))
		s.dir(path.Dir(s.layout.Host.SystemdScopes))
		s.serviceFile(s.layout.Host.SystemdScopes, 0o644, []byte(scopesText))
	case service.OpenRC:
		if err := s.spare(s.layout.Host.OpenRCScript, "", ours); err != nil {
			return err
		}
		s.serviceFile(s.layout.Host.OpenRCScript, 0o755, []byte(fill.Replace(openRCText)))
		if s.isDir(path.Dir(s.layout.Host.Logrotate)) {
			s.file(s.layout.Host.Logrotate, 0o644, []byte(fill.Replace(logrotateText)))
		}
	case service.None:
		return nil
	}
	if !s.options.skipEnable {
		s.plan.want(s.init.AtBoot())
	}
	return nil
}
