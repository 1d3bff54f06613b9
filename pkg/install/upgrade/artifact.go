package upgrade

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/install/release"
	"lite.io/lite/pkg/version"
)

// trust is what verifies that a release is genuine.
type trust struct {
	key    *release.Key // nil: releases need not be signed
	sha256 string       // of a program that has no SHA256SUMS; may be ""
}

// KeyVariable is the variable with which install.sh gets the key of releases.
const KeyVariable = "INSTALL_LITE_PUBLIC_KEY"

// noKey, instead of a file, ignores the remembered key.
const noKey = "none"

// newTrust trusts the key that a user names, otherwise the one that the installer has
// remembered, if any.
func newTrust(o Options, remembered string) (trust, error) {
	t := trust{sha256: strings.ToLower(o.SHA256)}
	path := o.PublicKey
	if path == "" {
		path = os.Getenv(KeyVariable)
	}
	if path == noKey {
		return t, nil
	}
	if path == "" {
		if _, err := os.Lstat(remembered); errors.Is(err, fs.ErrNotExist) {
			return t, nil
		}
		path = remembered
	}
	var err error
	if t.key, err = release.ReadKey(path); err != nil {
		return t, err
	}
	if t.sha256 != "" {
		return t, fmt.Errorf("--sha256: this sum is not signed, and releases must be, with the key in %s; omit it, and put %s and %s beside the file, or pass --public-key none to skip signatures", t.key, release.SumsFile, release.SignatureFile)
	}
	return t, nil
}

// verify returns the checksums of a SHA256SUMS, whose signature it has verified if one is
// required.
func (t trust) verify(sums, signature []byte) (release.Sums, error) {
	if t.key != nil {
		if len(signature) == 0 {
			return nil, t.unsigned()
		}
		if err := t.key.Verify(sums, signature); err != nil {
			return nil, err
		}
	}
	return release.ParseSums(sums)
}

func (t trust) unsigned() error {
	return fmt.Errorf("%s is not signed, and must be, with the key in %s: use a release that has %[3]s, or pass --public-key %[4]s to skip signatures", release.SumsFile, t.key, release.SignatureFile, noKey)
}

// image is an archive of images that comes with a program.
type image struct {
	name string // without its directory
	size int64
}

// contents is what was found in an artifact.
type contents struct {
	sums   release.Sums
	images []image
}

// toUnpack is how many bytes of images have to be written to a directory, judged by sizes.
func (c contents) toUnpack(dir string) (total int64) {
	for _, i := range c.images {
		if info, err := os.Stat(filepath.Join(dir, i.name)); err != nil || info.Size() != i.size {
			total += i.size
		}
	}
	return total
}

// stage writes the program of an artifact to a file, and makes sure that all of the
// artifact matches its SHA256SUMS.
func stage(ctx context.Context, artifact, to string, t trust) (contents, error) {
	var c contents
	a, err := release.Open(artifact, runtime.GOARCH)
	if err != nil {
		return c, fmt.Errorf("artifact: %w", err)
	}
	if t.sha256 != "" && !a.Single() {
		return c, fmt.Errorf("--sha256 is only for a single program, and %s must contain a %s; omit it", artifact, release.SumsFile)
	}
	var sums, signature []byte
	hashes, program := map[string]string{}, ""
	err = a.Each(func(p release.Part) (err error) {
		p.Reader = interruptible{ctx, p.Reader}
		switch p.Kind {
		case release.Checksums:
			sums, err = release.ReadSums(p)
		case release.Signature:
			signature, err = release.ReadSums(p)
		case release.Images:
			c.images = append(c.images, image{strings.TrimPrefix(p.Name, release.ImageDir), p.Size})
			sum := sha256.New()
			_, err = io.Copy(sum, p)
			hashes[p.Name] = hex.EncodeToString(sum.Sum(nil))
		case release.Binary:
			if program == "" || strings.HasSuffix(p.Name, ".gz") { // one of them is enough
				hashes[p.Name], err = stageFile(p, to)
				program = p.Name
			}
		}
		return err
	})
	if err != nil {
		return c, fmt.Errorf("artifact: %w", err)
	}
	if program == "" {
		return c, fmt.Errorf("artifact %s has neither %s nor %s; it may be for another architecture", artifact, release.Packed(runtime.GOARCH), release.Program(runtime.GOARCH))
	}
	switch {
	case t.sha256 != "":
		c.sums = release.Sums{program: t.sha256}
	case sums == nil:
		return c, fmt.Errorf("there is no checksum for %s: put %s beside it, or into the bundle; for a single program you can pass --sha256", artifact, release.SumsFile)
	default:
		if c.sums, err = t.verify(sums, signature); err != nil {
			return c, fmt.Errorf("artifact %s: %w", artifact, err)
		}
	}
	for name, hash := range hashes {
		if err := c.sums.Check(name, hash); err != nil {
			return c, fmt.Errorf("artifact %s: %w", artifact, err)
		}
	}
	return c, nil
}

