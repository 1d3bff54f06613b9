// Package versions makes programs that are, or pose as, other versions of lite
// than the one that was built, for tests of upgrades.
package versions

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"lite.io/lite/pkg/version"
)

// Next is the version of the program that [Build] makes.
const Next = "v99.0.0"

// Build makes a lite of version [Next] from the same source, once, and returns its
// path. Packages that are tested at the same time share it.
func Build(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return "", err
	}
	const script = `set -e
		exec 9>dist/lite-next.lock; flock 9
		. scripts/env; flags=$(LITE_VERSION=` + Next + ` scripts/ldflags); go build -ldflags "$flags" -o dist/lite-next ./cmd/lite`
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build another version: %w\n%s", err, out)
	}
	return filepath.Join(dir, "dist", "lite-next"), nil
})

// PreviousMinor returns the path of a lite that stands on the minor version of
// Kubernetes before this one. It is built the first time, and kept.
func PreviousMinor(t testing.TB) string {
	t.Helper()
	cmd := exec.Command("scripts/test/previous-minor")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("build the previous minor version: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// Pose is what a program that poses as lite says and does. Started, it ends at
// once, unless it is told to hang or to become another program.
type Pose struct {
	Version version.Info
	Refuse  string // what it has against the configuration
	Exec    string // the program to become, after it has written a file
	Write   string
	Content string
	Hang    bool
}

// Make writes such a program.
func (p Pose) Make(t testing.TB, path string) {
	t.Helper()
	program, err := poser()
	if err != nil {
		t.Fatal(err)
	}
	role, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(append(program[:len(program):len(program)], "\n#pose:"...), role...), 0o755); err != nil {
		t.Fatal(err)
	}
}

// poser is the program, without its role.
var poser = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "poser")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "poser")
	cmd := exec.Command("go", "build", "-o", path, "lite.io/lite/tests/harness/versions/testdata/poser")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the poser: %w\n%s", err, out)
	}
	return os.ReadFile(path)
})
