// Package options shows that what a user switches on or off in the
// configuration does what its name says.
package options

import (
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// soon is for what is to happen on a running node; the machine is busy.
const soon = 40 * time.Second

// eventually is [cluster.Eventually] with that timeout.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	cluster.Eventually(t, soon, f)
}
