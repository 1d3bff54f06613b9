package upgrade

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/install/backup"
	"lite.io/lite/pkg/install/release"
	"lite.io/lite/pkg/layout"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

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
	name := release.Program(runtime.GOARCH)
	gz := zipped(t, program)
	archive := packedFile{"images/a.tar", []byte("a")}
	sums := packedFile{release.SumsFile, []byte(sumOf(gz, name+".gz") + sumOf(program, name) + sumOf(archive.data, archive.name))}
	wrong := packedFile{release.SumsFile, []byte(sumOf([]byte("other"), name+".gz"))}
	wrongImages := packedFile{release.SumsFile, []byte(sumOf(gz, name+".gz") + sumOf([]byte("other"), archive.name))}
	text := func(content string) packedFile { return packedFile{release.SumsFile, []byte(content)} }
	for title, test := range map[string]struct {
		files    []packedFile
		artifact string // "" = the directory
		sum      string // --sha256
		want     string // part of the error
	}{
		"program without a sum":         {[]packedFile{{"x", program}}, "x", "", "--sha256"},
		"program, sum given":            {[]packedFile{{"x", program}}, "x", sumOf(program, "")[:64], ""},
		"program, sum in capitals":      {[]packedFile{{"x", program}}, "x", strings.ToUpper(sumOf(program, "")[:64]), ""},
		"program, wrong sum given":      {[]packedFile{{"x", program}}, "x", sumOf(gz, "")[:64], "wrong checksum"},
		"sum given for a bundle":        {[]packedFile{{"b.tar", bundle(t, sums, packedFile{name + ".gz", gz})}}, "b.tar", sumOf(gz, "")[:64], "only for a single program"},
		"program with its sum":          {[]packedFile{{name, program}, sums}, name, "", ""},
		"compressed":                    {[]packedFile{{name + ".gz", gz}, sums}, name + ".gz", "", ""},
		"compressed, sum of what is in": {[]packedFile{{name + ".gz", gz}, text(sumOf(program, name))}, name + ".gz", "", "does not name"},
		"compressed, wrong sum":         {[]packedFile{{name + ".gz", gz}, wrong}, name + ".gz", "", "download it again"},
		"compressed, cut off":           {[]packedFile{{"x.gz", gz[:len(gz)/2]}}, "x.gz", "", "it is incomplete"},
		"compressed, damaged":           {[]packedFile{{"x.gz", append(bytes.Clone(gz[:len(gz)-8]), 1, 2, 3, 4, 5, 6, 7, 8)}}, "x.gz", "", "copy it again"},
		"compressed, garbage behind it": {[]packedFile{{name + ".gz", append(bytes.Clone(gz), "garbage"...)}, sums}, name + ".gz", "", "copy it again"},
		"sums that are none":            {[]packedFile{{"x", program}, text("hello world\n")}, "x", "", "not a line of sha256sum"},
		"directory":                     {[]packedFile{{name + ".gz", gz}, sums}, "", "", ""},
		"directory, not compressed":     {[]packedFile{{name, program}, sums}, "", "", ""},
		"directory without sums":        {[]packedFile{{name, program}}, "", "", "there is no checksum for"},
		"directory with images":         {[]packedFile{{name + ".gz", gz}, sums, archive}, "", "", ""},
		"directory with wrong images":   {[]packedFile{{name + ".gz", gz}, wrongImages, archive}, "", "", "images/a.tar has the wrong checksum"},
		"directory for another machine": {[]packedFile{{"lite-linux-none.gz", gz}}, "", "", "another architecture"},
		"bundle":                        {[]packedFile{{"b.tar", bundle(t, packedFile{"install.sh", nil}, packedFile{name + ".gz", gz}, archive, sums)}}, "b.tar", "", ""},
		"bundle, sums first":            {[]packedFile{{"b.tar", bundle(t, sums, packedFile{"./" + name + ".gz", gz})}}, "b.tar", "", ""},
		"bundle without sums":           {[]packedFile{{"b.tar", bundle(t, packedFile{name + ".gz", gz})}}, "b.tar", "", "there is no checksum for"},
		"bundle without sums, they lie": {[]packedFile{{"b.tar", bundle(t, packedFile{name + ".gz", gz})}, sums}, "b.tar", "", "there is no checksum for"},
		"bundle with wrong sums":        {[]packedFile{{"b.tar", bundle(t, packedFile{name + ".gz", gz}, wrong)}}, "b.tar", "", "download it again"},
		"bundle with wrong images":      {[]packedFile{{"b.tar", bundle(t, packedFile{name + ".gz", gz}, archive, wrongImages)}}, "b.tar", "", "images/a.tar has the wrong checksum"},
		"bundle, images without a sum":  {[]packedFile{{"b.tar", bundle(t, packedFile{name + ".gz", gz}, packedFile{"images/b.tar", nil}, sums)}}, "b.tar", "", "does not name images/b.tar"},
		"bundle, two programs":          {[]packedFile{{"b.tar", bundle(t, sums, packedFile{name + ".gz", gz}, packedFile{name + ".gz", zipped(t, []byte("evil"))})}}, "b.tar", "", "in it twice"},
		"bundle for another machine":    {[]packedFile{{"b.tar", bundle(t, packedFile{"lite-linux-none.gz", gz})}}, "b.tar", "", "another architecture"},
		"bundle, cut off":               {[]packedFile{{"b.tar", bundle(t, packedFile{"images/a.tar", program}, packedFile{name + ".gz", gz})[:2048]}}, "b.tar", "", "it is incomplete"},
		"something else":                {[]packedFile{{"x", []byte("hello")}}, "x", "", "neither"},
		"sums that do not name it":      {[]packedFile{{"x", program}, sums}, "x", "", "does not name x"},
		"nothing":                       {nil, "x", "", "no such file"},
		"empty":                         {[]packedFile{{"x", nil}}, "x", "", "neither"},
		"sums by sha256sum in binary":   {[]packedFile{{name, program}, text(strings.Replace(sumOf(program, name), "  ", " *", 1))}, name, "", ""},
		"sums in capital letters":       {[]packedFile{{name, program}, text(strings.ToUpper(sumOf(program, "")[:64]) + "  " + name + "\r\n")}, name, "", ""},
	} {
		t.Run(title, func(t *testing.T) {
			dir, to := t.TempDir(), filepath.Join(t.TempDir(), "program")
			for _, f := range test.files {
				put(t, filepath.Join(dir, f.name), string(f.data))
			}
			tr, err := newTrust(Options{SHA256: test.sum}, "/nowhere")
			if err != nil {
				t.Fatal(err)
			}
			_, err = stage(t.Context(), filepath.Join(dir, test.artifact), to, tr)
			says(t, err, test.want)
			if err != nil {
				return
			}
			if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, program) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("its mode is %v", info.Mode())
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "b.tar")
		put(t, path, string(bundle(t, sums, packedFile{name + ".gz", gz})))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := stage(ctx, path, filepath.Join(t.TempDir(), "program"), trust{})
		says(t, err, "interrupted")
	})
	t.Run("pipe", func(t *testing.T) {
		pipe := filepath.Join(t.TempDir(), "pipe")
		if err := unix.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := stage(t.Context(), pipe, filepath.Join(t.TempDir(), "program"), trust{})
		says(t, err, "neither a file nor a directory")
	})
}

