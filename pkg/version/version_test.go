package version

import (
	"runtime"
	"testing"
)

func TestPlainBuildSaysThatItIsNone(t *testing.T) {
	i := Get()
	if i.Version != "v0.0.0-unreleased" || Version() != i.Version || i.Commit != "unknown" || i.Runc != "unknown" {
		t.Errorf("got %+v", i)
	}
	if i.Go != runtime.Version() || i.Platform != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("got %+v", i)
	}
}

func TestModuleThatIsNotInTheBinaryIsUnknown(t *testing.T) {
	if got := module("example.test/none"); got != "unknown" {
		t.Errorf("got %q", got)
	}
}
