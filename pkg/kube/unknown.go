package kube

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/version"
)

// noneOfThatName ends what is said of an argument, or a feature gate, that has come
// from an older version more often than from a slip of the pen.
const noneOfThatName = "Kubernetes " + version.DefaultKubeBinaryVersion + " does not have it: remove it, or correct it"

func withRemedy(err error) error {
	if _, unknown := errors.AsType[*pflag.NotExistError](err); unknown {
		return fmt.Errorf("%w; %s", err, noneOfThatName)
	}
	return err
}

// checkGates names the argument in which a feature gate stands that is in no
// registry. The control plane keeps what it is told of gates until all is told
// (1.37), and then nobody knows any more whom a gate was for.
func checkGates(component string, args []string) error {
	known := utilfeature.DefaultMutableFeatureGate.GetAllVersioned()
	for _, arg := range args {
		flag, gates, _ := strings.Cut(arg, "=")
		if strings.ReplaceAll(flag, "_", "-") != "--feature-gates" {
			continue
		}
		for gate := range strings.SplitSeq(gates, ",") {
			name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(gate), "kube:"), "=")
			if _, ok := known[featuregate.Feature(name)]; !ok && name != "" && !strings.Contains(name, ":") {
				return fmt.Errorf("%s-arg feature-gates=%s: unrecognized feature gate: %s; %s", component, gates, name, noneOfThatName)
			}
		}
	}
	return nil
}
