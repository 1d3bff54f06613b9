// Command mkrelease lays a release out so that a plain file server can serve it,
// from programs that are built already:
//
//	<out>/channels/<channel>      the version that a channel is at
//	<out>/install.sh              of the version that was last put into a channel
//	<out>/<version>/              lite-linux-<arch>, the same as .gz, install.sh,
//	                              lite-<version>.cdx.json, lite-<version>.provenance.json,
//	                              SHA256SUMS, and if there is a key SHA256SUMS.sig
//
// The same programs make the same bytes. A version that is there already is not
// changed.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	files "lite.io/lite/pkg/install/release"
	"lite.io/lite/scripts"
)

const (
	sums      = files.SumsFile
	signature = files.SignatureFile
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("mkrelease: ")
	var r release
	flag.StringVar(&r.out, "out", "dist/release", "the `directory` of all releases")
	flag.StringVar(&r.version, "version", "", "the version, as v1.2.3")
	flag.StringVar(&r.baseURL, "base-url", "", "where the directory will be served")
	flag.StringVar(&r.channel, "channel", "", "a channel to move to this version")
	flag.StringVar(&r.key, "sign", "", "a `file` with the private key, RSA or EC in PEM, to sign the checksums with")
	flag.StringVar(&r.commit, "commit", "", "the commit that the programs are built from, in full")
	check := flag.Bool("check", false, "only check version, base URL and channel")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: mkrelease [flags] ARCH=PROGRAM=HELPERS...\nHELPERS is the archive of helper programs that is in PROGRAM.")
		flag.PrintDefaults()
	}
	flag.Parse()
	for _, arg := range flag.Args() {
		parts := strings.Split(arg, "=")
		if len(parts) != 3 {
			log.Fatalf("%q: must be ARCH=PROGRAM=HELPERS", arg)
		}
		r.builds = append(r.builds, build{arch: parts[0], program: parts[1], helpers: parts[2]})
	}
	work := r.make
	if *check {
		work = r.check
	}
	if err := work(); err != nil {
		log.Fatal(err)
	}
}

// release is what is to be laid out.
type release struct {
	out, version, baseURL, channel, key, commit string
	builds                                      []build
}

// build is lite for one architecture.
type build struct{ arch, program, helpers string }

