package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestIsArchive(t *testing.T) {
	for name, want := range map[string]bool{
		"a.tar":             true,
		"a.tar.gz":          true,
		"a.tgz":             true,
		"a.tar.zst":         true,
		"a.tzst":            true,
		"/dir/a.b.tar":      true,
		"/.dir/a.tar":       true,
		"a.tar.bz2":         false,
		"a.tar.part":        false,
		"a.zst":             false,
		"a.gz":              false,
		"a.txt":             false,
		"tar":               false,
		"":                  false,
		".a.tar":            false, // how rsync and others name what is not whole yet
		"/dir/.a.tar.Xy12":  false,
		"/dir/.hidden.tgz":  false,
		"a.tar.gz.download": false,
	} {
		if got := IsArchive(name); got != want {
			t.Errorf("%q: got %t", name, got)
		}
	}
}

func TestMarkChangesWhenTheArchiveDoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tar")
	when := time.Date(2026, time.May, 1, 12, 0, 0, 5, time.UTC)
	mark := func(content string, at time.Time) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return markOf(info.Name(), info)
	}
	first := mark("abc", when)
	if first != "a.tar-3-1777636800000000005" {
		t.Errorf("got %q", first)
	}
	if errs := validation.IsValidLabelValue(first); len(errs) > 0 {
		t.Errorf("%q cannot be a label: %v", first, errs)
	}
	if mark("xyz", when) != first {
		t.Error("another mark for what looks the same: every start would import it again")
	}
	if mark("abcd", when) == first || mark("abc", when.Add(time.Nanosecond)) == first {
		t.Error("the same mark for another size or time")
	}
	marks := map[string]string{}
	for _, name := range []string{"b.tar", "ä.tar", "ö.tar", "a b.tar", "a_b.tar", "a\nb.tar", "1" + strings.Repeat("x", 200) + ".tar", "2" + strings.Repeat("x", 200) + ".tar"} {
		path = filepath.Join(filepath.Dir(path), name)
		m := mark("abc", when)
		if other, ok := marks[m]; ok || m == first || strings.ContainsAny(m, " /\n") {
			t.Errorf("%q has the mark %q, and so has %q", name, m, other)
		}
		marks[m] = name
	}
}

func TestImporterSaysWhatItWaitsFor(t *testing.T) {
	i := BuiltIn("/socket", "/archives")
	if err := i.Ready(t.Context()); err == nil || err.Error() != "importing from /archives" || i.Name() != "sandbox-image" {
		t.Errorf("%s: got %v", i.Name(), err)
	}
	i.ready.Store(true)
	if err := i.Ready(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestNote(t *testing.T) {
	i := Directory("", t.TempDir())
	if note := i.Note(); note != "" {
		t.Errorf("before anything was imported: %q", note)
	}
	i.failed.Store(&[]string{"page.tar.gz", "gone.tar"})
	if err := os.WriteFile(filepath.Join(i.dir, "page.tar.gz"), []byte("<html>404</html>"), 0o600); err != nil {
		t.Fatal(err)
	}
	if note, want := i.Note(), "not imported, the log says why: page.tar.gz"; note != want {
		t.Errorf("%q, want %q", note, want)
	}
	i.failed.Store(&[]string{"gone.tar"})
	if note := i.Note(); note != "" {
		t.Errorf("the archive is not there any more: %q", note)
	}
}
