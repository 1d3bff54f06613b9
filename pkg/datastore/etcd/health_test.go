package etcd

import (
	"strings"
	"testing"
)

// with makes the health of members: v is one that votes, l a learner; capitals are up.
func with(members string) (h Health) {
	for i, r := range members {
		m := MemberHealth{Member: Member{Name: "host" + string(rune('1'+i)), ID: string(rune('a' + i))}}
		m.Learner = r == 'l' || r == 'L'
		m.Reachable = r == 'V' || r == 'L'
		h.Members = append(h.Members, m)
	}
	h.MayFail = margin(h.Members)
	return h
}

func TestMargin(t *testing.T) {
	for members, want := range map[string]struct {
		mayFail int
		risk    string
		margin  string
	}{
		"V":      {0, "", "only member"},
		"VL":     {0, "one more server", "one more server"},
		"VV":     {0, "two servers are less available than one", "two servers"},
		"Vv":     {-1, "no quorum: host2 is not reachable", "no quorum"},
		"VVV":    {1, "", "1 more member may fail"},
		"VVVL":   {1, "", "1 more member may fail"},
		"VVv":    {0, "host3 is not reachable", "one more server"},
		"Vvv":    {-1, "host2, host3 are not reachable", "no quorum"},
		"VVVV":   {1, "", "1 more member"},
		"VVVVV":  {2, "", "2 more members may fail"},
		"VVVVv":  {1, "", "1 more member"},
		"VVvvv":  {-1, "no quorum", "no quorum"},
		"VVVVvv": {0, "one more server", "one more server"},
	} {
		h := with(members)
		if h.MayFail != want.mayFail || !strings.Contains(h.Risk(), want.risk) || want.risk == "" && h.Risk() != "" || !strings.Contains(h.Margin(), want.margin) {
			t.Errorf("%s: %d, %q, %q", members, h.MayFail, h.Risk(), h.Margin())
		}
	}
}

// Which member may be removed, and what is safe if it may not.
func TestRefusal(t *testing.T) {
	for members, of := range map[string]map[int]string{
		"V":     {0: "the only member"},
		"VV":    {0: "", 1: ""},
		"VVV":   {0: "", 2: ""},
		"VVv":   {2: "", 1: "start lite there first, or, if lost for good, remove that one in place of host2"},
		"Vvv":   {0: "no quorum", 1: "no quorum", 2: "--reset-to-single"},
		"VVVVv": {0: "", 4: ""},
		"VVVvv": {3: "", 0: "3 of the 4 other members would have to be up, and host4, host5 are not reachable"},
		"VL":    {0: "the only member", 1: ""},
		"Vl":    {1: ""},
	} {
		h := with(members)
		for i, want := range of {
			err := h.refusal(h.Members[i].Member)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s without %s: %v", members, h.Members[i].Name, err)
			}
		}
	}
}

func TestBehind(t *testing.T) {
	h := with("VVV")
	h.place([]Position{{ID: "a", Committed: 100, Applied: 100}, {ID: "b", Committed: 90, Applied: 88}})
	if a, b, c := h.Members[0].Behind, h.Members[1].Behind, h.Members[2].Behind; a == nil || *a != 0 || b == nil || *b != 12 || c != nil {
		t.Errorf("got %v, %v, %v", a, b, c)
	}
}
