package uninstall

import (
	"context"
	"os"
	"slices"

	"lite.io/lite/pkg/host/changes"
)

// undoFixes undoes what `lite check --fix` has done, the last first. What cannot be undone
// is reported and not a failure: the firewall may be off, or gone.
func (w *work) undoFixes(ctx context.Context) {
	all, err := changes.Fixes(w.ConfigDir)
	w.Fail(err)
	if len(all) == 0 {
		return
	}
	w.Step("Undoing what lite check --fix has done")
	for _, f := range slices.Backward(all) {
		if _, err := w.programs.Run(ctx, nil, "sh", "-c", f.Undo); err != nil {
			w.Leave("what lite check --fix did (%s), because `%s` could not undo it: %v", f.Did, f.Undo, err)
		}
	}
	if ctx.Err() == nil {
		w.Fail(os.Remove(w.ConfigDir.Fixes()))
	}
}
