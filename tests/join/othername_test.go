package join

import (
	"context"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/cluster"
)

// TestOtherName says another name to a machine that is a node already: it is
// told so, and stays what it is.
func TestOtherName(t *testing.T) {
	c := cluster.New(t, cluster.Agents(1))
	agent := c.Agents[0]
	agent.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := agent.Command(ctx, "lite", "agent", "--node-name", "other").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "lite: node-name") || !strings.Contains(string(out), agent.Name) {
		t.Errorf("%v\n%s", err, out)
	}
	agent.Launch(t)
	soon(t, func() error {
		_, err := agent.Command(t.Context(), "lite", "status").CombinedOutput()
		return err
	})
}
