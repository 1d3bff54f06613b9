package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// TestMain goes where the command runs.
func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		panic(err)
	}
	m.Run()
}

// helpers is the archive of helper programs that this build embeds.
func helpers(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"pkg/helpers/data/" + runtime.GOARCH + "/bundle.tar.zst", "pkg/helpers/data/bundle.tar.zst"} {
		if _, err := os.Stat(pattern); err == nil {
			return pattern
		}
	}
	t.Skip("no bundle was built: run `make build`")
	return ""
}

// testRelease is a release of a small Go program in the place of lite: this test.
func testRelease(t *testing.T, out string) release {
	t.Helper()
	bundle := helpers(t)
	program := filepath.Join(t.TempDir(), "program")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := copyFile(self, program, 0o644); err != nil {
		t.Fatal(err)
	}
	return release{
		out: out, version: "v1.2.3", baseURL: "https://lite.test/releases",
		builds: []build{{runtime.GOARCH, program, bundle}}, commit: strings.Repeat("0123456789", 4),
	}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestMake(t *testing.T) {
	out := t.TempDir()
	r := testRelease(t, out)
	if err := r.make(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(out, "v1.2.3")
	var names []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	lite := "lite-linux-" + runtime.GOARCH
	want := []string{"SHA256SUMS", "install.sh", lite, lite + ".gz", "lite-v1.2.3.cdx.json", "lite-v1.2.3.provenance.json"}
	if !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	for _, command := range []string{
		"sha256sum -c SHA256SUMS && test $(wc -l <SHA256SUMS) = 5",
		// As install.sh looks at them.
		"grep -q \"\\\"$(sha256sum <" + lite + " | cut -d ' ' -f 1)\\\"\" lite-v1.2.3.cdx.json",
		"grep -q \"\\\"$(sha256sum <" + lite + " | cut -d ' ' -f 1)\\\"\" lite-v1.2.3.provenance.json",
		"grep -q '\"gitCommit\": \"0123456789' lite-v1.2.3.provenance.json",
		"gzip -dc lite-linux-*.gz | cmp - " + lite,
		"test -x install.sh && test -x " + lite + " && sh -n install.sh",
		"grep -qx default_base_url=https://lite.test/releases install.sh",
		"test ! -e ../channels && cmp install.sh ../install.sh",
		"test -z \"$(find .. -name '.*' ! -name ..)\"",
	} {
		c := exec.Command("sh", "-c", command)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}

	t.Run("again", func(t *testing.T) {
		again := r
		again.out = t.TempDir()
		if err := again.make(); err != nil {
			t.Fatal(err)
		}
		if read(t, dir, sums) != read(t, again.out, "v1.2.3", sums) {
			t.Error("the second time other bytes were made")
		}
		again.out, again.channel = out, "stable"
		if err := again.make(); err != nil {
			t.Errorf("the same once more: %v", err)
		}
		if got := read(t, out, "channels", "stable"); got != "v1.2.3\n" {
			t.Errorf("the channel holds %q", got)
		}
	})
	t.Run("other bytes", func(t *testing.T) {
		other := r
		other.baseURL = "https://other.test"
		if err := other.make(); err == nil || !strings.Contains(err.Error(), "is there already") {
			t.Errorf("got %v", err)
		}
		other.version = "v1.2.4"
		if err := other.make(); err != nil {
			t.Fatal(err)
		}
		if read(t, out, "channels", "stable") != "v1.2.3\n" || read(t, out, "install.sh") != read(t, dir, "install.sh") {
			t.Error("a release that is in no channel changed what is served to all")
		}
		other.channel = "stable"
		if err := other.make(); err != nil {
			t.Fatal(err)
		}
		if read(t, out, "channels", "stable") != "v1.2.4\n" || read(t, out, "install.sh") != read(t, out, "v1.2.4", "install.sh") {
			t.Error("the channel was not moved")
		}
	})
}

// newKey makes a key pair, as docs/releases.md says.
func newKey(t *testing.T, kind ...string) (private, public string) {
	t.Helper()
	dir := t.TempDir()
	private, public = filepath.Join(dir, "key.pem"), filepath.Join(dir, "release.pub")
	run(t, dir, "openssl", append([]string{"genpkey", "-out", private, "-algorithm"}, kind...)...)
	run(t, dir, "openssl", "pkey", "-in", private, "-pubout", "-out", public)
	return private, public
}

func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", c.Args, err, out)
	}
}

