package boot

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"

	"github.com/spf13/pflag"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/check"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/helpers"
	"lite.io/lite/pkg/host/netfilter"
	"lite.io/lite/pkg/install/upgrade"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/log"
)

// plan is a node that this machine can be: all that can be found wrong without touching
// anything has been looked at.
type plan struct {
	*process
	host agent.Host
	cfg  *config.Config
	// helpers is where the programs that lite brings along are, once unpacked.
	helpers layout.Helpers
	tools   netfilter.Tools
	ui      *progress
	// paused tells, once ctx is done, whether that was an upgrade.
	paused <-chan bool
}

// inspect touches nothing, except that it records which modules of the kernel were loaded
// where a check had to load one.
func (p *process) inspect(role config.Role, flags *pflag.FlagSet) (*plan, error) {
	n := &plan{process: p}
	if err := n.look(role, flags); err != nil {
		if p.before.Changed() {
			err = errors.Join(err, p.before.Keep(""))
		}
		return nil, err
	}
	n.paused = whenDone(n.ctx, func() bool { return upgrade.UnderWay(n.cfg.DataDir) })
	if !n.cfg.NamesNodeIP() {
		n.host.Addresses = func() ([]netip.Addr, error) { return addressesNow(role, flags) }
	}
	return n, nil
}

// look inspects the machine and the configuration, after an upgrade that was interrupted has
// come to its end.
func (n *plan) look(role config.Role, flags *pflag.FlagSet) (err error) {
	if n.host, err = agent.Inspect(); err != nil {
		return err
	}
	if n.cfg, err = config.Load(role, flags, os.Environ()); err != nil {
		return err
	}
	if err := hidePassword(n.cfg); err != nil {
		return err
	}
	n.ui = newProgress(os.Stderr, n.cfg.LogFormat, n.manager.Status)
	log.Bridge(log.New(n.ui, n.ui.logLevel(n.cfg.LogLevel), n.cfg.LogFormat))
	if err := n.settleUpgrade(); err != nil {
		return err
	}
	if err := check.Start(n.cfg); err != nil {
		return err
	}
	return n.chooseTools()
}

// settleUpgrade does what an interrupted upgrade has left to do. It does not
// return if another program is in the place of this one afterwards.
func (n *plan) settleUpgrade() error {
	program, err := upgrade.Settle(n.cfg.DataDir)
	if err != nil || program == "" {
		return err
	}
	return upgrade.Reexec(program, n.environment)
}

// chooseTools decides which iptables and nft the node runs, so that its parts
// can be told.
func (n *plan) chooseTools() (err error) {
	if n.helpers, err = helpers.At(n.cfg.DataDir); err != nil {
		return err
	}
	n.tools = netfilter.Choose(n.ctx, n.helpers, n.cfg.PreferBundledBin)
	n.host.NFTables = n.tools.NFTables()
	return nil
}

// whenDone answers a question at the moment when ctx is done.
func whenDone(ctx context.Context, ask func() bool) <-chan bool {
	answer := make(chan bool, 1)
	context.AfterFunc(ctx, func() { answer <- ask() })
	return answer
}

// addressesNow is the addresses that a node which starts now would have, or why
// it would not start with them.
func addressesNow(role config.Role, flags *pflag.FlagSet) ([]netip.Addr, error) {
	cfg, err := config.Load(role, flags, os.Environ())
	if err != nil || cfg.Standby {
		return nil, err
	}
	return cfg.NodeIP, cfg.CheckNetworks()
}

// end is the end of a node whose data directory is free again: an upgrade that has stopped it
// may want it to go on as another program.
func (n *plan) end(err error) error {
	end := upgrade.Failed
	switch {
	case n.ctx.Err() != nil:
		end = upgrade.Asked
		if <-n.paused {
			end = upgrade.Paused
		}
		if errors.Is(err, errAgain) {
			err = nil // it was told to stop in the last moment
		}
	case errors.Is(err, errAgain):
		end = upgrade.Again
	}
	n.release() // signals end the process again
	if again := upgrade.Relaunch(n.cfg.DataDir, end, n.environment); again != nil {
		slog.Error("The upgrade cannot start lite again", "err", again)
	}
	return err
}
