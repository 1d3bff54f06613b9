package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"lite.io/lite/pkg/host/netfilter"
)

// Awake is a part that keeps tables of nftables, by their names, from being dormant. A
// dormant table is complete, but not in force.
func Awake(names ...string) Part {
	var asleep []netfilter.Table
	return Part{
		Missing: func(_ context.Context, lost Lost) (gone []string, err error) {
			asleep = nil
			if !lost.Unknown && !slices.ContainsFunc(lost.Changes, func(c Change) bool { return c.Dormant && slices.Contains(names, c.Name) }) {
				return nil, nil
			}
			all, _ := netfilter.Dormant() // a kernel without nftables has none
			for _, t := range all {
				if slices.Contains(names, t.Name) {
					asleep = append(asleep, t)
					gone = append(gone, fmt.Sprintf("table %s, which is dormant", t))
				}
			}
			return gone, nil
		},
		Restore: func(ctx context.Context) error {
			var errs []error
			for _, t := range asleep {
				errs = append(errs, netfilter.Wake(ctx, t))
			}
			return errors.Join(errs...)
		},
	}
}
