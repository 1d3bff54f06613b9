package uninstall

import (
	"path/filepath"
	"strings"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// NodeOf is where the node with a configuration keeps what. server says that its data directory is a server's.
func NodeOf(cfg *config.Config, server bool) Node {
	at, standard := cfg.Layout(), layout.Default()
	n := Node{
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
