package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"lite.io/lite/pkg/check"
	"lite.io/lite/pkg/log"
)

// cisTimeout is for a socket and an API server of this machine.
const cisTimeout = time.Minute

// runCIS judges this node by the benchmark.
func runCIS(ctx context.Context, w io.Writer, flags *pflag.FlagSet, o checkOptions) error {
	machine := check.This()
	switch {
	case !slices.Contains([]string{"table", "json", "junit"}, o.output):
		return fmt.Errorf("--output %q: must be table, json or junit", o.output)
	case o.fix || o.strict || len(o.nodes) > 0:
		return errors.New("--cis: cannot be combined with --fix, --strict or --nodes; leave them out")
	case machine.UID != 0:
		return errors.New("--cis: needs root to see how lite runs and who owns its files; run `sudo lite check --cis`")
	}
	ctx, cancel := context.WithTimeout(ctx, cisTimeout)
	defer cancel()
	r, err := check.CIS(ctx, machine, flags, o.role)
	if err != nil {
		return err
	}
	switch o.output {
	case "json":
		err = writeJSON(w, r)
	case "junit":
		err = r.WriteJUnit(w)
	default:
		err = r.WriteText(w)
	}
	if err != nil {
		return err
	}
	if r.Failed() {
		return log.Shown(errors.New("some entries of the benchmark failed or could not be checked"))
	}
	return nil
}
