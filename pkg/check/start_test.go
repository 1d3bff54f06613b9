package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// A server's data that were copied to where an agent was: the advice was to uninstall, which
// would have deleted them.
func TestRoleOfCopiedData(t *testing.T) {
	for name, test := range map[string]struct {
		datastore bool
		want      string
	}{
		"an agent alone":       {false, "with `lite uninstall`"},
		"a server's datastore": {true, "to start the server, remove "},
	} {
		dir := layout.Data(t.TempDir())
		files := map[string]string{dir.Role(): "agent\n", dir.Agent().Cluster(): "{}"}
		if test.datastore {
			files[filepath.Join(dir.Server().Etcd(), "member", "snap", "db")] = "data"
		}
		for path, content := range files {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := Role(&config.Config{Role: config.Server, DataDir: string(dir)})
		if err == nil || !strings.Contains(err.Error(), test.want) || test.datastore && strings.Contains(err.Error(), "uninstall") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
