package kubeproxy

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/kubernetes/cmd/kube-proxy/app"
)

// What upstream warns of now, it takes away with one of the next versions.
func TestNoArgumentIsDeprecated(t *testing.T) {
	fs := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	app.NewOptions().AddFlags(fs)
	c := full()
	c.ExtraArgs = nil
	for _, arg := range args(c) {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		switch f := fs.Lookup(name); {
		case f == nil:
			t.Errorf("kube-proxy has no --%s", name)
		case f.Deprecated != "":
			t.Errorf("--%s: %s", name, f.Deprecated)
		}
	}
}
