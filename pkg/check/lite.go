package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/server"
)

func user(_ context.Context, e *Env) []Result {
	if e.UID != 0 {
		return []Result{{Status: Skip, Found: fmt.Sprintf("user %d is not root: some checks are not possible, and lite itself has to run as root", e.UID), Remedy: "run `sudo lite check`"}}
	}
	if lacks := e.lacks(); len(lacks) > 0 {
		return fail("root without "+strings.Join(lacks, " and ")+", as in a container: no pod can start", "run lite on the machine itself, or make the container privileged (--privileged)")
	}
	return pass("root")
}

// capabilities are those without which nothing is mounted and no network made, by
// their numbers (capabilities(7)).
var capabilities = []struct {
	name string
	bit  uint
}{{"CAP_SYS_ADMIN", 21}, {"CAP_NET_ADMIN", 12}}

// lacks is the capabilities that this process does not have.
func (e *Env) lacks() (names []string) {
	for _, c := range capabilities {
		if !probe.Root(e.Root).HasCapability(c.bit) {
			names = append(names, c.name)
		}
	}
	return names
}

// node is the status of a running lite.
func node(_ context.Context, e *Env) []Result {
	n := e.Running.Node
	switch {
	case n == nil && e.Running.PID != 0:
		return skip(fmt.Sprintf("lite is running (pid %d) but does not answer: %v", e.Running.PID, e.Running.Err))
	case n == nil && e.exists(e.Layout.Config.Installed()):
		return warn("lite is installed but not running",
			"start it: `systemctl start lite` or `rc-service lite start`; its log shows why it ended")
	case n == nil:
		return skip("lite is not running yet")
	}
	var results []Result
	for _, c := range n.Components {
		if c.State == component.Ready {
			continue
		}
		found := fmt.Sprintf("%s is %s: %s", c.Name, c.State, c.Reason+c.Note)
		remedy := "see docs/troubleshooting.md, or run `lite status` again in a minute if it has just started"
		if c.State == component.Failed {
			results = append(results, fail(found, remedy)...)
		} else {
			results = append(results, warn(found, remedy)...)
		}
	}
	for _, s := range n.Servers {
		if s.Reason != "" {
			results = append(results, warn(fmt.Sprintf("server %s is %s: %s", s.Address, s.State, s.Reason), "see `lite status`")...)
		}
	}
	if len(results) == 0 {
		return pass(fmt.Sprintf("%s %s is running, lite %s, pid %d, all %d components are ready", n.Role, n.Name, n.Version, n.PID, len(n.Components)))
	}
	return results
}

// configuration checks flags, variables and files.
func configuration(_ context.Context, e *Env) []Result {
	if e.Unread != "" {
		return skip("only root can read " + e.Unread + "; the following is about a machine without it")
	}
	if e.Wrong != nil {
		return wrong(e.Wrong)
	}
	if err := e.Files(e.Config); err != nil {
		if e.UID != 0 {
			return needsRoot("whether the files and directories of the configuration can be used")
		}
		return wrong(err)
	}
	if e.Refused != nil {
		return wrong(e.Refused)
	}
	if e.Role == config.Agent && !e.Assumed {
		if err := e.Config.Contradicts(e.Facts); err != nil {
			return refused(err)
		}
	}
	text := fmt.Sprintf("%s %s, address %v", e.Role, e.Config.NodeName, e.Config.NodeIP)
	if e.Because != "" {
		text = fmt.Sprintf("%s (%s) %s, address %v", e.Role, e.Because, e.Config.NodeName, e.Config.NodeIP)
	}
	if e.Assumed {
		return pass(text + "; it has not joined yet: the checks use the default pod and service networks")
	}
	return pass(fmt.Sprintf("%s, pods %v, services %v, %s", text, e.Facts.ClusterCIDR, e.Facts.ServiceCIDR, e.Facts.Backend))
}

// wrong shows errors of the configuration, which know their remedy.
func wrong(err error) []Result {
	var results []Result
	for _, one := range each(err) {
		var c *config.Error
		if errors.As(one, &c) {
			results = append(results, fail(fmt.Sprintf("%s %q (%s): %s", c.Key, c.Value, c.Source, c.Problem), c.Remedy)...)
		} else {
			results = append(results, refused(one)...)
		}
	}
	return results
}

