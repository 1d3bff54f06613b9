package upgrade

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program is not one, but begins like one.
var program = append([]byte("\x7fELF"), bytes.Repeat([]byte("lite "), 100_000)...)

func zipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sumOf(data []byte, name string) string {
	return fmt.Sprintf("%x  %s\n", sha256.Sum256(data), name)
}

type packedFile struct {
	name string
	data []byte
}

func bundle(t *testing.T, files ...packedFile) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestStage(t *testing.T) {
	name := programName()
	gz := zipped(t, program)
	sums := packedFile{sumsFile, []byte(sumOf(gz, name+".gz") + sumOf(program, name))}
	wrong := packedFile{sumsFile, []byte(sumOf([]byte("other"), name+".gz"))}
	for title, test := range map[string]struct {
		files    []packedFile
		artifact string // "" = the directory
		checked  bool
		want     string // what the error says
	}{
		"program":                         {[]packedFile{{"x", program}}, "x", false, ""},
		"program with its sum":            {[]packedFile{{name, program}, sums}, name, true, ""},
		"compressed":                      {[]packedFile{{"x.gz", gz}}, "x.gz", false, ""},
		"compressed with sums":            {[]packedFile{{name + ".gz", gz}, sums}, name + ".gz", true, ""},
		"compressed, sum of what is in":   {[]packedFile{{name + ".gz", gz}, {sumsFile, []byte(sumOf(program, name))}}, name + ".gz", true, ""},
		"compressed, wrong sum":           {[]packedFile{{name + ".gz", gz}, wrong}, name + ".gz", true, "get it again"},
		"compressed, cut off":             {[]packedFile{{"x.gz", gz[:len(gz)/2]}}, "x.gz", false, "cut off"},
		"compressed, damaged":             {[]packedFile{{"x.gz", append(bytes.Clone(gz[:len(gz)-8]), 1, 2, 3, 4, 5, 6, 7, 8)}}, "x.gz", false, "get it again"},
		"sums that are none":              {[]packedFile{{"x", program}, {sumsFile, []byte("hello world\n")}}, "x", false, "no line of sha256sum"},
		"directory":                       {[]packedFile{{name + ".gz", gz}, sums}, "", true, ""},
		"directory, not compressed":       {[]packedFile{{name, program}, sums}, "", true, ""},
		"directory for another machine":   {[]packedFile{{"lite-linux-none.gz", gz}}, "", false, "another kind of machine"},
		"bundle":                          {[]packedFile{{"b.tar", bundle(t, packedFile{"install.sh", nil}, packedFile{name + ".gz", gz}, sums)}}, "b.tar", true, ""},
		"bundle, sums first":              {[]packedFile{{"b.tar", bundle(t, sums, packedFile{"./" + name + ".gz", gz})}}, "b.tar", true, ""},
		"bundle without sums":             {[]packedFile{{"b.tar", bundle(t, packedFile{name + ".gz", gz})}}, "b.tar", false, ""},
		"bundle with wrong sums":          {[]packedFile{{"b.tar", bundle(t, packedFile{name + ".gz", gz}, wrong)}}, "b.tar", true, "get it again"},
		"bundle for another machine":      {[]packedFile{{"b.tar", bundle(t, packedFile{"lite-linux-none.gz", gz})}}, "b.tar", false, "another kind of machine"},
		"bundle, cut off":                 {[]packedFile{{"b.tar", bundle(t, packedFile{"images/a.tar", program}, packedFile{name + ".gz", gz})[:2048]}}, "b.tar", false, "cut off"},
		"something else":                  {[]packedFile{{"x", []byte("hello")}}, "x", false, "neither"},
		"sums that do not name it":        {[]packedFile{{"x", program}, sums}, "x", false, ""},
		"nothing":                         {nil, "x", false, "no such file"},
		"empty":                           {[]packedFile{{"x", nil}}, "x", false, "x"},
		"sums by sha256sum in binary":     {[]packedFile{{name, program}, {sumsFile, []byte(strings.Replace(sumOf(program, name), "  ", " *", 1))}}, name, true, ""},
		"sums in capital letters are too": {[]packedFile{{name, program}, {sumsFile, []byte(strings.ToUpper(sumOf(program, "")[:64]) + "  " + name + "\n")}}, name, true, ""},
	} {
		t.Run(title, func(t *testing.T) {
			dir, to := t.TempDir(), filepath.Join(t.TempDir(), "program")
			for _, f := range test.files {
				if err := os.WriteFile(filepath.Join(dir, f.name), f.data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			checked, err := stage(filepath.Join(dir, test.artifact), to)
			says(t, err, test.want)
			if err != nil {
				return
			}
			if checked != test.checked {
				t.Errorf("checked: %v", checked)
			}
			if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, program) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("its mode is %v", info.Mode())
			}
		})
	}
}

