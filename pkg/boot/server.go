package boot

import (
	"github.com/spf13/pflag"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/server"
)

// Server is the life of a server: everything that can be found wrong is found before anything
// is touched.
func Server(flags *pflag.FlagSet) error {
	return life(func(p *process) error {
		n, err := p.inspect(config.Server, flags)
		if err != nil {
			return err
		}
		return n.end(n.server())
	})
}

func (n *plan) server() error {
	facts, err := server.Facts(n.cfg)
	if err != nil {
		return err
	}
	unprepared, err := server.New(server.Config{Node: n.cfg, Cluster: facts, Host: n.host}, n.ui.changed)
	if err != nil {
		return err
	}
	c, err := n.claim(facts)
	if err != nil {
		return err
	}
	defer c.Close()
	node, err := unprepared.Prepare()
	if err != nil {
		return err
	}
	r, err := c.report()
	if err != nil {
		return err
	}
	return r.run(node.Group, addCertificates(node.Certificates), "Use the cluster:  lite kubectl get pods -A  (kubeconfig: "+n.cfg.WriteKubeconfig+")\n"+
		"Show its components:  lite status\n"+
		"Add a machine:  lite agent --token "+node.Token.Text())
}
