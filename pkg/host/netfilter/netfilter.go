// Package netfilter chooses the programs that write packet filter rules: the machine's own where they work, otherwise
// the bundled ones. It also runs them to list rules, and finds what iptables has created in nftables.
package netfilter

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
)

// Tools is what a node runs.
type Tools struct {
	NFT      Tool `json:"nft"`
	IPTables Tool `json:"iptables"`
}

// Tool is one program, or the family of programs of that name.
type Tool struct {
	// Source is whose program it is.
	Source Source `json:"source"`
	Path   string `json:"path,omitempty"`
	// Version is known of the machine's own only.
	Version string `json:"version,omitempty"`
	// Kind is which interface of the kernel iptables writes to: KindNFT or KindLegacy.
	Kind string `json:"kind,omitempty"`
	// Reason is why it is not the machine's own.
	Reason string `json:"reason,omitempty"`
}

// Source is whose program a Tool is.
type Source string

// The sources.
const (
	Machine Source = "machine"
	Bundled Source = "bundled"
	None    Source = "none" // the kernel cannot do it
)

// The kinds of iptables.
const (
	KindNFT    = "nft"
	KindLegacy = "legacy"
)

// String is how the log shows it.
func (t Tool) String() string {
	text := string(t.Source)
	if t.Source == Machine {
		text = t.Path
	}
	for _, more := range []string{t.Version, t.Kind} {
		if more != "" {
			text += " " + more
		}
	}
	if t.Reason != "" {
		text += ": " + t.Reason
	}
	return text
}

// NFTables reports whether nftables can be used, by program and kernel.
func (t Tools) NFTables() bool { return t.NFT.Source != None }

// Path is a PATH with the chosen programs and lite's other helpers.
//
// The helpers come first. containerd has the full path of its shim in its configuration, and yet looks up the shim and
// runc by name when it recovers from a crash while a container was being created: if it does not find them, it forgets
// the container, whose processes keep running (2.4).
func (t Tools) Path(helpers layout.Helpers, path string) string {
	dirs := []string{helpers.Bin()}
	for _, tool := range []Tool{t.NFT, t.IPTables} {
		if tool.Source == Bundled {
			dirs = append(dirs, filepath.Dir(tool.Path))
		}
	}
	if path != "" {
		dirs = append(dirs, path)
	}
	// Where the machine has rules of the kind that its iptables does not write, somebody has to.
	dirs = append(dirs, filepath.Join(helpers.Netfilter(), "bin"))
	return strings.Join(dirs, string(os.PathListSeparator))
}

// Choose tries what the machine has, the first of PATH, and decides. helpers may be yet to be unpacked. Unless bundled is
// set, in which case what lite brings along is used wherever the kernel lets it.
func Choose(ctx context.Context, helpers layout.Helpers, bundled bool) Tools {
	return choose(ctx, helpers, bundled, inspectKernel())
}

func choose(ctx context.Context, helpers layout.Helpers, bundled bool, k kernel) Tools {
	nft, iptables := make(chan Tool), make(chan Tool)
	go func() { nft <- chooseNFT(ctx, helpers, bundled, k) }()
	go func() { iptables <- chooseIPTables(ctx, helpers, bundled, k) }()
	return Tools{NFT: <-nft, IPTables: <-iptables}
}

func chooseNFT(ctx context.Context, helpers layout.Helpers, bundled bool, k kernel) Tool {
	if k.nftables != nil {
		return Tool{Source: None, Reason: k.nftables.Error()}
	}
	reason := preferred
	if !bundled {
		own, err := tryNFT(ctx, "nft")
		if err == nil {
			return own
		}
		reason = err.Error()
	}
	t := Tool{Source: Bundled, Path: filepath.Join(helpers.Netfilter(), "nft", "nft"), Reason: reason}
	// At the very first start it is still packed, and then the kernel gets the benefit of the doubt.
	if _, err := os.Stat(t.Path); err != nil {
		return t
	}
	if _, err := tryNFT(ctx, t.Path); err != nil {
		return Tool{Source: None, Reason: err.Error()}
	}
	return t
}

// preferred is the reason if the user has chosen so.
const preferred = "prefer-bundled-bin is set"

func chooseIPTables(ctx context.Context, helpers layout.Helpers, bundled bool, k kernel) Tool {
	reason := preferred
	if !bundled {
		own, err := tryIPTables(ctx, k.ipv6)
		if err == nil {
			return own
		}
		reason = err.Error()
	}
	kind := k.kind()
	return Tool{Source: Bundled, Kind: kind, Path: filepath.Join(helpers.Netfilter(), "iptables-"+kind, "iptables"), Reason: reason}
}

// kernel is what the running kernel can do and has.
type kernel struct {
	nftables error // why it has no nftables; nil if it has
	ipv6     bool
	tables   []string // of nftables, IPv4 and IPv6, by name
	older    []string // tables of the older interface
}

// kind is the interface that iptables should write to: that of existing rules, because two interfaces that know
// nothing of each other cause surprises; the newer one if there are no rules.
func (k kernel) kind() string {
	if k.nftables != nil {
		return KindLegacy
	}
	// The names that iptables gives its tables when it writes them by nftables.
	ofIPTables := func(name string) bool { return slices.Contains([]string{"filter", "nat", "mangle", "raw"}, name) }
	if len(k.older) > 0 && !slices.ContainsFunc(k.tables, ofIPTables) {
		return KindLegacy
	}
	return KindNFT
}

// inspectKernel asks the kernel without any program. Asking loads the module nf_tables where that is possible.
func inspectKernel() kernel {
	var k kernel
	k.tables, k.nftables = nftTables(unix.NFPROTO_IPV4, unix.NFPROTO_IPV6)
	if k.nftables != nil {
		k.nftables = fmt.Errorf("the kernel has no nf_tables: %w", k.nftables)
	}
	k.older = append(OlderTables(false), OlderTables(true)...)
	k.ipv6 = probe.HasIPv6()
	return k
}
