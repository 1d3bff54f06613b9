package release

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/fuzz"
)

// What sha256sum would write of sums that were read is read as the same; what is refused is named in one short line.
func FuzzSums(f *testing.F) {
	a, b := strings.Repeat("a", 64), strings.Repeat("B", 64)
	for _, seed := range []string{
		"", a + "  lite-linux-amd64.gz\n" + b + " *images/a.tar\n", a + "  ./x\r\n\r\n", a + "  x y\n", a + "  x\n" + b + "  x\n",
		a, a + " \n", "<!DOCTYPE html>\n", a + "  x\x00y\n", "\\" + a + "  a\\nb\n", a + "  \xff\n", a + "   * x\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sums, err := ParseSums(data)
		if err != nil {
			fuzz.OneLine(t, err)
			if !strings.Contains(err.Error(), SumsFile) || len(err.Error()) > len(data)+100 && len(err.Error()) > 1000 {
				t.Errorf("the error does not say what is wrong: %v", err)
			}
			return
		}
		var text strings.Builder
		for _, name := range slices.Sorted(maps.Keys(sums)) {
			if hash := sums[name]; len(hash) != 64 || hash != strings.ToLower(hash) {
				t.Errorf("the sum of %q is %q", name, hash)
			}
			if sums.Check(name, sums[name]) != nil || sums.Check(name, strings.Repeat("0", 63)+"x") == nil || sums.Check(name, "") == nil {
				t.Errorf("%q is not checked", name)
			}
			fmt.Fprintf(&text, "%s  %s\n", sums[name], name)
		}
		if again, err := ParseSums([]byte(text.String())); err != nil || !maps.Equal(again, sums) {
			t.Errorf("%q was read as %q, and that as %q, %v", data, sums, again, err)
		}
	})
}

// Anybody may have made a bundle: its image archives stay in their directory, nothing is in it twice, and reading takes
// no more memory than it has bytes.
func FuzzBundle(f *testing.F) {
	packed := func(names ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range names {
			if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(name)), Mode: 0o600}); err != nil {
				f.Fatal(err)
			}
			if _, err := io.WriteString(w, name); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	whole := packed(SumsFile, SignatureFile, "images/a.tar", Packed("amd64"))
	for _, seed := range [][]byte{nil, whole, whole[:700], packed("images/../../x", "images/.."), packed("./images/a.tar", "images/a.tar"), packed("images//a", "/images/a")} {
		f.Add(seed, "images/b.tar", "images/../c")
	}
	f.Add([]byte(nil), "images/..\x00", "images/\n")
	f.Fuzz(func(t *testing.T, data []byte, first, second string) {
		checkBundle(t, data)
		// Few of the changes that a fuzzer makes to a tar leave its checksums right.
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range []string{first, second} {
			if w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 1, Mode: 0o600}) != nil {
				return
			}
			if _, err := w.Write([]byte("x")); err != nil {
				return
			}
		}
		if w.Close() == nil {
			checkBundle(t, b.Bytes())
		}
	})
}

func checkBundle(t *testing.T, data []byte) {
	path := filepath.Join(t.TempDir(), "bundle.tar")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	fuzz.AllocatesAtMost(t, 16+uint64(len(data))/1024, func() {
		artifact := Artifact{path, "amd64", bundle}
		err := artifact.Each(func(p Part) error {
			kinds = append(kinds, p.Name)
			archive := strings.TrimPrefix(p.Name, ImageDir)
			if p.Kind == Images && (filepath.Base(archive) != archive || archive == ".." || strings.ContainsAny(archive, "\x00/")) {
				t.Errorf("the archive %q would not be in its directory", archive)
			}
			_, err := io.Copy(io.Discard, p)
			return err
		})
		if err != nil {
			if text := err.Error(); !strings.HasPrefix(text, "bundle "+path+": ") {
				t.Errorf("the error does not name the bundle: %s", text)
			}
		}
	})
	slices.Sort(kinds)
	if len(slices.Compact(slices.Clone(kinds))) != len(kinds) {
		t.Errorf("something is there twice: %q", kinds)
	}
}