// TestSigned has the signature checked as install.sh does.
func TestSigned(t *testing.T) {
	r := testRelease(t, t.TempDir())
	dir := filepath.Join(r.out, r.version)
	check := func(public string) {
		t.Helper()
		run(t, dir, "openssl", "dgst", "-sha256", "-verify", public, "-signature", "SHA256SUMS.sig", "SHA256SUMS")
	}
	var public string
	r.key, public = newKey(t, "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
	if err := r.make(); err != nil {
		t.Fatal(err)
	}
	check(public)
	run(t, dir, "sh", "-c", "! grep SIG SHA256SUMS && ! grep -rI PRIVATE SHA256SUMS* *.json install.sh && sha256sum -c SHA256SUMS")

	// From here on only what is signed.
	sign := func() error {
		t.Helper()
		part := t.TempDir()
		if err := os.WriteFile(filepath.Join(part, sums), []byte(read(t, dir, sums)), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := r.sign(part); err != nil {
			return err
		}
		return r.publish(part, dir)
	}
	before := read(t, dir, signature)
	if err := sign(); err != nil || read(t, dir, signature) != before {
		t.Errorf("made again, the signature is another, or: %v", err)
	}
	right := r.key
	r.key, public = newKey(t, "RSA")
	if err := sign(); err == nil || !strings.Contains(err.Error(), "is signed already, not with "+r.key) {
		t.Errorf("with another key: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, signature)); err != nil {
		t.Fatal(err)
	}
	if err := sign(); err != nil { // later, by who has the key
		t.Fatal(err)
	}
	check(public)
	ed25519, _ := newKey(t, "ed25519")
	for _, key := range []string{ed25519, public, "/nowhere", filepath.Dir(right)} {
		r.key = key
		if err := sign(); err == nil || !strings.Contains(err.Error(), "must be a private RSA or EC key") {
			t.Errorf("%s: %v", key, err)
		}
	}
	check(public)
}

// TestDescribe looks for what is in this very build, libraries in C included. It
// fails for a helper program of which nobody has said what it is made of.
func TestDescribe(t *testing.T) {
	r := testRelease(t, t.TempDir())
	text, err := describe(r.version, r.builds)
	if err != nil {
		t.Fatal(err)
	}
	var doc cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(text), cdx.BOMFileFormatJSON).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if doc.SerialNumber != "" || doc.Metadata.Timestamp != "" || doc.Metadata.Component.Version != "v1.2.3" {
		t.Errorf("got %+v, serial %q", doc.Metadata, doc.SerialNumber)
	}
	found := map[string]string{}
	for _, c := range *doc.Components {
		found[c.Name] = c.Version
	}
	for _, name := range []string{
		"lite-linux-" + runtime.GOARCH, "std", "github.com/CycloneDX/cyclonedx-go", "runc", "crictl", "bridge", "containerd-shim-runc-v2",
		"github.com/opencontainers/cgroups", "libseccomp-dev", "libc6-dev",
	} {
		if found[name] == "" {
			t.Errorf("%s is not in it, or without a version", name)
		}
	}
	if _, ok := found["pause.tar"]; !ok {
		t.Error("pause.tar is not in it")
	}
	if strings.Contains(string(text), os.TempDir()) {
		t.Error("it has a path of this machine in it")
	}
	refs := map[string]bool{doc.Metadata.Component.BOMRef: true}
	for _, c := range *doc.Components {
		refs[c.BOMRef] = true
	}
	for _, d := range *doc.Dependencies {
		for _, ref := range append(*d.Dependencies, d.Ref) {
			if !refs[ref] {
				t.Errorf("%s is referred to, and not there", ref)
			}
		}
	}
	if !json.Valid(text) {
		t.Error("no JSON")
	}
}

func TestMakeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*release)
		want   string
	}{
		"no version":      {func(r *release) { r.version = "" }, "set VERSION"},
		"a plus":          {func(r *release) { r.version = "v1.2.3+dirty" }, "v1.2.3+dirty"},
		"a path":          {func(r *release) { r.version = "../v1.2.3" }, "version"},
		"a channel":       {func(r *release) { r.channel = "../x" }, "channel"},
		"no program":      {func(r *release) { r.builds = nil }, "no program"},
		"a bad URL":       {func(r *release) { r.baseURL = "https://x.test/$(id)" }, "base URL"},
		"no commit":       {func(r *release) { r.commit = "HEAD" }, `commit "HEAD"`},
		"a lost program":  {func(r *release) { r.builds[0].program = "/nowhere" }, "/nowhere"},
		"another program": {func(r *release) { r.builds[0].program = "go.mod" }, "go.mod"},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			r := testRelease(t, out)
			c.change(&r)
			if err := r.make(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if left, _ := os.ReadDir(out); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
