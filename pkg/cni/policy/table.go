package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"lite.io/lite/pkg/layout"
)

// table writes what a filter hands out into the packet filter of the kernel.
type table struct {
	nft      knftables.Interface
	families []family
	// right is the generation of the packet filter at which the table was known to
	// be right; 0 at none.
	right uint32
}

// openTable finds the program nft and checks whether it works here.
func openTable(fs []family) (*table, error) {
	if _, err := exec.LookPath("nft"); err != nil {
		return nil, errors.New("there is no nft that works with this kernel; use a kernel built with CONFIG_NF_TABLES")
	}
	nft, err := knftables.New(knftables.InetFamily, layout.PolicyTable)
	if err != nil {
		return nil, fmt.Errorf("use the packet filter: %w", err)
	}
	return &table{nft: nft, families: fs}, nil
}

// Remove takes the table away, if there is one: no policy is in force any more.
func Remove(ctx context.Context) error {
	nft, err := exec.LookPath("nft")
	if err != nil {
		return nil // without it there never was a table
	}
	out, err := exec.CommandContext(ctx, nft, "delete", "table", "inet", layout.PolicyTable).CombinedOutput()
	// A kernel that cannot have such a table has none.
	if err == nil || strings.Contains(string(out), "No such file") || strings.Contains(string(out), "not supported") {
		return nil
	}
	output, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("remove table %s: %w: %s", layout.PolicyTable, err, output)
}

// write makes changes, all of them at the same moment. Fresh ones replace the
// whole table, at the same moment as well: no packet sees a table in between.
func (t *table) write(ctx context.Context, c changes) error {
	tx := t.nft.NewTransaction()
	if c.fresh {
		tx.Add(&knftables.Table{})
		tx.Delete(&knftables.Table{})
		t.addBase(tx)
	}
	for _, s := range c.newSets {
		kind := s.addressType
		if s.ports {
			kind += " . inet_proto . inet_service"
		}
		tx.Add(&knftables.Set{Name: s.name, Type: kind, Comment: comment(s.comment)})
	}
	// All chains first: they lead to each other.
	names := slices.Sorted(maps.Keys(c.newChains))
	for _, name := range names {
		tx.Add(&knftables.Chain{Name: name, Comment: comment(c.newChains[name].comment)})
		if !c.fresh {
			tx.Flush(&knftables.Chain{Name: name})
		}
	}
	for _, name := range names {
		for _, rule := range c.newChains[name].rules {
			tx.Add(&knftables.Rule{Chain: name, Rule: rule})
		}
	}
	for _, e := range c.remove {
		tx.Delete(e.object())
	}
	for _, e := range c.add {
		tx.Add(e.object())
	}
	for _, name := range c.goneChains {
		tx.Flush(&knftables.Chain{Name: name})
	}
	for _, name := range c.goneChains {
		tx.Delete(&knftables.Chain{Name: name})
	}
	for _, name := range c.goneSets {
		tx.Delete(&knftables.Set{Name: name})
	}
	before, _ := generation()
	err := t.nft.Run(ctx, tx)
	// Somebody else's change in between may have been of our table.
	t.right = 0
	if after, _ := generation(); err == nil && after == before+1 {
		t.right = after
	}
	return err
}

// object is an element as the library has it. Parts of the key are given apart.
func (e element) object() *knftables.Element {
	o := &knftables.Element{Set: e.set, Key: strings.Split(e.key, " . ")}
	if e.verdict != "" {
		o.Set, o.Map, o.Value = "", e.set, []string{e.verdict}
	}
	if e.comment != "" {
		o.Comment = comment(e.comment)
	}
	return o
}

// comment fits a text into what nft takes.
func comment(text string) *string {
	const limit = 120 // nft takes 128 bytes, including the final zero
	if len(text) > limit {
		text = text[:limit-3] + "..."
	}
	return &text
}

