package upstream

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// NoneDeprecated fails a test for each argument that a component does not have, or of
// which upstream warns: that is taken away with one of the next versions.
func NoneDeprecated(t *testing.T, fs *pflag.FlagSet, args []string) {
	t.Helper()
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		switch f := fs.Lookup(name); {
		case f == nil:
			t.Errorf("there is no --%s", name)
		case f.Deprecated != "":
			t.Errorf("--%s: %s", name, f.Deprecated)
		}
	}
}
