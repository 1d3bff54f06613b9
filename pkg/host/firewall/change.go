package firewall

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Table names a table of nftables. Those that iptables writes by it are among
// them: filter, nat and so on, of the families ip and ip6.
type Table struct{ Family, Name string }

// String is what nft calls it.
func (t Table) String() string { return t.Family + " " + t.Name }

// Change is what one transaction took from one table.
type Change struct {
	Table
	Dropped bool     // the table itself; another of that name may have been created in the same transaction
	Dormant bool     // nothing was removed, but the table is no longer in force
	Chains  []string // those that lost rules, or are gone with rules in them; sorted
	Sets    []string // and maps that lost elements; sorted
	Adds    bool     // the transaction also brought something into the table
	// Generation is the number that the packet filter has had since the transaction.
	Generation uint32
}

// Lost is what was removed from the packet filter since the last check.
type Lost struct {
	Changes []Change
	// Links are interfaces that are gone, down, renamed, or no longer on their bridge.
	Links []string
	// Ways are addresses, routes and neighbours that are gone, each kind once.
	Ways []Way
	// Settings is set when those of the kernel may be others: packets of a family of
	// addresses are no longer forwarded, or somebody has written one; see Watcher.CheckSettings.
	Settings bool
	// Older is set when tables of the older interface have changed; the kernel reports no
	// details.
	Older bool
	// Unknown is set when events were lost, and for a check without an event: everything
	// visible has to be checked.
	Unknown bool
	By      string // the program of the first change, "" if that is not known
}

func (l *Lost) empty() bool {
	return len(l.Changes) == 0 && len(l.Links) == 0 && len(l.Ways) == 0 && !l.Settings && !l.Older && !l.Unknown
}

// From reports whether one of some chains of a table has lost rules, or all of them with
// the table; or may have.
func (l Lost) From(t Table, chains ...string) bool {
	return l.Unknown || slices.ContainsFunc(l.Changes, func(c Change) bool {
		return c.Table == t && (c.Dropped || slices.ContainsFunc(chains, func(name string) bool { return slices.Contains(c.Chains, name) }))
	})
}

// Way reports whether an interface has lost an address, a route or a neighbor, or may have.
func (l Lost) Way(link int) bool {
	return l.Unknown || slices.ContainsFunc(l.Ways, func(w Way) bool { return w.Link == link })
}

// Route reports whether a route with a mark has gone, or may have.
func (l Lost) Route(protocol uint8) bool {
	return l.Unknown || slices.ContainsFunc(l.Ways, func(w Way) bool { return w.Protocol == protocol })
}

// Link reports whether something happened to an interface, or may have.
func (l Lost) Link(name string) bool { return l.Unknown || slices.Contains(l.Links, name) }

// transaction is what the kernel has reported of one so far. The events of each come one
// after another and end with that of a new generation.
type transaction struct{ tables map[Table]*taken }

type taken struct {
	dropped, dormant, adds bool
	chains, sets           map[string]bool
}

// read reads one message. When it ends the transaction, done is true; changes are those
// that removed something, and by is the program that made them.
func (t *transaction) read(m syscall.NetlinkMessage) (changes []Change, by string, done bool) {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nl.SizeofNfgenmsg {
		return nil, "", false
	}
	kind, family, attrs := m.Header.Type&0xff, m.Data[0], m.Data[nl.SizeofNfgenmsg:]
	if kind == unix.NFT_MSG_NEWGEN {
		var generation uint32
		if id := attribute(attrs, unix.NFTA_GEN_ID); len(id) == 4 {
			generation = binary.BigEndian.Uint32(id)
		}
		return t.end(generation), text(attrs, unix.NFTA_GEN_PROC_NAME), true
	}
	// In all others the table's name is the first attribute.
	on := t.of(Table{familyName(family), text(attrs, unix.NFTA_TABLE_NAME)})
	switch kind {
	case unix.NFT_MSG_DELTABLE:
		on.dropped = true
	case unix.NFT_MSG_DELRULE:
		on.chains[text(attrs, unix.NFTA_RULE_CHAIN)] = true
	case unix.NFT_MSG_DELSETELEM:
		on.sets[text(attrs, unix.NFTA_SET_ELEM_LIST_SET)] = true
	case unix.NFT_MSG_NEWTABLE:
		flags := attribute(attrs, unix.NFTA_TABLE_FLAGS)
		on.dormant = len(flags) == 4 && binary.BigEndian.Uint32(flags)&unix.NFT_TABLE_F_DORMANT != 0
		on.adds = !on.dormant
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_NEWSET, unix.NFT_MSG_NEWSETELEM:
		on.adds = true
	}
	return nil, "", false
}

func (t *transaction) of(name Table) *taken {
	on := t.tables[name]
	if on == nil {
		on = &taken{chains: map[string]bool{}, sets: map[string]bool{}}
		if t.tables == nil {
			t.tables = map[Table]*taken{}
		}
		t.tables[name] = on
	}
	return on
}

// end returns what the transaction took away and begins another.
func (t *transaction) end(generation uint32) (changes []Change) {
	for name, on := range t.tables {
		if on.dropped || on.dormant || len(on.chains) > 0 || len(on.sets) > 0 {
			changes = append(changes, Change{
				Table: name, Dropped: on.dropped, Dormant: on.dormant, Chains: slices.Sorted(maps.Keys(on.chains)),
				Sets: slices.Sorted(maps.Keys(on.sets)),
				Adds: on.adds, Generation: generation,
			})
		}
	}
	t.tables = nil
	slices.SortFunc(changes, func(a, b Change) int { return cmp.Compare(a.String(), b.String()) })
	return changes
}

// text is an attribute that is one.
func text(attrs []byte, kind uint16) string {
	return unix.ByteSliceToString(attribute(attrs, kind))
}

// attribute returns one of the attributes of a message, nil if it is not there. It
// looks no further: rules and elements follow, which can be long.
func attribute(attrs []byte, kind uint16) []byte {
	for len(attrs) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(attrs))
		if length < unix.SizeofNlAttr || length > len(attrs) {
			return nil
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == kind {
			return attrs[unix.SizeofNlAttr:length]
		}
		attrs = attrs[min((length+3)&^3, len(attrs)):]
	}
	return nil
}

func familyName(family uint8) string {
	switch family {
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_BRIDGE:
		return "bridge"
	case unix.NFPROTO_NETDEV:
		return "netdev"
	case unix.NFPROTO_ARP:
		return "arp"
	}
	return "other"
}
