package uninstall

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Report prints each step as it begins, and at the end what was left and what has failed.
type Report struct {
	out    io.Writer
	left   []string
	failed []string
}

// NewReport writes to out.
func NewReport(out io.Writer) *Report { return &Report{out: out} }

// Step prints what is done next.
func (r *Report) Step(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }

// Leave records what stays, on purpose.
func (r *Report) Leave(format string, args ...any) {
	if what := fmt.Sprintf(format, args...); !slices.Contains(r.left, what) {
		r.left = append(r.left, what)
	}
}

// Fail records what could not be done.
func (r *Report) Fail(err error) {
	if err == nil {
		return
	}
	r.failed = append(r.failed, strings.ReplaceAll(err.Error(), "\n", "; "))
}

// end prints the notes.
func (r *Report) end() error {
	for _, what := range r.left {
		fmt.Fprintln(r.out, "Left: "+what)
	}
	if len(r.failed) == 0 {
		return nil
	}
	for _, what := range r.failed {
		fmt.Fprintln(r.out, "FAILED: "+what)
	}
	if len(r.failed) == 1 {
		return errors.New("1 step failed, see above; fix it and run this again")
	}
	return fmt.Errorf("%d steps failed, see above; fix them and run this again", len(r.failed))
}
