// Package golden compares what a test made with a file of its testdata. Only
// tests import it: it brings the flag -update, which rewrites the files.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

// Update is whether to rewrite what is compared; `make golden` sets it.
var Update = flag.Bool("update", false, "rewrite golden files and generated documents")

// Check compares got with testdata/name.golden, or rewrites that.
func Check(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *Update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs, run go test with -update if that is right; got\n%s", file, got)
	}
}
