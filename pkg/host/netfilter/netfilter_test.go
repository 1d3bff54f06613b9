package netfilter

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lite.io/lite/pkg/layout"
)

// good is programs that work, as far as the choice can see.
var good = map[string]string{
	"nft":               `case "$*" in --version) echo "nftables v1.0.6 (Lester Gooch #5)";; *) echo '{"nftables": []}';; esac`,
	"iptables":          `[ "$1" != --version ] || echo "iptables v1.8.9 (nf_tables)"`,
	"iptables-save":     ``,
	"iptables-restore":  ``,
	"ip6tables":         `[ "$1" != --version ] || echo "ip6tables v1.8.9 (nf_tables)"`,
	"ip6tables-save":    ``,
	"ip6tables-restore": ``,
}

// install puts programs into a directory, or takes those that are missing out of it.
func install(t *testing.T, dir string, programs ...map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, some := range programs {
		for name, script := range some {
			path := filepath.Join(dir, name)
			if script == "missing" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestTheMachinesOwnAreUsedWhereTheyWork(t *testing.T) {
	all := kernel{ipv6: true}
	for name, c := range map[string]struct {
		programs     map[string]string
		kernel       kernel
		bundled      bool
		nft, ip      Source
		kind, reason string // of iptables
		nftReason    string
	}{
		"all works":       {nil, all, false, Machine, Machine, KindNFT, "", ""},
		"the user's wish": {nil, all, true, Bundled, Bundled, KindNFT, "prefer-bundled-bin", "prefer-bundled-bin"},
		"older interface": {map[string]string{"iptables": `echo "iptables v1.8.9 (legacy)"`, "ip6tables": `echo "ip6tables v1.8.9 (legacy)"`}, all, false, Machine, Machine, KindLegacy, "", ""},
		"before the kinds": {map[string]string{"iptables": `echo "iptables v1.6.2"`, "ip6tables": `echo "ip6tables v1.6.2"`}, all, false,
			Machine, Machine, KindLegacy, "", ""},
		"no nft":        {map[string]string{"nft": "missing"}, all, false, Bundled, Machine, KindNFT, "", "the machine has no nft"},
		"no iptables":   {map[string]string{"iptables": "missing"}, all, false, Machine, Bundled, KindNFT, "the machine has no iptables", ""},
		"no ip6tables":  {map[string]string{"ip6tables": "missing"}, all, false, Machine, Bundled, KindNFT, "the machine has no ip6tables", ""},
		"no IPv6":       {map[string]string{"ip6tables": "missing"}, kernel{}, false, Machine, Machine, KindNFT, "", ""},
		"no -restore":   {map[string]string{"iptables-restore": "missing"}, all, false, Machine, Bundled, KindNFT, "the machine has no iptables-restore", ""},
		"iptables ends": {map[string]string{"iptables": "exit 139"}, all, false, Machine, Bundled, KindNFT, "exit status 139", ""},
		"iptables cannot list": {map[string]string{"iptables": `case $1 in --version) echo "iptables v1.8.9 (nf_tables)";; *) echo "no luck" >&2; exit 4;; esac`}, all, false,
			Machine, Bundled, KindNFT, "-S FORWARD: exit status 4: no luck", ""},
		"iptables too old":      {map[string]string{"iptables": `echo "iptables v1.8.2 (nf_tables)"`}, all, false, Machine, Bundled, KindNFT, "version 1.8.2, older than 1.8.5", ""},
		"iptables much too old": {map[string]string{"iptables": `echo "iptables v1.4.21"`}, all, false, Machine, Bundled, KindNFT, "version 1.4.21, older than 1.6.2", ""},
		"two kinds":             {map[string]string{"ip6tables": `echo "ip6tables v1.8.9 (legacy)"`}, all, false, Machine, Bundled, KindNFT, "different interfaces", ""},
		"nft without JSON":      {map[string]string{"nft": `case "$*" in --version) echo "nftables v1.0.6";; *) echo "JSON support not compiled-in" >&2; exit 1;; esac`}, all, false, Bundled, Machine, KindNFT, "", "JSON support not compiled-in"},
		"nft too old":           {map[string]string{"nft": `echo "nftables v0.9.8 (E.D.S.)"`}, all, false, Bundled, Machine, KindNFT, "", "version 0.9.8, older than 1.0.1"},
		"nft is something else": {map[string]string{"nft": `echo "Non-fungible tokens"`}, all, false, Bundled, Machine, KindNFT, "", "does not report its version"},
		"kernel without nftables": {map[string]string{"iptables": `echo "Could not fetch rule set generation id" >&2; exit 4`}, kernel{nftables: errors.New("not supported")}, false,
			None, Bundled, KindLegacy, "exit status 4", "not supported"},
		"rules of the older interface": {map[string]string{"iptables": "missing"}, kernel{older: []string{"nat"}, tables: []string{"firewalld"}}, false, Machine, Bundled, KindLegacy, "no iptables", ""},
		"rules of both":                {map[string]string{"iptables": "missing"}, kernel{older: []string{"nat"}, tables: []string{"filter"}}, false, Machine, Bundled, KindNFT, "no iptables", ""},
	} {
		dir := t.TempDir()
		install(t, dir, good, c.programs)
		t.Setenv("PATH", dir)
		helpers := layout.Helpers(t.TempDir())
		got := choose(t.Context(), helpers, c.bundled, c.kernel)
		if got.NFT.Source != c.nft || !strings.Contains(got.NFT.Reason, c.nftReason) || c.nftReason == "" && got.NFT.Reason != "" {
			t.Errorf("%s: nft: got %+v", name, got.NFT)
		}
		if got.IPTables.Source != c.ip || got.IPTables.Kind != c.kind || !strings.Contains(got.IPTables.Reason, c.reason) || c.reason == "" && got.IPTables.Reason != "" {
			t.Errorf("%s: iptables: got %+v", name, got.IPTables)
		}
		if got.NFTables() != (c.nft != None) {
			t.Errorf("%s: NFTables is %t", name, got.NFTables())
		}
		for tool, source := range map[string]Source{"nft": c.nft, "iptables": c.ip} {
			want := ""
			switch {
			case source == Machine:
				want = filepath.Join(dir, tool)
			case source == Bundled && tool == "nft":
				want = helpers.Netfilter() + "/nft/nft"
			case source == Bundled:
				want = helpers.Netfilter() + "/iptables-" + c.kind + "/iptables"
			}
			if path := map[string]string{"nft": got.NFT.Path, "iptables": got.IPTables.Path}[tool]; path != want {
				t.Errorf("%s: %s is %q, want %q", name, tool, path, want)
			}
		}
	}
}

// A kernel may have nf_tables and yet not all that rules are made of. Once the helpers are unpacked, theirs shows it.
func TestKernelThatCannotDoWhatServicesNeed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	helpers := layout.Helpers(t.TempDir())
	install(t, filepath.Join(helpers.Netfilter(), "nft"), map[string]string{
		"nft": `case "$*" in --version) echo "nftables v1.0.6";; *list*) echo '{}';; *) echo "Error: Could not process rule: No such file" >&2; exit 1;; esac`,
	})
	if got := choose(t.Context(), helpers, false, kernel{}).NFT; got.Source != None || !strings.Contains(got.Reason, "Could not process rule") {
		t.Errorf("got %+v", got)
	}
}

func TestPath(t *testing.T) {
	helpers := layout.Helpers("/b")
	for name, c := range map[string]struct {
		tools Tools
		path  string
		want  string
	}{
		"the machine's own": {Tools{NFT: Tool{Source: Machine, Path: "/usr/sbin/nft"}, IPTables: Tool{Source: Machine, Path: "/sbin/iptables"}},
			"/usr/sbin:/sbin", "/b/bin:/usr/sbin:/sbin:/b/netfilter/bin"},
		"bundled": {Tools{NFT: Tool{Source: Bundled, Path: "/b/netfilter/nft/nft"}, IPTables: Tool{Source: Bundled, Path: "/b/netfilter/iptables-legacy/iptables"}},
			"/sbin", "/b/bin:/b/netfilter/nft:/b/netfilter/iptables-legacy:/sbin:/b/netfilter/bin"},
		"no PATH": {Tools{NFT: Tool{Source: None}, IPTables: Tool{Source: Machine}}, "", "/b/bin:/b/netfilter/bin"},
	} {
		if got := c.tools.Path(helpers, c.path); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestVersionsAreComparedByNumber(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"1.8.9", "1.8.10", -1}, {"1.0", "1.0.0", 0}, {"1.0.6", "1.0.1", 1}, {"2", "1.9.9", 1}} {
		if got := compare(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: got %d", c.a, c.b, got)
		}
	}
}

// TestThisKernel asks the one that runs.
func TestThisKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it asks the packet filter")
	}
	k := inspectKernel()
	if k.nftables != nil && k.kind() != KindLegacy || k.nftables == nil && len(k.older) == 0 && k.kind() != KindNFT {
		t.Errorf("%+v is of kind %s", k, k.kind())
	}
}