func TestImagesOfABundle(t *testing.T) {
	file, dir := filepath.Join(t.TempDir(), "bundle.tar"), filepath.Join(t.TempDir(), "images")
	data := bundle(t, packedFile{"images/a.tar", []byte("a")}, packedFile{"./images/b.tar.zst", []byte("b")}, packedFile{"images/../../c.tar", []byte("c")},
		packedFile{"images/deep/d.tar", []byte("d")}, packedFile{"images/readme", []byte("e")}, packedFile{programName() + ".gz", zipped(t, program)})
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if !isBundle(file) {
		t.Error("a bundle is not known for one")
	}
	said := 0
	for range 2 {
		if err := extractImages(file, dir, func(string) { said++ }); err != nil {
			t.Fatal(err)
		}
	}
	if said != 2 {
		t.Errorf("unpacked %d times", said)
	}
	found, err := os.ReadDir(dir)
	if err != nil || len(found) != 2 || content(t, filepath.Join(dir, "a.tar")) != "a" || content(t, filepath.Join(dir, "b.tar.zst")) != "b" {
		t.Errorf("got %v, %v", found, err)
	}
}

// server serves a release. handle, if not nil, comes before.
func server(t *testing.T, handle func(http.ResponseWriter, *http.Request) bool) (base string) {
	t.Helper()
	gz := zipped(t, program)
	files := map[string][]byte{
		"/channels/stable": []byte("v1.2.3\n"), "/channels/odd": []byte("<html>\n"),
		"/v1.2.3/SHA256SUMS":                      []byte(sumOf(gz, programName()+".gz")),
		"/v1.2.3/" + programName() + ".gz":        gz,
		"/v1.2.4/SHA256SUMS":                      []byte(sumOf([]byte("other"), programName()+".gz")),
		"/v1.2.4/" + programName() + ".gz":        gz,
		"/v1.2.5/SHA256SUMS":                      []byte(sumOf(gz, "lite-linux-none.gz")),
		"/v1.2.6/" + programName() + ".gz":        gz,
		"/deep/base/channels/stable":              []byte("v1.2.3"),
		"/deep/base/v1.2.3/SHA256SUMS":            []byte(sumOf(gz, programName()+".gz")),
		"/deep/base/v1.2.3/lite-linux-amd64.gz":   gz,
		"/deep/base/v1.2.3/lite-linux-arm64.gz":   gz,
		"/deep/base/v1.2.3/" + programName() + "": program,
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handle != nil && handle(w, r) {
			return
		}
		data, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// quietly keeps the log away from the test's.
func quietly(t *testing.T) {
	t.Helper()
	was := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(was) })
}

func fetch(t *testing.T, o Options) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	r, err := find(t.Context(), o, nil)
	if err != nil {
		return nil, err
	}
	to := filepath.Join(dir, "program")
	if err := r.stage(t.Context(), filepath.Join(dir, "download"), to, func(string) {}); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(dir, "download")); err == nil {
		t.Error("the download was left behind")
	}
	return os.ReadFile(to)
}

