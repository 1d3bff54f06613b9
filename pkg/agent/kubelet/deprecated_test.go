package kubelet

import (
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/kubernetes/cmd/kubelet/app/options"

	"lite.io/lite/tests/upstream"
)

func TestNoArgumentIsDeprecated(t *testing.T) {
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	options.NewKubeletFlags().AddFlags(fs)
	c := full()
	c.ExtraArgs = nil
	upstream.NoneDeprecated(t, fs, args(c))
}
