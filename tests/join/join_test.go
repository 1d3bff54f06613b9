// Package join shows how machines become nodes of a cluster, and who does not.
package join

import (
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// soon is for whatever is to happen soon.
func soon(t testing.TB, f func() error) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, f)
}
