package conformance

import (
	"regexp"
	"slices"
	"testing"
)

func TestChoose(t *testing.T) {
	for name, test := range map[string]struct {
		env   map[string]string
		name  string
		flags []string // of what runs in parallel
	}{
		"all":      {nil, "conformance", []string{"--label-filter=(Conformance) && !Serial"}},
		"a focus":  {map[string]string{"FOCUS": "Deployment", "SKIP": "slow"}, "", []string{"--label-filter=(!Disruptive && !Flaky && !Deprecated && Feature: isEmpty) && !Serial", "--focus=Deployment", "--skip=slow"}},
		"features": {map[string]string{"FOCUS": "x", "FEATURES": "A B"}, "", []string{"--label-filter=(!Disruptive && !Flaky && !Deprecated && Feature: isSubsetOf {A,B}) && !Serial", "--focus=x"}},
		"a group":  {map[string]string{"GROUP": "sig-apps"}, "sig-apps", []string{"--label-filter=(!Disruptive && !Flaky && !Deprecated && Feature: isEmpty) && !Serial", `--focus=\[sig-apps\]`}},
	} {
		got, s, ok := choose(func(key string) string { return test.env[key] })
		if !ok || got != test.name || !slices.Equal(s.parallel().flags(), test.flags) {
			t.Errorf("%s: %q, %q, %v", name, got, s.parallel().flags(), ok)
		}
	}
	if _, _, ok := choose(func(key string) string { return map[string]string{"GROUP": "sig-nothing"}[key] }); ok {
		t.Error("a group that is none is taken")
	}
	for name, g := range groups {
		for _, pattern := range []string{g.focus, g.skip} {
			if _, err := regexp.Compile(pattern); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// What cannot run is named, and left out of what runs.
func TestPossible(t *testing.T) {
	specs := []string{
		"[sig-apps] Deployment should run", "[sig-storage] In-tree Volumes [Driver: nfs] should mount", "[sig-storage] CSI Mock volume limit counts",
		"[sig-storage] In-tree Volumes [Driver: hostPath] should mount",
	}
	s, left, remain := selection{skip: "slow"}.possible(specs, lacks())
	if want := []string{specs[0], specs[3]}; !slices.Equal(remain, want) {
		t.Errorf("remain %q", remain)
	}
	if len(left) != 2 || !slices.Equal(left[0].Specs, specs[1:2]) || !slices.Equal(left[1].Specs, specs[2:3]) {
		t.Errorf("left are %+v", left)
	}
	skip := regexp.MustCompile(s.skip)
	for i, spec := range specs {
		if got, want := skip.MatchString(spec), i == 1 || i == 2; got != want {
			t.Errorf("%s: left out: %v", spec, got)
		}
	}
	if s.skip[:5] != "slow|" {
		t.Errorf("what was to be left out is %q", s.skip)
	}
}
