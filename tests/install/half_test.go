package install

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// TestHalfWay kills the installer at random moments. Whatever it has made by then is
// in the inventory, an installed binary is a whole one, and the next run completes it.
func TestHalfWay(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LITE_TEST_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("LITE_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	m := newMachine(t, cluster.Systemd)
	const command = fromRelease + "INSTALL_LITE_SKIP_START=true " + installer
	whole := m.Sh(t, "sha256sum </root/release/lite-linux-%s", arch(t, m))
	m.Sh(t, "touch /root/before; sleep 0.01")
	began := time.Now()
	m.Sh(t, command+"--node-label=round=0")
	took := time.Since(began)
	kills := 0
	for round := range 20 {
		if round%4 == 0 {
			m.Sh(t, "rm -f /usr/local/bin/lite")
		}
		killed := runFor(t, m, time.Duration(random.Int64N(int64(took))), command+fmt.Sprintf("--node-label=round=%d", round))
		if killed {
			kills++
		}
		if out, err := m.Run("[ ! -e /usr/local/bin/lite ] || sha256sum </usr/local/bin/lite"); err != nil || out != "" && out != whole {
			t.Fatalf("round %d (killed: %t): the binary is not whole: %v %s", round, killed, err, out)
		}
		strays := m.Sh(t, `find /usr /etc /opt -xdev -newer /root/before ! -type d ! -path '/etc/lite/*' | sort >/run/made
			sort /etc/lite/installed | comm -23 /run/made -`)
		if strays != "" {
			t.Fatalf("round %d (killed: %t): not in the inventory: %s", round, killed, strays)
		}
	}
	t.Logf("%d of 20 runs were killed", kills)
	if kills == 0 {
		t.Error("none was killed")
	}
	m.Sh(t, command+"--node-label=round=last")
	if got := m.Sh(t, "grep round %s; find / -xdev -newer /root/before -name '*.new' -o -name 'install.tmp'", dropIn); got != "node-label: [round=last]" {
		t.Errorf("after the last run: %s", got)
	}
	// It was never started; what waits for that is not forgotten.
	m.PushImages(t)
	out := m.Sh(t, fromRelease+installer+"--node-label=round=last")
	if !strings.Contains(out, "the node is ready") {
		t.Errorf("the service was not started:\n%s", out)
	}
}

// runFor runs a command for a while at most, then kills it and all it has started.
func runFor(t *testing.T, m *cluster.Machine, d time.Duration, command string) (killed bool) {
	t.Helper()
	c := m.Command(context.Background(), "sh", "-c", command)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(d, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
	_ = c.Wait()
	killed = !kill.Stop()
	// The installer has ended when all that it has started has: they hold its lock.
	cluster.Eventually(t, readyTimeout, func() error {
		if err := syscall.Kill(-c.Process.Pid, 0); killed && err != syscall.ESRCH {
			return fmt.Errorf("some of its processes have not ended (%v)", err)
		}
		return nil
	})
	return killed
}
