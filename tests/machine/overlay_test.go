package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOverlay runs the tests of package overlay on a kernel that has WireGuard:
// not one of them may be skipped here.
func TestOverlay(t *testing.T) {
	need(t)
	binary := filepath.Join(t.TempDir(), "overlay.test")
	build := exec.Command("go", "test", "-c", "-o", binary, "lite.io/lite/pkg/cni/overlay")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of package overlay: %v\n%s", err, out)
	}
	start := time.Now()
	g := boot(t, file{binary, "root/overlay.test", 0o755})
	t.Logf("booted in %s: %s", time.Since(start).Round(time.Second), g.Output(t, "uname -r"))
	g.equal(t, "", "lsmod | grep -w wireguard || true") // nobody but the overlay asks for it

	var all strings.Builder
	for _, name := range strings.Fields(g.Output(t, "/root/overlay.test -test.list .")) {
		t.Run(name, func(t *testing.T) {
			output := g.Output(t, "/root/overlay.test -test.v -test.run '^%s$'", name)
			t.Log(output)
			if !strings.Contains(output, "--- PASS: "+name+" ") || strings.Contains(output, "--- SKIP") {
				t.Error("it did not run, or not all of it")
			}
			all.WriteString(output)
		})
	}
	t.Logf("%d tests and parts of tests have passed, %d were skipped", strings.Count(all.String(), "--- PASS"), strings.Count(all.String(), "--- SKIP"))
	t.Log(g.Output(t, "modinfo -F filename wireguard && lsmod | grep ^wireguard"))
	t.Logf("the kernel's errors and warnings:\n%s", g.Output(t, "dmesg --level=emerg,alert,crit,err,warn"))
}
