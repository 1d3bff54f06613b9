// Package upstream finds the sources of what lite is made of. Only tests import it:
// they compare a list of ours with what upstream does, so that the next version of
// upstream cannot part the two in silence.
package upstream

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Sources is the directory with the sources of a module, in the version that is
// linked. They are there, since the module is compiled from them.
func Sources(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -m %s: %v\n%s", module, err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// Files calls do with each Go file below dir that is compiled on Linux and is no
// test.
func Files(t *testing.T, dir string, do func(path, content string)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") ||
			strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "_windows.go") {
			return err
		}
		content, err := os.ReadFile(path)
		if err == nil {
			do(path, string(content))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
