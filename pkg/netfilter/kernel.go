package netfilter

import (
	"fmt"

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

// nftTables returns the names of the tables of nftables of some families.
func nftTables(families ...uint8) ([]string, error) {
	var names []string
	for _, family := range families {
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
			for _, a := range attrs {
				if a.Attr.Type == unix.NFTA_TABLE_NAME {
					names = append(names, unix.ByteSliceToString(a.Value))
				}
			}
		}
	}
	return names, nil
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
