package server

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

func claim(t *testing.T, dir, version string) {
	t.Helper()
	c, err := Claim(dir, version)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}

func TestSecondClaimIsRefusedWithThePidOfTheFirst(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := CheckClaim(dir, "v0.1.0"); err != nil {
		t.Fatalf("an empty place is refused: %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("CheckClaim made the directory")
	}
	claim(t, dir, "v0.1.0")
	want := fmt.Sprintf("lite is already running on %s (pid %d); stop it first or choose another --data-dir", dir, os.Getpid())
	if _, err := Claim(dir, "v0.1.0"); err == nil || err.Error() != want {
		t.Errorf("Claim: got %v, want %s", err, want)
	}
	if err := CheckClaim(dir, "v0.1.0"); err == nil || err.Error() != want {
		t.Errorf("CheckClaim: got %v, want %s", err, want)
	}
}

func TestRefusedClaimChangesNothing(t *testing.T) {
	dir := t.TempDir()
	claim(t, dir, "v0.1.0")
	if _, err := Claim(dir, "v9.0.0"); err == nil {
		t.Fatal("two claims")
	}
	for path, want := range map[string]string{filepath.Join(dir, "lite.lock"): fmt.Sprintln(os.Getpid()), layout.Data(dir).Version(): "v0.1.0\n"} {
		if data, err := os.ReadFile(path); err != nil || string(data) != want {
			t.Errorf("%s: got %q, %v", path, data, err)
		}
	}
}

func TestClaimEndsWhenItIsClosed(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		c, err := Claim(dir, "v0.1.0")
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckClaim(dir, "v0.1.0"); err == nil {
			t.Error("the claim is not held")
		}
		c.Close()
		// Looking must not claim.
		for range 2 {
			if err := CheckClaim(dir, "v0.1.0"); err != nil {
				t.Error(err)
			}
		}
	}
	for _, path := range []string{filepath.Join(dir, "lite.lock"), layout.Data(dir).Version()} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// A process that is killed cannot tidy up.
func TestClaimEndsWithItsProcess(t *testing.T) {
	dir := os.Getenv("CLAIM_AND_WAIT")
	if dir != "" {
		held, err := Claim(dir, "v0.1.0")
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close() // what nobody refers to is closed by the garbage collector
		fmt.Println("claimed")
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed; the runtime ends a process in which nobody waits for anything
		return
	}
	dir = t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestClaimEndsWithItsProcess$")
	child.Env = append(os.Environ(), "CLAIM_AND_WAIT="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "claimed\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if err := CheckClaim(dir, "v0.1.0"); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", child.Process.Pid)) {
		t.Errorf("got %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	claim(t, dir, "v0.1.0")
}

func TestHolderThatCannotBeReadIsAnotherProcess(t *testing.T) {
	for _, content := range []string{"", "?\n"} {
		dir := t.TempDir()
		claim(t, dir, "v0.1.0")
		if err := os.WriteFile(filepath.Join(dir, "lite.lock"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := CheckClaim(dir, "v0.1.0"); err == nil || !strings.Contains(err.Error(), "(another process)") {
			t.Errorf("%q: got %v", content, err)
		}
	}
}

func TestDataOfANewerVersionIsRefused(t *testing.T) {
	for _, test := range []struct {
		theirs, ours string
		want         string // part of the error, "" for none
	}{
		{"v0.1.0", "v0.1.0", ""},
		{"v0.1.0", "v0.2.0", ""},
		{"v0.1.9", "v0.1.0", ""}, // a patch changes no data
		{"v1.9.0", "v2.0.0", ""},
		{"v0.2.0", "v0.1.9", "was last used by lite v0.2.0, this is v0.1.9; use that version or a newer one"},
		{"v1.0.0", "v0.9.0", "was last used by lite v1.0.0"},
		{"v0.1.0-dev+abc.dirty", "v0.1.0-dev+def", ""},
		{"v0.1.0-dev+abc.dirty", "v0.1.0", ""},
		{"v0.2.0-dev+abc.dirty", "v0.1.0", "was last used by lite v0.2.0-dev+abc.dirty"},
		{"v0.1.0-3-gabcdef0-dirty", "v0.1.0", ""},
		{"v0.0.0-unreleased", "v0.1.0", ""},
		{"v0.2.0", "unknown", ""},
		{"", "v0.1.0", `contains "", which is not a version; restore it from a backup`},
		{"garbage", "v0.1.0", `contains "garbage", which is not a version`},
		{"v1", "v0.1.0", `contains "v1", which is not a version`},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(layout.Data(dir).Version(), []byte(test.theirs+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := CheckClaim(dir, test.ours)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), dir)) {
			t.Errorf("%s after %s: got %v, want %q", test.ours, test.theirs, err, test.want)
		}
		if data, _ := os.ReadFile(layout.Data(dir).Version()); string(data) != test.theirs+"\n" {
			t.Errorf("CheckClaim wrote %q", data)
		}
	}
}

// A version of their own that cannot be compared must not lock developers out.
func TestWhatOneClaimRecordsTheNextAccepts(t *testing.T) {
	for _, version := range []string{"v0.1.0", "v0.1.0-dev+abc.dirty", "v0.1.0-3-gabcdef0-dirty", "v0.0.0-unreleased", "abcdef0-dirty", "unknown"} {
		dir := t.TempDir()
		c, err := Claim(dir, version)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := CheckClaim(dir, version); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}

func TestIdentity(t *testing.T) {
	addr := netip.MustParseAddr
	shared := cluster.Facts{ClusterDomain: "cluster.local", ServiceCIDR: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16"), netip.MustParsePrefix("fd43::/112")}}
	base := func() *config.Config {
		return &config.Config{
			NodeName: "node-a", TLSSANs: []string{"api.example.test"},
			NodeIP: []netip.Addr{addr("192.0.2.10")}, AdvertiseAddress: addr("192.0.2.10"), BindAddress: netip.IPv4Unspecified(),
		}
	}
	for name, test := range map[string]struct {
		change func(*config.Config)
		want   []netip.Addr
	}{
		"default":             {func(*config.Config) {}, []netip.Addr{addr("192.0.2.10")}},
		"dual stack":          {func(c *config.Config) { c.NodeIP = append(c.NodeIP, addr("2001:db8::10")) }, []netip.Addr{addr("192.0.2.10"), addr("2001:db8::10")}},
		"another address":     {func(c *config.Config) { c.AdvertiseAddress = addr("203.0.113.7") }, []netip.Addr{addr("192.0.2.10"), addr("203.0.113.7")}},
		"bound to one":        {func(c *config.Config) { c.BindAddress = addr("198.51.100.1") }, []netip.Addr{addr("192.0.2.10"), addr("198.51.100.1")}},
		"bound to its own":    {func(c *config.Config) { c.BindAddress = addr("192.0.2.10") }, []netip.Addr{addr("192.0.2.10")}},
		"bound to IPv6's any": {func(c *config.Config) { c.BindAddress = netip.IPv6Unspecified() }, []netip.Addr{addr("192.0.2.10")}},
	} {
		t.Run(name, func(t *testing.T) {
			c := base()
			test.change(c)
			before := len(c.NodeIP)
			want := pki.Node{
				Name: "node-a", IPs: test.want, ClusterDomain: "cluster.local", SANs: []string{"api.example.test"},
				ServiceIPs: []netip.Addr{addr("10.43.0.1"), addr("fd43::1")},
			}
			if got := identity(c, shared); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if len(c.NodeIP) != before {
				t.Error("the configuration was changed")
			}
		})
	}
}

func TestNodeStaysWhatItIs(t *testing.T) {
	c := &config.Config{DataDir: t.TempDir(), NodeName: "node-a", Role: config.Agent}
	if err := agent.Remember(c); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"node-name": "node-a\n", "role": "agent\n"} {
		if data, err := os.ReadFile(filepath.Join(c.DataDir, file)); err != nil || string(data) != want {
			t.Errorf("%s: got %q, %v", file, data, err)
		}
	}
	c.DataDir = filepath.Join(c.DataDir, "none")
	if err := agent.Remember(c); err == nil || !strings.HasPrefix(err.Error(), "record the node's name: ") {
		t.Errorf("got %v", err)
	}
}