// signer makes a key as openssl does, puts its public half into a file and signs.
func signer(t *testing.T) (public string, sign func([]byte) []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public = filepath.Join(t.TempDir(), "public.pem")
	put(t, public, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	return public, func(data []byte) []byte {
		hash := sha256.Sum256(data)
		signature, err := ecdsa.SignASN1(rand.Reader, key, hash[:])
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
}

// Once a key is known, by the user or by the installer, what is not signed with it is
// refused, however it comes.
func TestStageSigned(t *testing.T) {
	public, sign := signer(t)
	_, other := signer(t)
	name := release.Packed(runtime.GOARCH)
	gz := zipped(t, program)
	sums := []byte(sumOf(gz, name))
	for form, write := range map[string]func(t *testing.T, files ...packedFile) string{
		"directory": func(t *testing.T, files ...packedFile) string {
			dir := t.TempDir()
			for _, f := range files {
				put(t, filepath.Join(dir, f.name), string(f.data))
			}
			return dir
		},
		"file": func(t *testing.T, files ...packedFile) string {
			dir := t.TempDir()
			for _, f := range files {
				put(t, filepath.Join(dir, f.name), string(f.data))
			}
			return filepath.Join(dir, name)
		},
		"bundle": func(t *testing.T, files ...packedFile) string {
			path := filepath.Join(t.TempDir(), "b.tar")
			put(t, path, string(bundle(t, files...)))
			return path
		},
	} {
		for title, test := range map[string]struct {
			sums, signature []byte
			want            string
		}{
			"signed":                  {sums, sign(sums), ""},
			"not signed":              {sums, nil, "is not signed, and must be"},
			"by another":              {sums, other(sums), "is not signed with the key"},
			"something else":          {sums, sign([]byte("else")), "is not signed with the key"},
			"signed, but not of this": {[]byte(sumOf(program, name)), sign([]byte(sumOf(program, name))), "wrong checksum"},
		} {
			t.Run(form+", "+title, func(t *testing.T) {
				files := []packedFile{{name, gz}, {release.SumsFile, test.sums}}
				if test.signature != nil {
					files = append(files, packedFile{release.SignatureFile, test.signature})
				}
				for _, o := range []Options{{PublicKey: public}, {}} { // given, and remembered
					tr, err := newTrust(o, public)
					if err != nil {
						t.Fatal(err)
					}
					_, err = stage(t.Context(), write(t, files...), filepath.Join(t.TempDir(), "program"), tr)
					says(t, err, test.want)
				}
			})
		}
	}
	t.Run("a sum given", func(t *testing.T) {
		_, err := newTrust(Options{SHA256: sumOf(gz, "")[:64]}, public)
		says(t, err, "not signed")
	})
	t.Run("a key that is none", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "key")
		put(t, file, "hello")
		_, err := newTrust(Options{}, file)
		says(t, err, "contains no key")
	})
	t.Run("none", func(t *testing.T) {
		tr, err := newTrust(Options{PublicKey: "none", SHA256: sumOf(gz, "")[:64]}, public)
		if err != nil || tr.key != nil {
			t.Errorf("the remembered key is asked for: %v", err)
		}
	})
	t.Run("from the environment", func(t *testing.T) {
		t.Setenv(KeyVariable, public)
		tr, err := newTrust(Options{}, "/nowhere")
		if err != nil || tr.key == nil {
			t.Errorf("no key, %v", err)
		}
	})
}

