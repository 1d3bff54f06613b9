package uninstall

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lite.io/lite/pkg/host/changes"
	"lite.io/lite/pkg/layout"
)

// What `lite check --fix` has done is undone, the last first; what cannot be undone is
// reported, and uninstalling continues.
func TestUndoFixes(t *testing.T) {
	dir := t.TempDir()
	etc, log := layout.Config(filepath.Join(dir, "etc")), filepath.Join(dir, "log")
	for _, f := range []changes.Fix{{Did: "one", Undo: "echo 'one <&>' >>" + log}, {Did: "two", Undo: "false # gone"}, {Did: "three", Undo: "echo three >>" + log}} {
		for range 2 { // a second time is the same
			if err := changes.NoteFix(etc, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	var out bytes.Buffer
	w := &work{Installation: Installation{ConfigDir: etc}, Report: NewReport(&out)}
	w.undoFixes(t.Context())
	w.undoFixes(t.Context()) // there is nothing any more
	if err := w.end(); err != nil {
		t.Error(err)
	}
	if did, _ := os.ReadFile(log); string(did) != "three\none <&>\n" {
		t.Errorf("did %q", did)
	}
	if text := out.String(); strings.Count(text, "Undoing") != 1 || !strings.Contains(text, "Left: what lite check --fix did (two), because `false # gone` could not") {
		t.Errorf("said:\n%s", text)
	}
	if entries, _ := os.ReadDir(string(etc)); len(entries) != 0 {
		t.Errorf("there is %v", entries)
	}
}

// A damaged file is reported, and does not stop the rest.
func TestDamagedFixes(t *testing.T) {
	w := &work{Installation: Installation{ConfigDir: layout.Config(t.TempDir())}, Report: NewReport(&bytes.Buffer{})}
	if err := os.WriteFile(w.ConfigDir.Fixes(), []byte("{\"did\":"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.undoFixes(t.Context())
	if len(w.failed) != 1 || !strings.Contains(w.failed[0], "by hand") {
		t.Errorf("failed: %q", w.failed)
	}
	if err := changes.NoteFix(w.ConfigDir, changes.Fix{Did: "a", Undo: "b"}); err == nil {
		t.Error("it was written over")
	}
}
