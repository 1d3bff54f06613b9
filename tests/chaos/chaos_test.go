// Package chaos hurts the servers of a cluster while clients write and use Services: all
// that was acknowledged is there, nothing is there twice, nobody who uses pods on agents
// notices, and what was hurt comes back without a hand.
package chaos

import (
	"os"
	"strconv"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// fault is something that happens to machines.
type fault struct {
	name string
	// strike does it to one server, or begins with that one, and undoes it.
	strike func(*testing.T, *bed, *cluster.Node)
	// spares: a majority of servers is left, so that writes go on.
	spares bool
	// short: it is part of every run of the tests.
	short bool
	// needs is how many servers it takes.
	needs int
	// oldest: it is dealt to the server that is there longest, so that three rounds leave none.
	oldest bool
}

// faults are in the order of how hard they are on what comes after.
var faults = []fault{
	{name: "Kill", strike: kill, spares: true, short: true},
	{name: "Cut", strike: cut, spares: true, short: true},
	{name: "OneWay", strike: oneWay, spares: true},
	{name: "HalfLost", strike: halfLost, spares: true},
	{name: "Frozen", strike: frozen, spares: true},
	{name: "PowerCut", strike: powerCut, spares: true},
	{name: "DiskFull", strike: diskFull, spares: true},
	{name: "ClockAhead", strike: clockAhead, spares: true},
	{name: "MajorityDown", strike: majorityDown, needs: 3},
	{name: "AllKilled", strike: allKilled},
	{name: "AllWithoutPower", strike: allWithoutPower},
	{name: "Replaced", strike: replaced, spares: true, needs: 3, oldest: true},
}

// TestChaos deals each blow once to the leader, and with LITE_CHAOS_ROUNDS=n, which
// `make chaos` sets, n times to one server after the other, those included that take longer.
func TestChaos(t *testing.T) {
	t.Parallel()
	rounds := number(t, "LITE_CHAOS_ROUNDS", 0)
	b := newBed(t, number(t, "LITE_CHAOS_SERVERS", servers))
	for _, f := range faults {
		if rounds == 0 && !f.short || len(b.Servers) < f.needs {
			continue
		}
		sound := true
		t.Run(f.name, func(t *testing.T) {
			for round := range max(rounds, 1) {
				sound = false
				b.round(t, f, round)
				sound = true
			}
		})
		if !sound {
			break // what comes after would fail for the same reason
		}
	}
	b.ledger.Stop()
	t.Log(b.ledger)
}

// servers is how many there are unless LITE_CHAOS_SERVERS says so.
const servers = 3

// number reads a variable of the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: want a number from 1", name, text)
	}
	return n
}

// outageLimit is for how long no write may be acknowledged while most servers live. What
// is promised holds on a machine that does nothing else; other tests take more from this one.
func outageLimit() time.Duration {
	if os.Getenv("LITE_CHAOS_ROUNDS") != "" {
		return 10 * time.Second
	}
	return time.Minute
}
