package controlplane

import (
	"strings"
	"testing"

	cliflag "k8s.io/component-base/cli/flag"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// What upstream warns of now, it takes away with one of the next versions.
func TestNoArgumentIsDeprecated(t *testing.T) {
	manager, err := controllermanager.NewKubeControllerManagerOptions()
	if err != nil {
		t.Fatal(err)
	}
	c := sample(withCIS)
	for name, test := range map[string]struct {
		sets cliflag.NamedFlagSets
		args []string
	}{
		"kube-apiserver":          {apiserver.NewServerRunOptions().Flags(), append(identityArgs(strings.Repeat("a", 64)), apiServerArgs(c)...)},
		"kube-scheduler":          {*scheduler.NewOptions().Flags, schedulerArgs(c)},
		"kube-controller-manager": {manager.Flags(app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()), controllerManagerArgs(c)},
	} {
		for _, arg := range test.args {
			flag, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
			found := false
			for _, set := range test.sets.FlagSets {
				if f := set.Lookup(flag); f != nil {
					if found = true; f.Deprecated != "" {
						t.Errorf("%s --%s: %s", name, flag, f.Deprecated)
					}
				}
			}
			if !found {
				t.Errorf("%s has no --%s", name, flag)
			}
		}
	}
}
