package netfilter

import (
	"slices"
	"testing"
)

func TestSavedTables(t *testing.T) {
	got := savedTables("ip6", "*nat\n:INPUT ACCEPT [0:0]\n-A INPUT -j X\nCOMMIT\n")
	if want := []string{"ip6 nat", "ip6 nat INPUT"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
