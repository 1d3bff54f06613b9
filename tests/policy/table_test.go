package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// row is policies of one namespace, OWN, and what they let through. A row says
// nothing of connections between others, so rows of several namespaces are in
// force at once; LEFT and RIGHT are the other two.
type row struct {
	name     string
	policies []string
	// ingress and egress say which connections of the pods of OWN are let through,
	// given the other end. nil lets all through.
	ingress func(own, other end) bool
	egress  func(own, other end) bool
}

// end is one of the two of a connection, as a row sees it.
type end struct {
	space string // OWN, LEFT or RIGHT
	name  string
	service
}

func (e end) is(names ...string) bool { return slices.Contains(names, e.name) }
func (e end) of(spaces ...string) bool {
	return slices.Contains(spaces, e.space)
}

const (
	own   = "OWN"
	left  = "LEFT"
	right = "RIGHT"
)

func none(_, _ end) bool { return false }

// allow makes a rule of all of its conditions.
func allow(conditions ...func(own, other end) bool) func(own, other end) bool {
	return func(me, other end) bool {
		return !slices.ContainsFunc(conditions, func(c func(own, other end) bool) bool { return !c(me, other) })
	}
}

// either lets through what one of several does.
func either(choices ...func(own, other end) bool) func(own, other end) bool {
	return func(me, other end) bool {
		return slices.ContainsFunc(choices, func(c func(own, other end) bool) bool { return c(me, other) })
	}
}

func pods(names ...string) func(own, other end) bool {
	return func(_, other end) bool { return other.is(names...) }
}

func spaces(names ...string) func(own, other end) bool {
	return func(_, other end) bool { return other.of(names...) }
}

func ports(allowed ...service) func(own, other end) bool {
	return func(me, _ end) bool { return slices.Contains(allowed, me.service) }
}

// only restricts a rule to some pods of OWN; the others are not isolated.
func only(names []string, rule func(own, other end) bool) func(own, other end) bool {
	return func(me, other end) bool { return !me.is(names...) || rule(me, other) }
}

// lets reports whether the row, with OWN at an index of the namespaces, lets a
// connection through. A pod always reaches itself.
func (r row) lets(names []string, at int, c connection) bool {
	if c.from == c.to {
		return true
	}
	role := func(p *pod) end {
		space := []string{own, left, right}[(slices.Index(names, p.space)-at+3)%3]
		return end{space, p.name, c.service}
	}
	from, to := role(c.from), role(c.to)
	if to.space == own && r.ingress != nil && !r.ingress(to, from) {
		return false
	}
	return from.space != own || r.egress == nil || r.egress(from, to)
}

// spec fills the names of the namespaces and the addresses of pods in: the
// address of pod a of LEFT is LEFT.a/32. Of IPv6 the blocks are others.
func (s *suite) spec(text string, at, family int) string {
	var pairs []string
	if family == 1 {
		pairs = []string{"10.42.0.0/16", `"fd42::/48"`, "0.0.0.0/0", `"::/0"`, "192.0.2.0/24", `"2001:db8::/32"`}
	}
	for i, role := range []string{own, left, right} {
		space := s.spaces[(at+i)%3]
		for _, p := range s.in(space) {
			pairs = append(pairs, role+"."+p.name+"/32", []string{p.ips[0] + "/32", `"` + p.ips[1] + `/128"`}[family])
		}
	}
	for i, role := range []string{own, left, right} {
		pairs = append(pairs, role, s.spaces[(at+i)%3])
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// settle waits until every node knows these policies. It spares check a round; what
// counts is what check finds.
func (s *suite) settle(t *testing.T, policies []string) {
	t.Helper()
	for _, n := range s.nodes {
		cluster.Eventually(t, 10*time.Second, func() error {
			out, err := n.Command(t.Context(), "nft", "--terse", "list", "table", "inet", "lite-policy").Output()
			for _, name := range policies {
				if !strings.Contains(string(out), "by "+name+"\"") {
					return fmt.Errorf("%s has nothing of %s (%v)", n.Name, name, err)
				}
			}
			return nil
		})
	}
}

// testTable puts three rows of the table in force at a time, each in another
// namespace, and tries all pairs of pods.
func (s *suite) testTable(t *testing.T) {
	count := 0
	for first := 0; first < len(table); first += 3 {
		rows := table[first:min(first+3, len(table))]
		var names, policies []string
		for at, r := range rows {
			names = append(names, r.name)
			for i, text := range r.policies {
				for family := range 2 {
					if family == 1 && !strings.Contains(text, "ipBlock") {
						continue // the one before is about both
					}
					name := fmt.Sprintf("row%d-%d-%d", first+at, i, family)
					s.apply(t, s.spaces[at], name, s.spec(text, at, family))
					policies = append(policies, s.spaces[at]+"/"+name)
				}
			}
		}
		count += len(policies)
		s.settle(t, policies)
		t.Run(strings.Join(names, ", "), func(t *testing.T) {
			s.check(t, func(c connection) bool {
				for at, r := range rows {
					if !r.lets(s.spaces, at, c) {
						return false
					}
				}
				return true
			})
		})
		s.removePolicies(t)
	}
	t.Logf("%d policies in %d rows", count, len(table))
	// None is left: everything connects again.
	s.check(t, func(connection) bool { return true })
}
