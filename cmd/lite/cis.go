package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/check"
	"lite.io/lite/pkg/check/cis"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/status"
	"lite.io/lite/pkg/version"
)

// cisTimeout is for a socket and an API server of this machine.
const cisTimeout = time.Minute

// runCIS judges this node by the benchmark.
func runCIS(ctx context.Context, w io.Writer, flags *pflag.FlagSet, o checkOptions) error {
	write := map[string]func(cis.Report) error{
		"table": func(r cis.Report) error { return r.WriteText(w) },
		"junit": func(r cis.Report) error { return r.WriteJUnit(w) },
		"json":  func(r cis.Report) error { return writeJSON(w, r) },
	}[o.output]
	machine := check.This()
	switch {
	case write == nil:
		return fmt.Errorf("--output %q: must be table, json or junit", o.output)
	case o.fix || o.strict || len(o.nodes) > 0:
		return errors.New("--cis: cannot be combined with --fix, --strict or --nodes; leave them out")
	case machine.UID != 0:
		return errors.New("--cis: needs root to see how lite runs and who owns its files; run `sudo lite check --cis`")
	}
	ctx, cancel := context.WithTimeout(ctx, cisTimeout)
	defer cancel()
	node, err := cisNode(ctx, machine, flags, o.role)
	if err != nil {
		return err
	}
	r := cis.Judge(node)
	r.Version = version.Version()
	if err := write(r); err != nil {
		return err
	}
	if r.Failed() {
		return log.Shown(errors.New("some entries of the benchmark failed or could not be checked"))
	}
	return nil
}

// cisNode is this node: as it runs, or else as its files lie there.
func cisNode(ctx context.Context, m *check.Machine, flags *pflag.FlagSet, role string) (*cis.Node, error) {
	n := &cis.Node{Root: m.Root}
	s, err := status.GetSettings(ctx, layout.Default().Run.Socket())
	if err != nil {
		n.Stopped, n.AskAgain = err.Error(), "start lite, wait until it is ready, and check again"
		n.Unasked = n.Stopped
		return n, ofConfiguration(n, m, flags, role)
	}
	if role != "" && role != s.Role {
		return nil, fmt.Errorf("--role %s: the lite that runs here has the role %s; leave --role out", role, s.Role)
	}
	n.Role, n.Name, n.DataDir, n.Kubeconfig, n.Parts = config.Role(s.Role), s.Name, s.DataDir, s.Kubeconfig, s.Components
	n.AskAgain = "wait until `lite status` shows everything ready, and check again"
	if n.Parts == nil {
		n.Stopped, n.Unasked = "lite is starting", "lite is starting"
		return n, nil
	}
	if n.Role == config.Server {
		admin := layout.Data(n.DataDir).Server().Kubeconfig(pki.Admin)
		if c, err := administrator(admin); err != nil {
			n.Unasked, n.Ask = fmt.Sprintf("the kubeconfig %s cannot be used: %v", admin, err), "start lite again, which writes that file"
		} else if n.Objects, err = cis.Ask(ctx, c); err != nil {
			n.Unasked = err.Error()
		}
	}
	return n, nil
}

// ofConfiguration is where the files of a node are that does not run.
func ofConfiguration(n *cis.Node, m *check.Machine, flags *pflag.FlagSet, role string) error {
	n.Role = config.Role(role)
	switch n.Role {
	case config.Server, config.Agent:
	case "":
		n.Role, _ = m.RoleOf(configuredDataDir(flags))
	default:
		return fmt.Errorf("--role %q: must be server or agent", role)
	}
	cfg, err := config.Load(n.Role, flags, os.Environ())
	if err != nil {
		return err
	}
	n.Name, n.DataDir, n.Kubeconfig = cfg.NodeName, cfg.DataDir, cfg.WriteKubeconfig
	return nil
}

// administrator is a client of the API with a kubeconfig, whose text is not told.
func administrator(kubeconfig string) (kubernetes.Interface, error) {
	if _, err := file.ReadRegular(kubeconfig); err != nil {
		if what := (*fs.PathError)(nil); errors.As(err, &what) {
			err = what.Err
		}
		return nil, err
	}
	c, err := kube.ClientConfig(kubeconfig, "check")
	if err != nil {
		return nil, errors.New("it is damaged")
	}
	return kubernetes.NewForConfig(c)
}
