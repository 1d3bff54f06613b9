package upgrade

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"lite.io/lite/tests/harness/versions"
)

type pose = versions.Pose

// pose puts a program on a host that poses as a newer lite. change may say what
// is wrong with it.
func (b bed) pose(t *testing.T, path string, change func(*pose)) string {
	t.Helper()
	var p pose
	if err := json.Unmarshal([]byte(b.Output(t, installed, "version", "-o", "json")), &p.Version); err != nil {
		t.Fatal(err)
	}
	p.Version.Version = "v99.1.0"
	change(&p)
	p.Make(t, filepath.Join(b.Dir, "lib", path[len("/var/lib/"):]))
	b.sums(t, path)
	return path
}

// minors is a version some minor versions away.
func minors(v string, steps int) string {
	var major, minor, patch int
	if _, err := fmt.Sscanf(v, "v%d.%d.%d", &major, &minor, &patch); err != nil {
		panic(fmt.Sprintf("%q is no version: %v", v, err))
	}
	return fmt.Sprintf("v%d.%d.%d", major, minor+steps, patch)
}
