package etcd

import (
	"strings"
	"testing"
)

func TestAbsence(t *testing.T) {
	self := Member{Name: "a", ID: "1", Self: true, Applied: 100}
	b, c, d, e := Member{Name: "b", ID: "2"}, Member{Name: "c", ID: "3"}, Member{Name: "d", ID: "4"}, Member{Name: "e", ID: "5"}
	joining, unnamed := Member{Name: "d", ID: "4", Learner: true}, Member{PeerURL: "https://192.0.2.4:2380", ID: "4", Learner: true}
	at := func(applied uint64, all ...Member) map[string]Member {
		says := map[string]Member{}
		for _, m := range all {
			m.Self, m.Applied = true, applied
			says[m.ID] = m
		}
		return says
	}
	for name, test := range map[string]struct {
		all    []Member
		says   map[string]Member
		silent []string
		want   []string // what is missing, in parts
		late   bool
	}{
		"alone":                 {all: []Member{self}},
		"not open yet":          {},
		"three":                 {all: []Member{self, b, c}, says: at(100, b, c)},
		"ahead":                 {all: []Member{self, b, c}, says: at(107, b, c)},
		"a server without one":  {all: []Member{self, b, c}, says: at(100, b, c), silent: []string{"https://192.0.2.9:6443: refused"}},
		"one of three is down":  {all: []Member{self, b, c}, says: at(100, b), silent: []string{"https://192.0.2.3:6443: refused"}, want: []string{"server c does not answer", "192.0.2.3"}},
		"one of five is down":   {all: []Member{self, b, c, d, e}, says: at(100, b, c, d), want: []string{"server e does not answer"}},
		"two of five are down":  {all: []Member{self, b, c, d, e}, says: at(100, b, c), want: []string{"server d does not", "server e does not"}},
		"one lags":              {all: []Member{self, b, c}, says: at(93, b, c), want: []string{"server b has not caught up with the others (7 entries behind)", "server c has not"}, late: true},
		"one is joining":        {all: []Member{self, b, c, joining}, says: at(100, b, c, joining), want: []string{"server d is joining"}},
		"one was let in":        {all: []Member{self, b, c, unnamed}, says: at(100, b, c), want: []string{"server https://192.0.2.4:2380 is joining"}},
		"two":                   {all: []Member{self, b}, says: at(100, b), want: []string{"two servers have no quorum"}},
		"two, and one is down":  {all: []Member{self, b}, want: []string{"server b does not answer", "two servers"}},
		"the second is joining": {all: []Member{self, joining}, says: at(100, joining), want: []string{"server d is joining"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := NewAbsence(test.all, test.says, test.silent)
			if len(got.Missing) != len(test.want) || got.Late != test.late || len(test.all) > 0 && len(got.Others) != len(test.all)-1 {
				t.Fatalf("got %+v, want %q", got, test.want)
			}
			for i, words := range test.want {
				if !strings.Contains(got.Missing[i], words) {
					t.Errorf("got %q, want %q", got.Missing[i], words)
				}
			}
		})
	}
}
