package kubeproxy

import (
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/kubernetes/cmd/kube-proxy/app"

	"lite.io/lite/tests/upstream"
)

func TestNoArgumentIsDeprecated(t *testing.T) {
	fs := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	app.NewOptions().AddFlags(fs)
	c := full()
	c.ExtraArgs = nil
	upstream.NoneDeprecated(t, fs, args(c))
}
