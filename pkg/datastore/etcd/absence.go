package etcd

import (
	"cmp"
	"fmt"
	"slices"
)

// Absence is whether the store goes on while one of its members is stopped, as JSON.
type Absence struct {
	Others  []string `json:"others"`            // the names of the other servers
	Missing []string `json:"missing,omitempty"` // what keeps the member from being stopped; nothing if it may be
	Late    bool     `json:"-"`                 // something is missing because a member has not caught up, which may take only a moment
}

// NewAbsence judges whether the member may be stopped that calls itself Self in all. others is what each of the other
// members says of itself, by ID, and silent why servers could not be asked.
func NewAbsence(all []Member, others map[string]Member, silent []string) Absence {
	a := Absence{Others: []string{}}
	i := slices.IndexFunc(all, func(m Member) bool { return m.Self })
	if i < 0 || len(all) == 1 {
		return a // alone, nobody has another view
	}
	self, voters := all[i], 0
	for _, m := range all {
		if !m.Learner {
			voters++
		}
		if m.ID == self.ID {
			continue
		}
		name := cmp.Or(m.Name, m.PeerURL)
		a.Others = append(a.Others, name)
		switch now, answers := others[m.ID]; {
		case m.Learner:
			a.Missing = append(a.Missing, fmt.Sprintf("server %s is joining, and has no vote yet; wait until `lite status` on it shows that it is ready, or remove it if it will not come back", name))
		case !answers:
			a.Missing = append(a.Missing, fmt.Sprintf("server %s does not answer; start it, or remove it if it will not come back", name))
		case now.Applied < self.Applied:
			a.Late = true
			a.Missing = append(a.Missing, fmt.Sprintf("server %s has not caught up with the others (%d entries behind); wait, or see `lite status` on it", name, self.Applied-now.Applied))
		}
	}
	if voters == 2 {
		a.Missing = append(a.Missing, "two servers have no quorum while one of them is stopped, and the API is unavailable meanwhile; add a third server first, if you want to avoid that")
	}
	if len(a.Missing) > 0 {
		a.Missing = append(a.Missing, silent...)
	}
	return a
}
