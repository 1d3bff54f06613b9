package cluster

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// TestLose lets nothing out of a host, then nothing in, then half of both.
func TestLose(t *testing.T) {
	network := NewNetwork(t)
	lossy, other := NewHost(t, On(network)), NewHost(t, On(network))
	const all = 200 // the kernel keeps 256 that nobody has read
	for name, c := range map[string]struct {
		percent       int
		directions    []Direction
		out, in, most int // how many arrive, at least, and at most of what is lost in part
	}{
		"nothing": {0, []Direction{In, Out}, all, all, all},
		"out":     {100, []Direction{Out}, 0, all, 0},
		"in":      {100, []Direction{In}, all, 0, 0},
		"both":    {100, []Direction{In, Out}, 0, 0, 0},
		// That it is fewer or more has a chance of less than 1 in 10¹⁰.
		"half": {50, []Direction{In, Out}, all / 4, all / 4, all * 3 / 4},
	} {
		t.Run(name, func(t *testing.T) {
			datagrams(t, lossy, other, 1) // they know each other's hardware address now
			datagrams(t, other, lossy, 1)
			network.Lose(t, lossy, c.percent, c.directions...)
			defer network.Found(t)
			for what, got := range map[string][2]int{
				"out": {datagrams(t, lossy, other, all), c.out}, "in": {datagrams(t, other, lossy, all), c.in},
			} {
				if got[0] < got[1] || got[1] < all && got[0] > c.most {
					t.Errorf("%s: %d of %d datagrams arrive", what, got[0], all)
				}
			}
		})
	}
	if got := datagrams(t, lossy, other, all); got != all {
		t.Errorf("afterwards %d of %d datagrams arrive", got, all)
	}
}

// datagrams sends some from one host to another, and counts those that arrive.
func datagrams(t *testing.T, from, to *Host, number int) (arrived int) {
	t.Helper()
	receiver, err := to.ListenPacket("udp", to.IP+":7000")
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	sender, err := from.DialContext(t.Context(), "udp", to.IP+":7000")
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	for range number {
		if _, err := sender.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for b := make([]byte, 1); arrived < number; arrived++ {
		_ = receiver.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if _, _, err := receiver.ReadFrom(b); err != nil {
			break
		}
	}
	return arrived
}

// TestFreeze stops what runs on a host, and lets it go on.
func TestFreeze(t *testing.T) {
	h := NewHost(t)
	h.Output(t, "sh", "-c", "while sleep 0.05; do echo >>/var/lib/ticks; done >/dev/null 2>&1 &")
	ticks := func() int {
		content, _ := os.ReadFile(h.Dir + "/lib/ticks")
		return len(content)
	}
	Eventually(t, time.Minute, func() error { return more(ticks(), 2) })
	h.Freeze(t)
	time.Sleep(200 * time.Millisecond) // the kernel reaches one after the other
	before := ticks()
	time.Sleep(time.Second)
	if after := ticks(); after != before {
		t.Errorf("%d ticks while it was frozen", after-before)
	}
	h.Thaw(t)
	Eventually(t, time.Minute, func() error { return more(ticks(), before+2) })
	h.Freeze(t) // and it ends all the same
}

func more(have, than int) error {
	if have > than {
		return nil
	}
	return os.ErrDeadlineExceeded
}

// TestDisk cuts the power of a host: what it has synced is there, what it has not is
// not. Then it fills the disk, and frees it.
func TestDisk(t *testing.T) {
	h := NewHost(t, Disk(64))
	h.Output(t, "sh", "-c", "echo synced >/var/lib/synced && sync /var/lib/synced /var/lib && echo hasty >/var/lib/hasty")
	h.Reboot(t)
	if got := h.ReadFile(t, "/var/lib/synced"); got != "synced\n" {
		t.Errorf("what was synced is %q", got)
	}
	if content, err := os.ReadFile(h.Path("/var/lib/hasty")); err == nil {
		t.Errorf("what was not synced is there: %q", content)
	}
	write := []string{"sh", "-c", "dd if=/dev/zero of=/var/lib/some bs=64k count=1 2>&1"}
	h.FillDisk(t)
	if out, err := h.Command(context.Background(), write[0], write[1:]...).CombinedOutput(); err == nil {
		t.Errorf("the disk is not full: %s", out)
	}
	h.FreeDisk(t)
	h.Output(t, write[0], write[1:]...)
	if got := strings.TrimSpace(h.Output(t, "stat", "-c", "%s", "/var/lib/some")); got != "65536" {
		t.Errorf("%s bytes were written", got)
	}
}
