package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/check/cis"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/status"
	"lite.io/lite/pkg/version"
)

// CIS judges this node by the benchmark: as it runs, otherwise by its files. role is the one that the user passes, or
// "".
func CIS(ctx context.Context, m *Machine, flags *pflag.FlagSet, role string) (cis.Report, error) {
	node, err := cisNode(ctx, m, flags, role)
	if err != nil {
		return cis.Report{}, err
	}
	r := cis.Judge(node)
	r.Version = version.Version()
	return r, nil
}

func cisNode(ctx context.Context, m *Machine, flags *pflag.FlagSet, role string) (*cis.Node, error) {
	n := &cis.Node{Root: m.Root, Layout: m.Layout}
	s, err := status.GetSettings(ctx, m.Layout.Run.Socket())
	if err != nil {
		n.Stopped, n.Remedy = err.Error(), "start lite, wait until it is ready, and check again"
		n.NoObjects = n.Stopped
		return n, ofConfiguration(n, m, flags, role)
	}
	if role != "" && role != s.Role {
		return nil, fmt.Errorf("--role %s: the lite that runs here has the role %s; leave --role out", role, s.Role)
	}
	n.Role, n.Name, n.DataDir, n.Kubeconfig, n.Components = config.Role(s.Role), s.Name, s.DataDir, s.Kubeconfig, s.Components
	n.Remedy = "wait until `lite status` shows everything ready, and check again"
	if n.Components == nil {
		n.Stopped, n.NoObjects = "lite is starting", "lite is starting"
		return n, nil
	}
	if n.Role == config.Server {
		admin := layout.Data(n.DataDir).Server().Kubeconfig(pki.Admin)
		if c, err := administrator(admin); err != nil {
			n.NoObjects, n.ObjectsRemedy = fmt.Sprintf("the kubeconfig %s cannot be used: %v", admin, err), "start lite again, which writes that file"
		} else if n.Objects, err = cis.ReadObjects(ctx, c); err != nil {
			n.NoObjects = err.Error()
		}
	}
	return n, nil
}

// ofConfiguration is where the files of a node are that does not run.
func ofConfiguration(n *cis.Node, m *Machine, flags *pflag.FlagSet, role string) error {
	n.Role = config.Role(role)
	switch n.Role {
	case config.Server, config.Agent:
	case "":
		n.Role = Here(m, flags).Role
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

// administrator is a client of the API with a kubeconfig, whose content no error quotes.
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
