package controlplane

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"lite.io/lite/tests/upstream"
)

func TestNoArgumentIsDeprecated(t *testing.T) {
	manager, err := controllermanager.NewKubeControllerManagerOptions()
	if err != nil {
		t.Fatal(err)
	}
	c := sample(withCIS)
	more := map[string][]string{"kube-apiserver": identityArgs(strings.Repeat("a", 64), nil)}
	for name, sets := range map[string]cliflag.NamedFlagSets{
		"kube-apiserver":          apiserver.NewServerRunOptions().Flags(),
		"kube-scheduler":          *scheduler.NewOptions().Flags,
		"kube-controller-manager": manager.Flags(app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()),
	} {
		t.Run(name, func(t *testing.T) {
			fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
			for _, set := range sets.FlagSets {
				fs.AddFlagSet(set)
			}
			upstream.NoneDeprecated(t, fs, append(more[name], argsOf[name](c)...))
		})
	}
}