// addBase makes the parts of the table that are always there. Two chains at the
// same hook, since a packet must be accepted twice: for the pod that sends it and
// for the one that gets it.
func (t *table) addBase(tx *knftables.Transaction) {
	tx.Add(&knftables.Table{Comment: comment("NetworkPolicies; lite writes it, do not edit")})
	for _, f := range t.families {
		for _, d := range []direction{ingress, egress} {
			tx.Add(&knftables.Map{Name: d.String() + f.number, Type: f.addressType() + " : verdict",
				Comment: comment("pods whose " + d.String() + " is restricted")})
		}
		tx.Add(&knftables.Set{Name: "self" + f.number, Type: f.addressType() + " . " + f.addressType(),
			Comment: comment("a pod reaches itself, by a Service too")})
		tx.Add(&knftables.Set{Name: "nodes" + f.number, Type: f.addressType(), Comment: comment("addresses of nodes")})
	}
	for _, d := range []direction{egress, ingress} {
		name, priority := d.String(), knftables.BaseChainPriority([...]string{"filter-10", "filter-20"}[d])
		tx.Add(&knftables.Chain{
			Name: name, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.ForwardHook), Priority: &priority,
			Policy: knftables.PtrTo(knftables.AcceptPolicy), Comment: comment("pods whose " + name + " no policy restricts pass"),
		})
		for _, rule := range t.baseRules(d) {
			tx.Add(&knftables.Rule{Chain: name, Rule: rule})
		}
	}
}

// neighbours is how IPv6 finds who is on the bridge; ARP does not pass these chains.
const neighbours = "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept"

func (t *table) baseRules(d direction) []string {
	rules := []string{"ct state established,related accept", neighbours}
	if d == ingress {
		// The API does not have these addresses, which pods on one bridge have even in an
		// IPv4 cluster: they would bypass every policy. Packets of the machine's other
		// bridges pass here, too, and need them for DHCP.
		rules = append(rules, `iifname "`+layout.Bridge+`" ip6 saddr fe80::/10 drop`, `iifname "`+layout.Bridge+`" ip6 daddr fe80::/10 drop`)
	}
	for _, f := range t.families {
		rules = append(rules, fmt.Sprintf("%s saddr . %s daddr @self%s accept", f.name, f.name, f.number))
		if d == ingress {
			// What a node itself sends. What comes through one of its ports, NodePort or
			// hostPort, counts as the sender's.
			rules = append(rules, fmt.Sprintf("%s saddr @nodes%s ct status and dnat == 0 accept", f.name, f.number))
		}
		rules = append(rules, fmt.Sprintf("%s %s vmap @%s%s", f.name, d.pod(), d, f.number))
	}
	return rules
}

// intact reports whether the table still has so many rules, besides its own, and
// so many elements in each set. It costs nothing as long as nobody has changed any
// rule on the machine.
func (t *table) intact(ctx context.Context, rules int, elements map[string]int) (bool, error) {
	now, err := generation()
	if err == nil && now == t.right && now != 0 {
		return true, nil
	}
	// The library lists the elements of one set at a time.
	out, err := exec.CommandContext(ctx, "nft", "--json", "list", "table", "inet", layout.PolicyTable).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) && strings.Contains(string(failed.Stderr), "No such file") {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("list table %s: %w", layout.PolicyTable, err)
	}
	hasRules, hasElements, err := count(out)
	if err != nil {
		return false, fmt.Errorf("list table %s: %w", layout.PolicyTable, err)
	}
	intact := hasRules == rules+len(t.baseRules(ingress))+len(t.baseRules(egress)) && maps.Equal(hasElements, elements)
	if intact {
		t.right = now
	}
	return intact, nil
}

// count returns how many rules nft lists, and how many elements of each set or map
// that has some.
func count(listing []byte) (rules int, elements map[string]int, err error) {
	type set struct {
		Name string            `json:"name"`
		Elem []json.RawMessage `json:"elem"`
	}
	var all struct {
		Objects []struct {
			Rule     *struct{} `json:"rule"`
			Set, Map *set
		} `json:"nftables"`
	}
	if err := json.Unmarshal(listing, &all); err != nil {
		return 0, nil, err
	}
	elements = map[string]int{}
	for _, o := range all.Objects {
		if o.Rule != nil {
			rules++
		}
		if s := cmp.Or(o.Set, o.Map); s != nil && len(s.Elem) > 0 {
			elements[s.Name] = len(s.Elem)
		}
	}
	return rules, elements, nil
}
