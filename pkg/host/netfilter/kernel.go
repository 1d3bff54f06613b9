package netfilter

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// KernelHasNFTables reports whether the kernel has nftables. Asking loads the module
// nf_tables where that is possible.
func KernelHasNFTables() bool {
	_, err := nftTables(unix.NFPROTO_IPV4)
	return err == nil
}

// Tables returns the names of the tables of nftables that may filter packets of
// IP. The kernel is asked, so that no program is needed.
func Tables() ([]string, error) {
	return nftTables(unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET, unix.NFPROTO_NETDEV)
}

// Table is one of nftables.
type Table struct{ Family, Name string }

// String is what nft calls it.
func (t Table) String() string { return t.Family + " " + t.Name }

// Dormant returns the tables of IP that are dormant: what is in them is not in force.
func Dormant() (asleep []Table, err error) {
	for family, name := range map[uint8]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"} {
		tables, err := listTables(family)
		if err != nil {
			return nil, err
		}
		for _, t := range tables {
			if t.flags&unix.NFT_TABLE_F_DORMANT != 0 {
				asleep = append(asleep, Table{name, t.name})
			}
		}
	}
	return asleep, nil
}

// Wake puts a dormant table in force again. It runs nft, which can set a table's flags to
// none.
func Wake(ctx context.Context, t Table) error {
	if out, err := exec.CommandContext(ctx, "nft", "add", "table", t.Family, t.Name).CombinedOutput(); err != nil {
		return fmt.Errorf("wake table %s: %w: %s", t, err, bytes.TrimSpace(out))
	}
	return nil
}

// nftTables returns the names of the tables of nftables of some families.
func nftTables(families ...uint8) ([]string, error) {
	var names []string
	for _, family := range families {
		tables, err := listTables(family)
		if err != nil {
			return nil, err
		}
		for _, t := range tables {
			names = append(names, t.name)
		}
	}
	return names, nil
}

// table is one of a family.
type table struct {
	name  string
	flags uint32
}

func listTables(family uint8) (all []table, err error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family})
	answers, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil, fmt.Errorf("list its tables: %w", err)
	}
	for _, answer := range answers {
		if len(answer) < nl.SizeofNfgenmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(answer[nl.SizeofNfgenmsg:])
		if err != nil {
			return nil, fmt.Errorf("list its tables: %w", err)
		}
		var t table
		for _, a := range attrs {
			switch {
			case a.Attr.Type == unix.NFTA_TABLE_NAME:
				t.name = unix.ByteSliceToString(a.Value)
			case a.Attr.Type == unix.NFTA_TABLE_FLAGS && len(a.Value) == 4:
				t.flags = binary.BigEndian.Uint32(a.Value)
			}
		}
		all = append(all, t)
	}
	return all, nil
}

// Rules counts the rules of each chain of a table of nftables that has some; there is
// none of a table that does not exist.
func Rules(family uint8, table string) (map[string]int, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family})
	req.AddData(nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table)))
	answers, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil, fmt.Errorf("list the rules of table %s: %w", table, err)
	}
	chains := map[string]int{}
	for _, answer := range answers {
		if len(answer) < nl.SizeofNfgenmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(answer[nl.SizeofNfgenmsg:])
		if err != nil {
			return nil, fmt.Errorf("list the rules of table %s: %w", table, err)
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.NFTA_RULE_CHAIN {
				chains[unix.ByteSliceToString(a.Value)]++
			}
		}
	}
	return chains, nil
}

// OlderTables is the names of the tables of the older interface, which iptables-legacy uses, of IPv4 or IPv6. Asking in
// this way does not create any.
func OlderTables(is6 bool) []string {
	file := "/proc/thread-self/net/ip_tables_names" // of the network that the caller is in
	if is6 {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	names, _ := os.ReadFile(file) // there is none unless the kernel has that interface
	return strings.Fields(string(names))
}
