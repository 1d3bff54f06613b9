// Package fuzz holds what fuzz targets share: seeds that are files, and a measure of what an input costs.
package fuzz

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Files returns the content of the files that the patterns match, to be seeds. A pattern that matches nothing fails the
// target: its seeds have moved.
func Files(f *testing.F, patterns ...string) (contents []string) {
	f.Helper()
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			f.Fatalf("seeds %s: found %d files, %v", pattern, len(paths), err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			contents = append(contents, string(data))
		}
	}
	return contents
}

// AllocatesAtMost fails the test if work allocates more than so many MiB. Unlike time, this is the same on a busy
// machine, and what takes long for a short input nearly always allocates.
func AllocatesAtMost(t *testing.T, mib uint64, work func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	work()
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > mib<<20 {
		t.Errorf("it allocated %d MiB, more than %d", allocated>>20, mib)
	}
}

// OneLine fails the test if an error is not one line: what follows in a log would look like a line of its own.
func OneLine(t *testing.T, err error) {
	t.Helper()
	if text := err.Error(); text == "" || strings.ContainsAny(text, "\r\n") {
		t.Errorf("the error is not one line: %q", text)
	}
}
