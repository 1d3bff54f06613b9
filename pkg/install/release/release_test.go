package release

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

func says(t *testing.T, err error, words string) {
	t.Helper()
	switch {
	case words == "" && err != nil:
		t.Errorf("refused: %v", err)
	case words != "" && (err == nil || !strings.Contains(err.Error(), words)):
		t.Errorf("got %v, want an error with %q", err, words)
	}
}

func TestParseSums(t *testing.T) {
	const a, b = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
	for text, want := range map[string]string{
		"":                                    "map[]",
		a + "  x\n" + b + " *y\n":             "map[x:" + a + " y:" + strings.ToLower(b) + "]",
		a + "  ./x\r\n\r\n":                   "map[x:" + a + "]",
		a + "  x y\n":                         "map[x y:" + a + "]",
		a + "  x":                             "map[x:" + a + "]",
		a + "   x\n" + a + "  ././y\n":        "map[ x:" + a + " y:" + a + "]",
		a + "  x\ry\n":                        "error: not a line of sha256sum",
		a + "  \n":                            "error: not a line of sha256sum",
		a + "  x\n" + a + "  x\n":             "map[x:" + a + "]",
		a + "  x\n" + b + "  x\n":             "error: names x twice",
		a[:63] + "  x\n":                      "error: not a line of sha256sum",
		a:                                     "error: not a line of sha256sum",
		"<!DOCTYPE html>\n":                   "error: not a line of sha256sum",
		strings.Repeat("<html>", 1000) + "\n": "error: …",
	} {
		s, err := ParseSums([]byte(text))
		if words, ok := strings.CutPrefix(want, "error: "); ok {
			says(t, err, words)
		} else if got := fmt.Sprint(s); err != nil || got != want {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
	_, err := ReadSums(io.LimitReader(zeros{}, 2*maxSums))
	says(t, err, "it has more than")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A megabyte that gzip has compressed is a gigabyte of zeros.
func TestProgramThatIsABomb(t *testing.T) {
	unpacked := func(size int64) error {
		r, w := io.Pipe()
		go func() {
			z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
			_, err := io.CopyN(z, zeros{}, size)
			w.CloseWithError(errors.Join(err, z.Close()))
		}()
		defer r.Close()
		program, err := Unpack(r)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, program)
		return err
	}
	says(t, unpacked(1<<20), "")
	says(t, unpacked(maxProgram+1), "it unpacks to more than 1.07 GB")
}

func TestBundleOfMillionsOfFiles(t *testing.T) {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		for n := 0; ; n++ {
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("images/", n, ".tar")}); err != nil {
				return // nobody reads any further
			}
		}
	}()
	defer r.Close()
	says(t, ReadBundle(r, func(*tar.Header, io.Reader) error { return nil }), "it contains more than 65536 files, and no bundle of lite has")
}