func TestDownload(t *testing.T) {
	base := server(t, nil)
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"channel":           {Options{BaseURL: base, Channel: Stable}, ""},
		"version":           {Options{BaseURL: base, Version: "v1.2.3"}, ""},
		"slash at the end":  {Options{BaseURL: base + "/deep/base/", Channel: Stable}, ""},
		"no such channel":   {Options{BaseURL: base, Channel: "none"}, "404"},
		"odd channel":       {Options{BaseURL: base, Channel: "odd"}, "no version"},
		"no such version":   {Options{BaseURL: base, Version: "v9.9.9"}, "404"},
		"odd version":       {Options{BaseURL: base, Version: "../x"}, "must be a version"},
		"wrong sum":         {Options{BaseURL: base, Version: "v1.2.4"}, "get it again"},
		"not for this kind": {Options{BaseURL: base, Version: "v1.2.5"}, "not released for this kind"},
		"no sums":           {Options{BaseURL: base, Version: "v1.2.6"}, "checksums"},
		"no address":        {Options{BaseURL: "somewhere", Channel: Stable}, "must be an address"},
		"nothing said":      {Options{Channel: Stable}, "--base-url"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(BaseURLVariable, "")
			got, err := fetch(t, test.options)
			says(t, err, test.want)
			if err == nil && !bytes.Equal(got, program) {
				t.Errorf("got %d bytes", len(got))
			}
		})
	}
	t.Run("address from the environment", func(t *testing.T) {
		t.Setenv(BaseURLVariable, base)
		if got, err := fetch(t, Options{Channel: Stable}); err != nil || !bytes.Equal(got, program) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
}

// A download that breaks off goes on where the server can do that, and begins
// anew where it cannot.
func TestDownloadThatBreaksOff(t *testing.T) {
	for name, plain := range map[string]bool{"with ranges": false, "without ranges": true} {
		t.Run(name, func(t *testing.T) {
			gz := zipped(t, program)
			var ranges []string
			base := server(t, func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, ".gz") {
					return false
				}
				ranges = append(ranges, r.Header.Get("Range"))
				if len(ranges) == 1 {
					w.Header().Set("Content-Length", fmt.Sprint(len(gz)))
					w.Header().Set("Last-Modified", time.Unix(1, 0).UTC().Format(http.TimeFormat))
					_, _ = w.Write(gz[:len(gz)/2])
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}
				if plain {
					_, _ = w.Write(gz)
				}
				return plain
			})
			got, err := fetch(t, Options{BaseURL: base, Channel: Stable})
			if err != nil || !bytes.Equal(got, program) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if len(ranges) != 2 || ranges[1] == "" {
				t.Errorf("asked for the ranges %q", ranges)
			}
		})
	}
}

func TestFree(t *testing.T) {
	says(t, checkFree("/data", 300<<20, 10<<20), "")
	says(t, checkFree("/data", 300<<20, 100<<20), "300 MiB are free and 328 MiB are needed")
}

func TestCopyTree(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	write := func(dir, name, text string, age time.Duration) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(from, "old", "old", time.Hour)
	write(from, "dir/busy", "busy", 0)
	write(from, "goes", "goes", time.Hour)
	if err := os.Symlink("old", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(from, to, true); err != nil {
		t.Fatal(err)
	}
	if got := content(t, filepath.Join(to, "old")); got != "old" {
		t.Errorf("old: %q", got)
	}
	if _, err := os.Lstat(filepath.Join(to, "dir", "busy")); err == nil {
		t.Error("a file that may be written to was copied early")
	}
	if err := os.Remove(filepath.Join(from, "goes")); err != nil {
		t.Fatal(err)
	}
	write(from, "dir/busy", "busier", 0)
	sparse := filepath.Join(from, "sparse")
	write(from, "sparse", "head", time.Hour)
	if err := os.Truncate(sparse, 64<<20); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := copyTree(from, to, false); err != nil {
			t.Fatal(err)
		}
	}
	if got := content(t, filepath.Join(to, "dir", "busy")); got != "busier" {
		t.Errorf("busy: %q", got)
	}
	if _, err := os.Lstat(filepath.Join(to, "goes")); err == nil {
		t.Error("what is gone was kept")
	}
	if target, err := os.Readlink(filepath.Join(to, "link")); target != "old" {
		t.Errorf("link: %q, %v", target, err)
	}
	info, err := os.Stat(filepath.Join(to, "sparse"))
	if err != nil || info.Size() != 64<<20 || info.Mode() != 0o600 {
		t.Fatalf("sparse: %v, %v", info, err)
	}
	if room := sizeOf(filepath.Join(to, "sparse")); room > 1<<20 {
		t.Errorf("64 MiB with a hole take %d bytes", room)
	}
	if got := content(t, filepath.Join(to, "sparse"))[:5]; got != "head\x00" {
		t.Errorf("sparse begins with %q", got)
	}
}
