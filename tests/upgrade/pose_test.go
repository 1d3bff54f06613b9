package upgrade

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"lite.io/lite/pkg/version"
)

// pose is what a program that poses as lite says and does.
type pose struct {
	Version version.Info
	Refuse  string
	Exec    string
	Write   string
	Content string
	Hang    bool
}

// poser is the program, without its role.
var poser = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "poser")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "poser")
	cmd := exec.Command("go", "build", "-o", path, "./testdata/poser")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the poser: %w\n%s", err, out)
	}
	return os.ReadFile(path)
})

// pose puts a program on a host that poses as a newer lite. change may say what
// is wrong with it.
func (b bed) pose(t *testing.T, path string, change func(*pose)) string {
	t.Helper()
	program, err := poser()
	if err != nil {
		t.Fatal(err)
	}
	var p pose
	if err := json.Unmarshal([]byte(b.Output(t, installed, "version", "-o", "json")), &p.Version); err != nil {
		t.Fatal(err)
	}
	p.Version.Version = "v0.3.0"
	change(&p)
	role, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(b.Dir, "lib", path[len("/var/lib/"):])
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target, append(append(program[:len(program):len(program)], "\n#pose:"...), role...), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