func TestImagesOfABundle(t *testing.T) {
	file, data := filepath.Join(t.TempDir(), "bundle.tar"), layout.Data(t.TempDir())
	dir, making := data.Agent().Images(), &backup.Maker{DataDir: string(data), Backup: backup.Backup{Binary: file}}
	files := []packedFile{{"images/a.tar", []byte("a")}, {"./images/b.tar.zst", []byte("b")}, {"images/../../c.tar", []byte("c")},
		{"images/deep/d.tar", []byte("d")}, {"images/e.tar.gz", []byte("e")}, {release.Packed(runtime.GOARCH), zipped(t, program)}}
	sums := ""
	for _, f := range files {
		sums += sumOf(f.data, f.name)
	}
	put(t, file, string(bundle(t, append(files, packedFile{release.SumsFile, []byte(sums)})...)))
	must(t, making.Begin())
	put(t, filepath.Join(dir, "b.tar.zst"), "x") // the same size, and something else
	put(t, filepath.Join(dir, "mine.tar"), "mine")
	c, err := stage(t.Context(), file, filepath.Join(t.TempDir(), "program"), trust{})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.toUnpack(dir); got != 2 {
		t.Errorf("%d bytes are to be unpacked", got)
	}
	var noted []string
	note := func(name string) error { noted = append(noted, name); return nil }
	for range 2 {
		if err := extractImages(file, c, dir, making.KeepImage, note); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(noted) != "[a.tar b.tar.zst e.tar.gz]" {
		t.Errorf("unpacked %v", noted)
	}
	holds := func(want map[string]string) {
		t.Helper()
		found, err := os.ReadDir(dir)
		if err != nil || len(found) != len(want) {
			t.Errorf("got %v, %v", found, err)
		}
		for name, text := range want {
			if got := content(t, filepath.Join(dir, name)); got != text {
				t.Errorf("%s holds %q, want %q", name, got, text)
			}
		}
	}
	holds(map[string]string{"a.tar": "a", "b.tar.zst": "b", "e.tar.gz": "e", "mine.tar": "mine"})

	// Changed after it was looked at.
	put(t, file, string(bundle(t, packedFile{"images/a.tar", []byte("z")})))
	put(t, filepath.Join(dir, "a.tar"), "old")
	says(t, extractImages(file, c, dir, func(string, string) error { return nil }, func(string) error { return nil }), "wrong checksum")
	put(t, filepath.Join(dir, "a.tar"), "a")

	for range 2 { // it may be interrupted
		if err := backup.RemoveImages(string(data), noted); err != nil {
			t.Fatal(err)
		}
	}
	holds(map[string]string{"b.tar.zst": "x", "mine.tar": "mine"})
}

// server serves a release. handle, if not nil, comes before.
func server(t *testing.T, handle func(http.ResponseWriter, *http.Request) bool) (base string) {
	t.Helper()
	gz := zipped(t, program)
	files := map[string][]byte{
		"/channels/stable": []byte("v1.2.3\n"), "/channels/odd": []byte("<html>\n"),
		"/v1.2.3/SHA256SUMS": []byte(sumOf(gz, release.Program(runtime.GOARCH)+".gz")),
		"/v1.2.3/" + release.Program(runtime.GOARCH) + ".gz": gz,
		"/v1.2.4/SHA256SUMS": []byte(sumOf([]byte("other"), release.Program(runtime.GOARCH)+".gz")),
		"/v1.2.4/" + release.Program(runtime.GOARCH) + ".gz": gz,
		"/v1.2.5/SHA256SUMS": []byte(sumOf(gz, "lite-linux-none.gz")),
		"/v1.2.6/" + release.Program(runtime.GOARCH) + ".gz":        gz,
		"/deep/base/channels/stable":                                []byte("v1.2.3"),
		"/deep/base/v1.2.3/SHA256SUMS":                              []byte(sumOf(gz, release.Program(runtime.GOARCH)+".gz")),
		"/deep/base/v1.2.3/lite-linux-amd64.gz":                     gz,
		"/deep/base/v1.2.3/lite-linux-arm64.gz":                     gz,
		"/deep/base/v1.2.3/" + release.Program(runtime.GOARCH) + "": program,
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
	tr, err := newTrust(o, "/nowhere")
	if err != nil {
		return nil, err
	}
	r, err := find(t.Context(), o, tr, nil)
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
	public, sign := signer(t)
	other, _ := signer(t)
	base := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		rest, signed := strings.CutPrefix(r.URL.Path, "/signed")
		switch {
		case strings.HasPrefix(r.URL.Path, "/elsewhere"):
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		case rest == "/v1.2.3/"+release.SignatureFile && signed:
			_, _ = w.Write(sign([]byte(sumOf(zipped(t, program), release.Packed(runtime.GOARCH)))))
		case signed:
			http.Redirect(w, r, rest, http.StatusFound)
		default:
			return false
		}
		return true
	})
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"channel":           {Options{BaseURL: base, Channel: Stable}, ""},
		"version":           {Options{BaseURL: base, Version: "v1.2.3"}, ""},
		"slash at the end":  {Options{BaseURL: base + "/deep/base/", Channel: Stable}, ""},
		"no such channel":   {Options{BaseURL: base, Channel: "none"}, "404"},
		"odd channel":       {Options{BaseURL: base, Channel: "odd"}, "not a version"},
		"no such version":   {Options{BaseURL: base, Version: "v9.9.9"}, "404"},
		"odd version":       {Options{BaseURL: base, Version: "../x"}, "must be a version"},
		"wrong sum":         {Options{BaseURL: base, Version: "v1.2.4"}, "download it again"},
		"not for this kind": {Options{BaseURL: base, Version: "v1.2.5"}, "not released for this architecture"},
		"no sums":           {Options{BaseURL: base, Version: "v1.2.6"}, "checksums"},
		"no address":        {Options{BaseURL: "somewhere", Channel: Stable}, "must be an address"},
		"nothing said":      {Options{Channel: Stable}, "--base-url"},
		"signed":            {Options{BaseURL: base + "/signed", Channel: Stable, PublicKey: public}, ""},
		"not signed":        {Options{BaseURL: base, Channel: Stable, PublicKey: public}, "is not signed, and must be"},
		"signed by another": {Options{BaseURL: base + "/signed", Channel: Stable, PublicKey: other}, "is not signed with the key"},
		"not encrypted":     {Options{BaseURL: "http://192.0.2.1", Channel: Stable}, "not encrypted"},
		"sent elsewhere":    {Options{BaseURL: base + "/elsewhere", Channel: Stable}, "redirects to http://192.0.2.1/"},
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

// An interrupted download resumes where the server supports that, and restarts where it
// does not.
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
