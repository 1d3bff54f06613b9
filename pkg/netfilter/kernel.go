package netfilter

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// KernelHasNFTables reports whether the kernel has nftables. Asking loads the module
// nf_tables where that is possible.
func KernelHasNFTables() bool {
	_, err := nftTables()
	return err == nil
}

// nftTables returns the names of the tables of nftables of both IP families.
func nftTables() ([]string, error) {
	var names []string
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
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
