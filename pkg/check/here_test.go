package check

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"lite.io/lite/pkg/config"
)

// TestHere finds which node a machine is by its data directory, whatever its configuration
// would be accepted for.
func TestHere(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string // below the data directory
		yaml  string
		role  config.Role
		fails bool // its configuration is refused
	}{
		"a server":                      {map[string]string{"role": "server\n", "server/token": ""}, "", config.Server, false},
		"a server of an older version":  {map[string]string{"server/etcd/member/wal/0.wal": ""}, "", config.Server, false},
		"a server without its store":    {map[string]string{"role": "server\n", "server/pki/ca.crt": "", "agent/cluster.json": ""}, "", config.Server, false},
		"an agent":                      {map[string]string{"role": "agent\n", "agent/cluster.json": ""}, "", config.Agent, false},
		"an agent of an older version":  {map[string]string{"agent/cluster.json": ""}, "server: https://192.0.2.1:6443\n", config.Agent, false},
		"an agent that shares a file":   {map[string]string{"role": "agent\n", "agent/cluster.json": ""}, "cluster-cidr: 10.42.0.0/16\n", config.Agent, false},
		"an agent with a server's file": {map[string]string{"role": "agent\n", "agent/cluster.json": ""}, "tls-san: a.test\n", config.Agent, true},
		"a server that joined":          {map[string]string{"role": "server\n", "server/token": ""}, "server: https://192.0.2.1:6443\n", config.Server, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			for file, content := range test.files {
				file = filepath.Join(dir, file)
				if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			file := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(file, []byte("node-name: node-a\nnode-ip: 192.0.2.10\n"+test.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("LITE_DATA_DIR", dir)
			t.Setenv("LITE_CONFIG", file)
			n := Here(nil, nil)
			if n.Role != test.role || n.Why == "" || (n.Err != nil) != test.fails || (n.Config == nil) != test.fails {
				t.Errorf("got %+v, %v", n, n.Err)
			}
			if n.Config != nil && (n.Config.Role != test.role || n.Config.DataDir != dir) {
				t.Errorf("its configuration is %+v", n.Config)
			}
		})
	}
}
