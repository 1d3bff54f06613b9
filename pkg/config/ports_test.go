package config

import (
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/addon/metrics"
	"lite.io/lite/pkg/layout"
)

// What listens is above this package, which knows its ports all the same.
func TestPortsAreThoseOfTheirParts(t *testing.T) {
	if !slices.ContainsFunc(layout.Ports(), func(p layout.Port) bool {
		return addon.Disabled{addon.Metrics}.Frees(p.Number) && strings.HasSuffix(metrics.Address(), ":10349") && p.Number == 10349
	}) {
		t.Errorf("the metrics API is at %s", metrics.Address())
	}
}
