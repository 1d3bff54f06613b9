package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/install/backup"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/version"
)

// Options is what a user sets for an upgrade.
type Options struct {
	Artifact string // a file or a directory; "" = from the network
	Version  string // "" = that of the channel
	Channel  string
	BaseURL  string
	// PublicKey is a PEM file: releases have to be signed with its key; "" = with
	// the one that the installer has remembered, if it has.
	PublicKey string
	SHA256    string // of an artifact that is a program without a SHA256SUMS; "" = none
	// AllowHTTP accepts releases that are neither encrypted in transit nor signed.
	AllowHTTP bool
	// Force continues if a component of this node is not ready or a server does not answer.
	Force         bool
	HealthTimeout time.Duration
}

// Plan is an upgrade that has passed all checks.
type Plan struct {
	Node     *Instance
	From, To version.Info
	// Same means that there is nothing to do.
	Same          bool
	Size          int64 // what is going to be kept, in bytes
	HealthTimeout time.Duration
	Warnings      []string

	others   []member // other nodes of the cluster, of a server
	force    bool
	runtime  string
	driver   *Driver
	artifact string
	contents contents // of the artifact
}

// Close forgets a plan; one that was carried out leaves nothing to forget.
func (p *Plan) Close() error {
	j, err := ReadJournal(p.Node.Config.DataDir)
	if err == nil && !j.Pending() {
		err = os.Remove(layout.Staged(p.Node.Binary))
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, p.driver.Close())
}

// Make finds everything that prevents an upgrade. Nothing is changed but for the new
// program, which is put beside the old one: it is asked what it is and whether it can be
// started as this one was.
func Make(ctx context.Context, o Options, report func(string)) (*Plan, error) {
	n, err := Running(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.checkSelf(); err != nil {
		return nil, err
	}
	driver, err := drive(ctx, n.Config.Layout(), report)
	if err != nil {
		return nil, err
	}
	// It may be another one now, after whoever was waited for.
	if n, err = Running(ctx); err != nil {
		return nil, errors.Join(err, driver.Close())
	}
	p := &Plan{Node: n, From: version.Get(), HealthTimeout: o.HealthTimeout, force: o.Force, runtime: agent.Socket(n.Config), driver: driver}
	if err := p.make(ctx, o, report); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Plan) make(ctx context.Context, o Options, report func(string)) error {
	if err := p.settle(); err != nil {
		return err
	}
	if err := p.checkHealth(o.Force); err != nil {
		return err
	}
	t, err := newTrust(o, p.Node.Config.Layout().Config.ReleaseKey())
	if err != nil {
		return err
	}
	target, asked := layout.Staged(p.Node.Binary), ""
	if o.Artifact == "" {
		r, err := find(ctx, o, t, p.Node.env)
		if err != nil {
			return err
		}
		if r.version == p.From.Version {
			p.To, p.Same = p.From, true
			return nil
		}
		if err := r.stage(ctx, p.Node.Config.Layout().Data.Download(), target, report); err != nil {
			return err
		}
		asked = r.version
	} else {
		p.artifact = o.Artifact
		report("Looking at " + o.Artifact)
		if p.contents, err = stage(ctx, o.Artifact, target, t); err != nil {
			return err
		}
	}
	if p.To, err = inspect(ctx, target); err != nil {
		return fmt.Errorf("the new program: %w", err)
	}
	if asked != "" && p.To.Version != asked {
		return fmt.Errorf("what is served as lite %s is lite %s; do not use it, and tell whoever serves it", asked, p.To.Version)
	}
	if p.To.Version == p.From.Version {
		p.Same = true
		return nil
	}
	server := p.Node.Config.Role == config.Server
	if err := checkVersions(p.From, p.To, server); err != nil {
		return err
	}
	if err := p.checkSkew(ctx, o.Force); err != nil {
		return err
	}
	warnings, err := checkQuorum(ctx, p.Node, o.Force)
	if err != nil {
		return err
	}
	p.Warnings = append(p.Warnings, warnings...)
	if err := backup.CheckWhole(p.Node.Config.DataDir); err != nil {
		return err
	}
	if err := p.checkRoom(); err != nil {
		return err
	}
	return p.Node.checkConfig(ctx, target)
}

// checkSelf makes sure that this is the running lite, since it backs itself up and rolls
// back to itself.
func (n *Instance) checkSelf() error {
	if strings.HasSuffix(n.Binary, " (deleted)") {
		return fmt.Errorf("the program of lite was replaced since lite %s was started; restart lite first", n.Status.Version)
	}
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("inspect this program: %w", err)
	}
	runs, err := os.Stat(n.Binary)
	if err != nil {
		return fmt.Errorf("inspect the program of lite: %w", err)
	}
	if !os.SameFile(self, runs) {
		return fmt.Errorf("lite %s runs from %s, and this is another program (%s); run `%[2]s upgrade`, with --artifact for a file", n.Status.Version, n.Binary, version.Version())
	}
	return nil
}

