package uninstall

import (
	"path/filepath"
	"strings"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// InstallationOf is the installation of a node with this configuration. server is whether its data directory is a server's.
func InstallationOf(cfg *config.Config, server bool) Installation {
	at, standard := cfg.Layout(), layout.Default()
	n := Installation{
		DataDirs:   []string{cfg.DataDir},
		DefaultDir: string(standard.Data),
		RunDir:     at.Run,
		ConfigDir:  at.Config,
		KubeletDir: at.Host.Kubelet,
		Host:       at.Host,
		Kubeconfig: cfg.WriteKubeconfig,
		Volumes:    cfg.LocalStoragePath,
		AuditLog:   cfg.AuditLogPath,
		OwnLog:     standard.Host.AuditLog,
		Name:       cfg.NodeName,
		Bridge:     layout.Bridge,
		Tunnels:    layout.Devices(),
		Protocol:   layout.RouteProtocol,
		Network:    layout.Network,
		Agent:      !server && exists(at.Data.Agent().Cluster()),
	}
	for _, arg := range cfg.KubeletArgs {
		if dir, ok := strings.CutPrefix(arg, "root-dir="); ok && filepath.IsAbs(dir) {
			n.KubeletDir = filepath.Clean(dir)
		}
	}
	return n
}
