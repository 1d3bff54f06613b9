package uninstall

import (
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/layout"
)

// What a battery leaves in the kernel is removed where lite has run, whichever kind of thing it is.
func TestWhatBatteriesLeaveIsRemoved(t *testing.T) {
	for _, b := range addon.All() {
		for _, name := range b.Leaves {
			device := name == layout.Bridge || slices.Contains(layout.Devices(), name) // as in cmd/lite
			table := slices.ContainsFunc([]string{"inet ", "ip ", "ip6 "}, func(family string) bool { return ownsTable(family+name, true) })
			chain := name
			if strings.HasSuffix(name, "-") {
				chain += "X" // it begins the names of several
			}
			script, _ := chainOwner{kubernetes: true, network: layout.Network}.script("*filter\n:" + chain + " - [0:0]\nCOMMIT\n")
			if !device && !table && !strings.Contains(script, "-X "+chain+"\n") {
				t.Errorf("%s of %s stays", name, b.Name)
			}
		}
	}
}

func TestOwnsTable(t *testing.T) {
	for table, want := range map[string][2]bool{ // if lite has not run since boot, and if it has
		"inet lite-policy": {true, true}, "ip kube-proxy": {false, true}, "ip6 kube-proxy": {false, true},
		"ip lite-policy": {}, "inet kube-proxy": {}, "ip filter": {}, "ip cni_hostport": {}, "inet firewalld": {}, "": {},
	} {
		if got := [2]bool{ownsTable(table, false), ownsTable(table, true)}; got != want {
			t.Errorf("%q: got %v", table, got)
		}
	}
}