// interruptible reads until ctx is done: a bundle may have gigabytes.
type interruptible struct {
	ctx context.Context
	io.Reader
}

func (r interruptible) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, errors.New("interrupted")
	}
	return r.Reader.Read(p)
}

// stageFile writes a program, compressed or not, and returns the SHA-256 of what
// was read.
func stageFile(r io.Reader, to string) (hash string, err error) {
	read := sha256.New()
	from := bufio.NewReader(io.TeeReader(r, read))
	var program io.Reader = from
	if magic, _ := from.Peek(2); release.IsGzip(magic) {
		if program, err = release.Unpack(from); err != nil {
			return "", err
		}
	}
	if err := writeProgram(program, to); err != nil {
		return "", err
	}
	// What follows the stream belongs to the file too.
	if _, err := io.Copy(io.Discard, from); err != nil {
		return "", err
	}
	return hex.EncodeToString(read.Sum(nil)), nil
}

// writeProgram writes a program and puts it on the disk.
func writeProgram(r io.Reader, to string) (err error) {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, r); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			err = fmt.Errorf("%w; free some space on the file system of %s", err, filepath.Dir(to))
		}
		return err
	}
	if err := f.Chmod(0o755); err != nil { // whatever the umask
		return err
	}
	return f.Sync()
}

// extractImages copies the image archives of an artifact to where a node imports them from.
// A file with the same name and content stays; one with other content is passed to keep
// first. note gets each before it is written.
func extractImages(artifact string, c contents, dir string, keep func(name, path string) error, note func(name string) error) error {
	a, err := release.Open(artifact, runtime.GOARCH)
	if err != nil {
		return fmt.Errorf("artifact: %w", err)
	}
	return a.InstallImages(c.sums, dir, func(name, to string) error {
		if _, err := os.Lstat(to); err == nil {
			if err := keep(name, to); err != nil {
				return fmt.Errorf("back up the images %s: %w", name, err)
			}
		}
		return note(name)
	})
}

// inspect makes sure that a file is a whole lite for this machine, and asks it
// for its versions.
func inspect(ctx context.Context, program string) (version.Info, error) {
	var v version.Info
	if err := release.CheckProgram(program, runtime.GOARCH); err != nil {
		return v, fmt.Errorf("it cannot be used: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "version", "-o", "json")
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &v)
	}
	if err == nil && (v.Version == "" || v.Kubernetes == "") {
		err = errors.New("it does not report its versions")
	}
	if err != nil {
		return v, fmt.Errorf("it is not lite: `version -o json` prints %q (%w)", firstLine(string(out)+stderr.String()), err)
	}
	if platform := runtime.GOOS + "/" + runtime.GOARCH; v.Platform != platform {
		return v, fmt.Errorf("it is for %s and this machine is %s; use the one for %[2]s", v.Platform, platform)
	}
	return v, nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
