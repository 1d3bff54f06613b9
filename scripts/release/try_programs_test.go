package release

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// TestTryPrograms starts what was built: for this processor, and for the other one
// if somebody has built for it.
func TestTryPrograms(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			lite, bundle := "../../dist/lite-linux-"+arch, "../../pkg/helpers/data/"+arch+"/bundle.tar.zst"
			if arch == runtime.GOARCH {
				lite = "../../dist/lite"
			}
			for _, file := range []string{lite, bundle} {
				if _, err := os.Stat(file); err != nil {
					t.Skipf("%v: run `make build GOARCH=%s`", err, arch)
				}
			}
			out, err := exec.CommandContext(t.Context(), "bash", "try-programs", arch, lite, bundle).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if !strings.HasPrefix(string(out), "tried ") {
				t.Skip(string(out))
			}
		})
	}
	out, err := exec.CommandContext(t.Context(), "bash", "try-programs", runtime.GOARCH, "/bin/true", "/nowhere").CombinedOutput()
	if err == nil {
		t.Errorf("what is no lite was taken for one:\n%s", out)
	}
}