// dataDirectory checks existing data.
func dataDirectory(_ context.Context, e *Env) []Result {
	if e.Config == nil {
		return noConfig()
	}
	dir := e.Config.DataDir
	if !e.exists(dir) {
		return pass(dir + " is not there yet")
	}
	if e.UID != 0 {
		return needsRoot(dir)
	}
	if e.Running.PID == 0 {
		if err := e.Claim(dir, e.Version); err != nil {
			return refused(err)
		}
	}
	if err := e.Fits(e.Config); err != nil {
		return refused(err)
	}
	if s, _ := layout.Data(e.path(dir)).Stamp(); s.Version != "" {
		return pass(fmt.Sprintf("%s was last used by lite %s", dir, s.Version))
	}
	return pass(dir + " does not contain a cluster yet")
}

func registries(_ context.Context, e *Env) []Result {
	if e.Config == nil {
		return noConfig()
	}
	f := e.Config.PrivateRegistry
	switch err := containerd.CheckRegistries(e.path(f)); {
	case err != nil && e.UID != 0 && denied(err):
		return needsRoot(f)
	case err != nil:
		return refused(fmt.Errorf("%w; see docs/registries.md", err))
	case !e.exists(f):
		return pass("no " + f + ": images come from the registries in their names")
	}
	return pass(f + " can be read")
}

// dropIns is what a user adds to containerd's configuration.
func dropIns(_ context.Context, e *Env) []Result {
	switch {
	case e.Config == nil:
		return noConfig()
	case e.Config.ContainerRuntimeEndpoint != "":
		return pass("not used: you configured your own container runtime")
	case e.UID != 0:
		return needsRoot("the configuration of containerd")
	}
	dir := layout.Data(e.Config.DataDir).Agent().Containerd()
	if err := errors.Join(containerd.CheckDropIns(layout.Containerd(e.path(string(dir)))), containerd.CheckDevices(e.Root)); err != nil {
		return refused(err)
	}
	files := e.glob(filepath.Join(dir.DropIns(), "*.toml"))
	if len(files) == 0 {
		return pass("nothing in " + dir.DropIns())
	}
	return pass("can read " + strings.Join(files, ", "))
}

// certificates finds those that expire, or begin in the future, by this machine's clock.
func certificates(_ context.Context, e *Env) []Result {
	if e.Config == nil {
		return noConfig()
	}
	if !e.exists(e.Config.DataDir) {
		return pass("none yet; they will be created with this machine's clock")
	}
	if e.UID != 0 {
		return needsRoot("the certificates")
	}
	files := server.CertificateFiles(e.Config)
	if e.Config.Role == config.Agent {
		files = agent.CertificateFiles(e.Config)
	}
	all, damaged := pki.Scan(files, e.read)
	if len(all)+len(damaged) == 0 {
		return pass("none yet; they will be created with this machine's clock")
	}
	var results []Result
	for _, path := range slices.Sorted(maps.Keys(damaged)) {
		results = append(results, fail(path+": "+damaged[path].Error(), "restore it from a backup; if you remove it, a server creates it again, unless it is an authority's")...)
	}
	now := e.Now()
	for _, c := range all {
		if now.Before(c.NotBefore) {
			results = append(results, fail(fmt.Sprintf("%s is valid from %s on, and the clock shows %s", c.Path, stamp(c.NotBefore), stamp(now)),
				"set the clock: `timedatectl set-ntp true`, or `date -s`; a server renews such certificates at its next start")...)
		}
	}
	for _, c := range pki.Due(all, now) {
		if c.Ended(now) {
			results = append(results, fail(fmt.Sprintf("%s was valid until %s, and the clock shows %s", c.Path, stamp(c.NotAfter), stamp(now)), "check whether the clock is right; then "+c.Remedy(now))...)
		} else {
			results = append(results, warn(fmt.Sprintf("%s is valid until %s", c.Path, stamp(c.NotAfter)), c.Remedy(now))...)
		}
	}
	if len(results) == 0 {
		return pass(fmt.Sprintf("all %d are valid now", len(all)))
	}
	return results
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
