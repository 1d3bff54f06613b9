package boot

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/host/watch"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/install/uninstall"
	"lite.io/lite/pkg/server"
	"lite.io/lite/pkg/version"
)

// claimed is a plan whose data directory is this process's own, until it is closed.
type claimed struct {
	*plan
	io.Closer
}

// claim is told what the cluster shares, where that is known before the node is in it.
func (n *plan) claim(facts cluster.Facts) (*claimed, error) {
	hold, err := server.Claim(n.cfg.DataDir, version.Version())
	if err != nil {
		return nil, err
	}
	if err := errors.Join(n.ownEnvironment(facts), n.before.Keep(n.cfg.DataDir), n.stand()); err != nil {
		return nil, errors.Join(err, hold.Close())
	}
	if err := service.CloseUnit(); err != nil {
		slog.Warn("All users of the machine can read the service file", "err", err)
	}
	slog.Info("Starting lite", "version", version.Version(), "role", n.cfg.Role, "node", n.cfg.NodeName, "address", n.cfg.NodeIP[0],
		"data-dir", n.cfg.DataDir)
	slog.Info("Packet filter", "nft", n.tools.NFT, "iptables", n.tools.IPTables)
	n.endLost()
	return &claimed{plan: n, Closer: hold}, nil
}

// ownEnvironment gives the process and what it starts a PATH with the helpers, a NO_PROXY with the
// cluster, and a directory for temporary files. Whatever TMPDIR and XDG_RUNTIME_DIR, which
// containerd prefers, named may not be there: pods with users of their own did not start, and all
// parts were ready.
func (n *plan) ownEnvironment(facts cluster.Facts) error {
	local, _ := net.InterfaceAddrs() // without it nothing is added
	temporary := n.cfg.Layout().Run.Temporary()
	return errors.Join(
		os.Setenv("PATH", n.tools.Path(n.helpers, os.Getenv("PATH"))),
		os.Setenv("NO_PROXY", noProxy(n.cfg, facts, os.Getenv, local)),
		agent.MakeTemp(temporary), os.Setenv("TMPDIR", temporary), os.Unsetenv("XDG_RUNTIME_DIR"),
	)
}

// stand gives the machine the node's addresses if it has none of its own.
func (n *plan) stand() error {
	if !n.cfg.Standby {
		return watch.UseStandby(nil)
	}
	slog.Warn("This machine has no network: the node starts alone, and restarts when there is a network")
	return watch.UseStandby(n.cfg.NodeIP)
}

// lostGrace is how long containers of which all but they themselves has been removed may take
// to end: the start waits for it.
const lostGrace = 10 * time.Second

// endLost ends what runs on of pods that will be made anew.
func (n *plan) endLost() {
	if n.cfg.ContainerRuntimeEndpoint != "" {
		return // another containerd knows what it has
	}
	at := n.cfg.Layout()
	count, err := uninstall.EndLost(at.Data.Agent().Containerd().Root(), at.Run, lostGrace)
	if count > 0 {
		slog.Warn("Stopped containers whose state somebody has removed; their pods are recreated", "containers", count, "directory", at.Run)
	}
	if err != nil {
		slog.Warn("Cannot stop a container", "err", err)
	}
}

// occupy is claim and report, for a node that is made only then.
func (n *plan) occupy() (*reporting, error) {
	c, err := n.claim(cluster.Facts{})
	if err != nil {
		return nil, err
	}
	r, err := c.report()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return r, nil
}