// Verify accepts what openssl signs as the documents describe.
func TestVerifyWhatOpenSSLHasSigned(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	dir := t.TempDir()
	run := func(command string) {
		t.Helper()
		c := exec.Command("sh", "-ec", command)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	run("echo sums >SHA256SUMS; openssl ecparam -name prime256v1 -genkey -out other.pem 2>/dev/null; openssl dgst -sha256 -sign other.pem -out other.sig SHA256SUMS")
	for name, makes := range map[string]string{
		"RSA":                        "openssl genrsa -out key.pem 2048 2>/dev/null; openssl rsa -in key.pem -pubout -out public.pem 2>/dev/null",
		"RSA, as PKCS 1":             "openssl genrsa -out key.pem 2048 2>/dev/null; openssl rsa -in key.pem -RSAPublicKey_out -out public.pem 2>/dev/null",
		"P-256":                      "openssl ecparam -name prime256v1 -genkey -noout -out key.pem; openssl ec -in key.pem -pubout -out public.pem 2>/dev/null",
		"P-384, parameters and text": "openssl ecparam -name secp384r1 -genkey -out key.pem; { echo 'Key of ours'; openssl ecparam -name secp384r1; openssl ec -in key.pem -pubout 2>/dev/null; } >public.pem",
	} {
		t.Run(name, func(t *testing.T) {
			run(makes + "; openssl dgst -sha256 -sign key.pem -out SHA256SUMS.sig SHA256SUMS")
			key, err := ReadKey(filepath.Join(dir, "public.pem"))
			if err != nil {
				t.Fatal(err)
			}
			says(t, key.Verify(read("SHA256SUMS"), read("SHA256SUMS.sig")), "")
			says(t, key.Verify(append(read("SHA256SUMS"), '\n'), read("SHA256SUMS.sig")), "not signed with the key in "+dir)
			says(t, key.Verify(read("SHA256SUMS"), read("other.sig")), "not signed with the key")
			says(t, key.Verify(read("SHA256SUMS"), nil), "not signed with the key")
			_, err = ReadKey(filepath.Join(dir, "key.pem"))
			says(t, err, "is a private key")
		})
	}
	t.Run("another kind", func(t *testing.T) {
		run("openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out public.pem")
		_, err := ReadKey(filepath.Join(dir, "public.pem"))
		says(t, err, "must be an RSA or EC key")
	})
}

// head is the beginning of a program.
func head(machine uint16) []byte {
	p := make([]byte, 4000)
	copy(p, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(p[18:], machine)
	return p
}

func TestPrograms(t *testing.T) {
	says(t, CheckHead(bytes.NewReader(head(62)), "amd64"), "")
	says(t, CheckHead(bytes.NewReader(head(183)), "arm64"), "")
	says(t, CheckHead(bytes.NewReader(head(183)), "amd64"), "an architecture other than amd64 (EM_AARCH64)")
	says(t, CheckHead(bytes.NewReader(head(62)[:10]), "amd64"), "not a program for Linux")
	says(t, CheckHead(strings.NewReader("#!/bin/sh\nexec something else\n"), "amd64"), "not a program for Linux")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	arch, _ := ArchOf(Packed(architecture(t, self)))
	for at, words := range map[int]string{len(self): "", len(self) - 1: "it is incomplete", len(self) / 2: "it is incomplete", 30: "it is incomplete"} {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, self[:at], 0o600); err != nil {
			t.Fatal(err)
		}
		says(t, CheckProgram(path, arch), words)
	}
}

func architecture(t *testing.T, program []byte) string {
	t.Helper()
	for _, arch := range Architectures() {
		if CheckHead(bytes.NewReader(program), arch) == nil {
			return arch
		}
	}
	t.Skip("the tests run on another architecture")
	return ""
}

// Whatever is in a tar, nothing but files at their places gets to a caller.
func TestPartsOfABundle(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "./images/", Typeflag: tar.TypeDir}, {Name: "images/a.tar", Size: 1}, {Name: "images/deep/b.tar"}, {Name: "images/../../c"}, {Name: "/etc/passwd"},
		{Name: "images/link.tar", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}, {Name: "./" + Packed("arm64")}, {Name: Packed("amd64")}, {Name: "SHA256SUMS"}, {Name: "./SHA256SUMS.sig"},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "b.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Open(path, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := a.Each(func(p Part) error { got = append(got, fmt.Sprint(p.Kind, " ", p.Name)); return nil }); err != nil {
		t.Fatal(err)
	}
	want := []string{"3 images/a.tar", "2 " + Packed("amd64"), "0 SHA256SUMS", "1 SHA256SUMS.sig"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A statement has to match SHA256SUMS, and to be about the program.
func TestStatements(t *testing.T) {
	program := strings.Repeat("ab", 32)
	right := []byte("{\n  \"sha256\": \"" + program + "\",\n  \"gitCommit\": \"0123abc\",\n}\n")
	odd := []byte(`"gitCommit": "\x1b[2J" "` + program + `"`)
	sums := Sums{SumsFile: program, Program("amd64"): program, "lite-v1.cdx.json": hashOf(odd), "lite-v1.provenance.json": hashOf(right), "lite-../x.cdx.json": program, "other.cdx.json": program}
	parsed, err := ParseSums(sums.Text())
	if err != nil || fmt.Sprint(parsed.Statements()) != "[lite-v1.cdx.json lite-v1.provenance.json]" {
		t.Errorf("got %v, %v", parsed.Statements(), err)
	}
	for _, c := range []struct {
		name, program string
		text          []byte
		commit, want  string
	}{
		{"lite-v1.provenance.json", program, right, "0123abc", ""},
		{"lite-v1.cdx.json", program, odd, "", ""}, // what is no commit is not shown
		{"lite-v1.provenance.json", strings.Repeat("cd", 32), right, "", "is about a program other than"},
		{"lite-v1.provenance.json", program, odd, "", "has the wrong checksum"},
		{"lite-v2.cdx.json", program, right, "", "does not name lite-v2.cdx.json"},
	} {
		commit, err := parsed.CheckStatement(c.name, c.text, c.program)
		if commit != c.commit || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %q, %v", c.name, commit, err)
		}
	}
}

func hashOf(text []byte) string { return fmt.Sprintf("%x", sha256.Sum256(text)) }