var (
	// A + would have to be written as %2B in a URL.
	versions = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z][0-9A-Za-z.-]*)?$`)
	commits  = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	channels = regexp.MustCompile(`^[a-z][a-z0-9.-]*$`)
)

func (r *release) check() error {
	switch {
	case !versions.MatchString(r.version):
		return fmt.Errorf("version %q: must be like v1.2.3 or v1.2.3-rc.1; set VERSION, or tag the commit", r.version)
	case r.channel != "" && !channels.MatchString(r.channel):
		return fmt.Errorf("channel %q: must be a word such as stable", r.channel)
	}
	_, err := scripts.Install(r.baseURL)
	return err
}

func (r *release) make() error {
	if err := r.check(); err != nil {
		return err
	}
	if len(r.builds) == 0 {
		return errors.New("there is no program to release")
	}
	if !commits.MatchString(r.commit) {
		return fmt.Errorf("commit %q: must be all digits of one, as git rev-parse prints them", r.commit)
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	part, err := os.MkdirTemp(r.out, "."+r.version+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(part)
	if err := os.Chmod(part, 0o755); err != nil {
		return err
	}
	if err := r.fill(part); err != nil {
		return err
	}
	if err := r.publish(part, filepath.Join(r.out, r.version)); err != nil {
		return err
	}
	return r.point()
}

// fill writes the files of the version.
func (r *release) fill(dir string) error {
	installer, err := scripts.Install(r.baseURL)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, files.Installer), installer, 0o755); err != nil {
		return err
	}
	for _, b := range r.builds {
		name := filepath.Join(dir, files.Program(b.arch))
		if err := copyFile(b.program, name, 0o755); err != nil {
			return err
		}
		if err := compress(name, name+".gz"); err != nil {
			return err
		}
	}
	bom, err := describe(r.version, r.builds)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "lite-"+r.version+".cdx.json"), bom, 0o644); err != nil {
		return err
	}
	origin, err := r.prove(dir)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "lite-"+r.version+".provenance.json"), origin, 0o644); err != nil {
		return err
	}
	if err := writeSums(dir); err != nil || r.key == "" {
		return err
	}
	return r.sign(dir)
}

// sign signs the checksums, as install.sh and lite upgrade want it. openssl asks
// for the passphrase of a key that has one, and knows keys that are in no file.
func (r *release) sign(dir string) error {
	if err := openssl(dir, "-sign", r.key, "-out", signature, sums); err != nil {
		return fmt.Errorf("sign with %s: %w; it must be a private RSA or EC key in PEM", r.key, err)
	}
	return os.Chmod(filepath.Join(dir, signature), 0o644)
}

func openssl(dir string, args ...string) error {
	var said bytes.Buffer
	c := exec.Command("openssl", append([]string{"dgst", "-sha256"}, args...)...)
	c.Dir, c.Stdin, c.Stdout, c.Stderr = dir, os.Stdin, &said, &said
	if err := c.Run(); err != nil {
		return fmt.Errorf("openssl: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// copyFile copies a file, with exactly this mode whatever the umask.
func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(mode), out.Close())
}

// compress writes no name and no time into the file.
func compress(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err != nil {
		return err
	}
	_, err = io.Copy(z, in)
	return errors.Join(err, z.Close(), out.Close())
}

// writeSums writes what sha256sum would say of all files of a directory.
func writeSums(dir string) error {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return err
	}
	all := files.Sums{}
	for _, e := range entries {
		digest, err := digestOf(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		all[e.Name()] = hex.EncodeToString(digest)
	}
	return os.WriteFile(filepath.Join(dir, sums), all.Text(), 0o644)
}

func digestOf(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return sum.Sum(nil), err
}

// publish gives a directory its name. What is published must not change: whoever
// has the old checksums would be told of an attack. Only a signature may be added.
func (r *release) publish(part, dir string) error {
	old, err := os.ReadFile(filepath.Join(dir, sums))
	if errors.Is(err, fs.ErrNotExist) {
		return os.Rename(part, dir)
	}
	if err != nil {
		return err
	}
	made, err := os.ReadFile(filepath.Join(part, sums))
	if err != nil {
		return err
	}
	if !bytes.Equal(old, made) {
		return fmt.Errorf("%s is there already, with other files; choose another version, or remove it if nobody has it yet", dir)
	}
	if r.key == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, signature)); errors.Is(err, fs.ErrNotExist) {
		return os.Rename(filepath.Join(part, signature), filepath.Join(dir, signature))
	}
	if err := openssl(dir, "-prverify", r.key, "-signature", signature, sums); err != nil {
		return fmt.Errorf("%s is signed already, not with %s; remove its %s to sign it anew", dir, r.key, signature)
	}
	return nil
}

// point moves the channel, if one is named. install.sh of the top directory is that
// of the last version in a channel, or the first one of all.
func (r *release) point() error {
	top := filepath.Join(r.out, files.Installer)
	if _, err := os.Stat(top); err == nil && r.channel == "" {
		return nil
	}
	installer, err := os.ReadFile(filepath.Join(r.out, r.version, files.Installer))
	if err != nil {
		return err
	}
	if err := replace(top, installer, 0o755); err != nil || r.channel == "" {
		return err
	}
	dir := filepath.Join(r.out, "channels")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return replace(filepath.Join(dir, r.channel), []byte(r.version+"\n"), 0o644)
}

// replace writes a file so that a server never serves half of it.
func replace(path string, data []byte, mode fs.FileMode) error {
	part := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".part")
	if err := os.WriteFile(part, data, mode); err != nil {
		return err
	}
	if err := os.Chmod(part, mode); err != nil {
		return err
	}
	return os.Rename(part, path)
}
