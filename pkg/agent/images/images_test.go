package images

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"lite.io/lite/pkg/file/unpack"
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
	i := BuiltIn("/socket", nil, "/archives")
	if err := i.Ready(t.Context()); err == nil || err.Error() != "importing from /archives" || i.Name() != "sandbox-image" {
		t.Errorf("%s: got %v", i.Name(), err)
	}
	i.ready.Store(true)
	if err := i.Ready(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestNote(t *testing.T) {
	i := Directory("", nil, t.TempDir())
	if note := i.Note(); note != "" {
		t.Errorf("before anything was imported: %q", note)
	}
	i.failed.Store(&[]string{"page.tar.gz", "gone.tar"})
	if err := os.WriteFile(filepath.Join(i.dir, "page.tar.gz"), []byte("<html>404</html>"), 0o600); err != nil {
		t.Fatal(err)
	}
	if note, want := i.Note(), "not imported, the log shows why: page.tar.gz"; note != want {
		t.Errorf("%q, want %q", note, want)
	}
	i.failed.Store(&[]string{"gone.tar"})
	if note := i.Note(); note != "" {
		t.Errorf("the archive is not there any more: %q", note)
	}
}

// What lies in the directory as an archive does and is never imported was passed over
// without a word.
func TestOddArchivesAreNamed(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]string{
		"a.tar.bz2":      "archives must be named NAME.tar, NAME.tar.gz",
		"b.tar.xz":       "unpack or compress it accordingly",
		"c.TAR.GZ":       "or rename it",
		"d.tar.lz4":      "archives must be named",
		"e.zip":          "archives must be named",
		"f.gz":           "archives must be named",
		"g.tar":          "",
		"h.tgz":          "",
		"README.txt":     "",
		"SHA256SUMS":     "",
		"i.tar.part":     "", // being copied
		".j.tar.bz2.tmp": "",
		".k.tar.xz":      "",
		"l.tar.sha256":   "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, o := range listOdd(dir) {
			if o.name == name {
				found = true
				if want == "" || !strings.Contains(o.why.Error(), want) {
					t.Errorf("%s: %v", name, o.why)
				}
			}
		}
		if found != (want != "") {
			t.Errorf("%s: found: %t", name, found)
		}
	}
	if err := errors.Join(os.Symlink("/nowhere.tar", filepath.Join(dir, "link.tar")), os.Mkdir(filepath.Join(dir, "layout.tar"), 0o700), os.Symlink("g.tar", filepath.Join(dir, "good.tar"))); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range listOdd(dir) {
		got = append(got, o.name)
	}
	if want := "a.tar.bz2 b.tar.xz c.TAR.GZ d.tar.lz4 e.zip f.gz layout.tar link.tar"; strings.Join(got, " ") != want {
		t.Errorf("got %v", got)
	}
}

// reads is what containerd does with an archive: it reads it, as it comes, to its end.
func reads(data []byte) (err, refusal error) {
	c := check(bytes.NewReader(data))
	n, err := io.Copy(io.Discard, c)
	if err == nil && n != int64(len(data)) {
		err = fmt.Errorf("%d bytes of %d", n, len(data))
	}
	return err, c.refusal()
}

// Archives in the directory are not inspected before they are imported.
func TestArchivesAreCheckedInPassing(t *testing.T) {
	good := pack(t, docker("amd64", "a:1")...)
	big := entry{"manifest.json", "[" + strings.Repeat(" ", unpack.MaxDocument) + "]"}
	many := []entry{{"oci-layout", "{}"}}
	for n := range unpack.MaxEntries {
		many = append(many, entry{fmt.Sprint("blobs/", n), ""})
	}
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"good":             {good, ""},
		"good, gzip":       {gzipped(good), ""},
		"good, zstd":       {zstandard(good), ""},
		"followed by more": {append(bytes.Clone(good), make([]byte, 1<<20)...), ""},
		"many files":       {pack(t, many...), "more than 65536 files"},
		"many files, zstd": {zstandard(pack(t, many...)), "more than 65536 files"},
		"a huge manifest":  {pack(t, big), "manifest.json in it: an image descriptor has 4.2 MB, and may have"},
		"a huge index":     {gzipped(pack(t, entry{"./index.json", big.content})), "index.json in it"},
		"many images":      {pack(t, entry{"manifest.json", "[" + strings.Repeat("{},", 300_000) + "{}]"}), "has 300000 elements"},
		"cut":              {good[:3000], "it is incomplete"},
		"no archive":       {[]byte(strings.Repeat("hello\n", 1000)), "not an image archive"},
	} {
		err, refusal := reads(c.archive)
		if c.want == "" && (err != nil || refusal != nil) {
			t.Errorf("%s: %v, %v", name, err, refusal)
		}
		if c.want != "" && (err == nil || refusal == nil || !strings.Contains(refusal.Error(), c.want)) {
			t.Errorf("%s: %v, %v", name, err, refusal)
		}
	}
	// containerd ends before it has read all: its error counts.
	c := check(bytes.NewReader(good))
	if _, err := c.Read(make([]byte, 600)); err != nil || c.refusal() != nil {
		t.Errorf("got %v, %v", err, c.refusal())
	}
}
