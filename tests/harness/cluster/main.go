package cluster

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Long skips a test that takes minutes, or needs what takes long to build, unless it was
// asked for.
func Long(t testing.TB) {
	t.Helper()
	if os.Getenv("LITE_LONG_TEST") != "1" {
		t.Skip("takes minutes, more when what it needs is not built yet: make test-long runs it")
	}
}

// Main runs the tests of a package and exits. It fails them if they leave
// anything on the machine: a mount, link, firewall rule, network namespace,
// cgroup, process or kernel setting.
func Main(m *testing.M) {
	if spec := os.Getenv(initEnv); spec != "" {
		runInit(spec)
	}
	if os.Geteuid() == 0 {
		if err := removeAbandoned(workDir()); err != nil {
			fmt.Fprintln(os.Stderr, "remove what an earlier run has left:", err)
			os.Exit(1)
		}
	}
	settings, before := sysctls(), survey()
	code := m.Run()
	err := retry(10*time.Second, func() error {
		// The kubelet sets these for the whole machine; a host cannot keep them to itself.
		// That of another package, which begins now, may set them again.
		for _, s := range settings {
			_ = writeFile(s.path, s.value)
		}
		if lines := difference(before, survey()); len(lines) > 0 {
			return fmt.Errorf("the tests have changed the machine:\n\t%s", strings.Join(lines, "\n\t"))
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}
