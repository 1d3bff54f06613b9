package uninstall

import (
	"testing"
)

func TestShaperName(t *testing.T) {
	// As made by the plugin bandwidth 1.9.1 for this network and container.
	if got := shaperName("lite", "x"); len(got) != 15 || got[:3] != "bwp" {
		t.Errorf("%q", got)
	}
}

func TestPodName(t *testing.T) {
	for name, want := range map[string]bool{
		"pod3760bb9e-b896-4d9d-9a11-725706bc6dfa":                           true,
		"kubepods-besteffort-pod3760bb9e_b896_4d9d_9a11_725706bc6dfa.slice": true,
		"kubepods-pod3760bb9e_b896_4d9d_9a11_725706bc6dfa.slice":            true,
		"besteffort": false, "kubepods": false, "kubepods-burstable.slice": false, "podman": false,
	} {
		if podName.MatchString(name) != want {
			t.Errorf("%s: want %v", name, want)
		}
	}
}
