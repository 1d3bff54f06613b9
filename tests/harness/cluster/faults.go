package cluster

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Direction is a way that packets take between a host and the others.
type Direction string

const (
	// Out is what a host sends.
	Out Direction = "iifname"
	// In is what a host is to receive.
	In Direction = "oifname"
)

// Lose drops, on their way over the network, so many percent of the packets that a host
// sends, or is to receive, or both. The host itself does not notice. It adds to what
// is dropped already; Found ends it.
func (n *Network) Lose(t testing.TB, h *Host, percent int, directions ...Direction) {
	t.Helper()
	var rules strings.Builder
	// forward is between hosts; the others are what the test itself receives and sends.
	for _, hook := range []string{"input", "forward", "output"} {
		fmt.Fprintf(&rules, "add chain bridge lost %[1]s { type filter hook %[1]s priority 0; }\n", hook)
	}
	match := fmt.Sprintf("numgen random mod 100 < %d ", percent)
	if percent >= 100 {
		match = ""
	}
	for _, direction := range directions {
		for _, hook := range []string{"input", "forward", "output"} {
			fmt.Fprintf(&rules, "add rule bridge lost %s %s %q %sdrop\n", hook, direction, h.Name, match)
		}
	}
	n.nft(t, "add table bridge lost\n"+rules.String())
}

// Found ends all that Lose has begun.
func (n *Network) Found(t testing.TB) {
	t.Helper()
	n.nft(t, "add table bridge lost\ndelete table bridge lost\n")
}

// nft changes the rules of the network.
func (n *Network) nft(t testing.TB, commands string) {
	t.Helper()
	err := within(int(n.namespace), unix.CLONE_NEWNET, func() error {
		c := exec.Command("nft", "-f", "-")
		c.Stdin = strings.NewReader(commands)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Freeze stops every process of the host at once, as a hypervisor stops a machine. The
// clock goes on meanwhile.
func (h *Host) Freeze(t testing.TB) {
	t.Helper()
	if err := h.cgroups.freeze(true); err != nil {
		t.Fatalf("freeze %s: %v", h.Name, err)
	}
}

// Thaw undoes Freeze.
func (h *Host) Thaw(t testing.TB) {
	t.Helper()
	if err := h.cgroups.freeze(false); err != nil {
		t.Fatalf("thaw %s: %v", h.Name, err)
	}
}

// freeze stops all processes in the cgroups, or lets them go on. It has other names in
// cgroups of version 1 than in those of version 2.
func (c cgroups) freeze(frozen bool) error {
	v1, v2 := "THAWED", "0"
	if frozen {
		v1, v2 = "FROZEN", "1"
	}
	for _, hierarchy := range c.hierarchies {
		dir := filepath.Join(hierarchy.Mount, c.name)
		switch {
		case slices.Contains(strings.Split(hierarchy.Options, ","), "freezer"):
			return writeFile(filepath.Join(dir, "freezer.state"), v1)
		case hierarchy.Type == "cgroup2" && len(c.hierarchies) == 1:
			return writeFile(filepath.Join(dir, "cgroup.freeze"), v2)
		}
	}
	return errors.New("no cgroup hierarchy freezes processes")
}