// settle brings an earlier upgrade to its end, as far as that can be done beside
// a lite that runs.
func (p *Plan) settle() error {
	dataDir := p.Node.Config.DataDir
	j, err := ReadJournal(dataDir)
	if err != nil {
		return err
	}
	if !j.Pending() {
		return cleanUp(dataDir, &Journal{Binary: p.Node.Binary, Guard: p.Node.Config.Layout().Config.Guard()})
	}
	switch {
	case j.State == Prepared:
		return errors.Join(abandon(dataDir, j), cleanUp(dataDir, j), forget(dataDir))
	case j.State == Returning:
		return errors.Join(cleanUp(dataDir, j), forget(dataDir))
	case j.State == Restored && j.From == p.From.Version:
		return finish(dataDir, j)
	}
	return fmt.Errorf("the upgrade from %s to %s is not complete (%s); wait for it, or undo it with `lite rollback`", j.From, j.To, j.State)
}

// checkHealth refuses to begin on a node that is not healthy: afterwards, nobody could tell
// whether the upgrade is the cause.
func (p *Plan) checkHealth(force bool) error {
	if p.Node.Status.Ready {
		return nil
	}
	why := "not every component of this node is ready: " + notReady(p.Node.Status)
	if !force {
		return fmt.Errorf("%s; fix that first, or continue with --force", why)
	}
	p.Warnings = append(p.Warnings, why)
	return nil
}

func (p *Plan) checkSkew(ctx context.Context, force bool) error {
	if p.Node.Config.Role == config.Server {
		others, err := p.Node.members(ctx)
		if err != nil {
			if !force {
				return fmt.Errorf("%w; fix that first, or continue with --force", err)
			}
			p.Warnings = append(p.Warnings, "the versions of the other nodes are not known: "+err.Error())
		}
		p.others = others
		return checkServerSkew(p.To.Kubernetes, others)
	}
	servers, silent, err := p.Node.apiServers(ctx)
	if err != nil {
		return err
	}
	if len(silent) > 0 {
		why := "these servers do not report their version: " + strings.Join(silent, ", ")
		if !force || len(servers) == 0 {
			return fmt.Errorf("%s; an agent must not be newer than a server: start them first, or continue with --force if the others have the version", why)
		}
		p.Warnings = append(p.Warnings, why)
	}
	return checkAgentSkew(p.To.Kubernetes, servers)
}

// unpacks is what a new version unpacks when it starts, more than its helper
// programs are.
const unpacks = 128 << 20

// checkRoom makes sure that what is kept fits, and that the new version finds
// enough room to start. The new program is on the disk by now.
func (p *Plan) checkRoom() error {
	dataDir := p.Node.Config.DataDir
	p.Size = backup.Size(dataDir, p.Node.Config.Role) + p.contents.toUnpack(layout.Data(dataDir).Agent().Images())
	if same, err := sameFileSystem(dataDir, p.Node.Binary); err != nil {
		return err
	} else if !same {
		p.Size += backup.SizeOf(p.Node.Binary)
	}
	free, err := probe.Free(dataDir)
	if err != nil {
		return err
	}
	return checkFree(dataDir, int64(free), p.Size)
}

// checkFree compares what is free with what has to be.
func checkFree(dataDir string, free, kept int64) error {
	const start = unpacks + probe.MinimumFreeDisk
	if free < kept+start {
		return fmt.Errorf("data-dir %s: %d MiB are free and %d MiB are needed: %d MiB for the backup, %d MiB for the new version; free some space",
			dataDir, free>>20, (kept+start)>>20, kept>>20, start>>20)
	}
	return nil
}

func sameFileSystem(a, b string) (bool, error) {
	var sa, sb unix.Stat_t
	if err := unix.Stat(a, &sa); err != nil {
		return false, fmt.Errorf("inspect %s: %w", a, err)
	}
	if err := unix.Stat(b, &sb); err != nil {
		return false, fmt.Errorf("inspect %s: %w", b, err)
	}
	return sa.Dev == sb.Dev, nil
}

// Print writes what would be done.
func (p *Plan) Print(w io.Writer) error {
	n := p.Node
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: lite %s -> %s\n", n.Config.Role, n.Config.NodeName, p.From.Version, p.To.Version)
	for _, part := range []struct{ name, from, to string }{
		{"Kubernetes", p.From.Kubernetes, p.To.Kubernetes}, {"etcd", p.From.Etcd, p.To.Etcd},
		{"containerd", p.From.Containerd, p.To.Containerd}, {"runc", p.From.Runc, p.To.Runc},
	} {
		if part.from != part.to {
			fmt.Fprintf(&b, "  %s %s -> %s\n", part.name, part.from, part.to)
		}
	}
	fmt.Fprintf(&b, "  backup in %s: %d MiB\n", n.Config.Layout().Data.Kept(), p.Size>>20)
	if n.Manager != nil {
		fmt.Fprintf(&b, "  restarted by %s\n", n.Manager.Name())
	} else {
		fmt.Fprintf(&b, "  restarted by itself (pid %d): no init system keeps lite running here\n", n.Status.PID)
	}
	fmt.Fprintf(&b, "  rolled back unless healthy within %s\n", p.HealthTimeout)
	_, err := io.WriteString(w, b.String())
	return err
}
