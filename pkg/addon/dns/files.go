package dns

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lite.io/lite/pkg/file"
)

// files is a Corefile and what it may import: the keys of ConfigMap coredns, and
// those of coredns-custom below custom/.
type files map[string]string

// emptyImports keep CoreDNS from warning about patterns that match no file of the user's.
var emptyImports = []string{"custom/none.override", "custom/none.server"}

// gather puts the content of the ConfigMaps together.
func gather(coredns, custom map[string]string) files {
	f := files{}
	for _, name := range emptyImports {
		f[name] = ""
	}
	maps.Copy(f, coredns)
	for name, content := range custom {
		f[filepath.Join("custom", name)] = content
	}
	return f
}

// version names the content.
func (f files) version() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(f)) {
		fmt.Fprintf(h, "%q %q\n", name, f[name])
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// store keeps on disk what DNS last served, so that it is served immediately after a
// restart, with or without the API.
//
//	<version>/   the files of a version
//	good         a link to the version that was last loaded
//	addresses    those of the bridge that were last listened on
type store struct{ dir string }

// write writes the files of a version and returns their directory, which replaces
// /etc/coredns in all of them. It leaves existing files alone: a node with a full disk
// starts nevertheless.
func (s store) write(f files) (string, error) {
	dir := filepath.Join(s.dir, f.version())
	for name, content := range f {
		path := filepath.Join(dir, name)
		content = strings.ReplaceAll(content, mounted, dir+"/")
		if old, err := os.ReadFile(path); err == nil && string(old) == content {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", fmt.Errorf("store the Corefile: %w", err)
		}
		if err := file.Write(path, []byte(content), 0o600); err != nil {
			return "", fmt.Errorf("store the Corefile: %w", err)
		}
	}
	return dir, nil
}

// keep makes a version that was loaded the one to start with, and forgets the
// others.
func (s store) keep(f files, addrs []netip.Addr) error {
	link := filepath.Join(s.dir, "good")
	_ = os.Remove(link + ".new")
	if err := os.Symlink(f.version(), link+".new"); err != nil {
		return fmt.Errorf("record the last good Corefile: %w", err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		return fmt.Errorf("record the last good Corefile: %w", err)
	}
	var text strings.Builder
	for _, a := range addrs {
		fmt.Fprintln(&text, a)
	}
	if err := file.Write(filepath.Join(s.dir, "addresses"), []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("record where DNS listens: %w", err)
	}
	return s.forget(f.version())
}

// forget removes the directories of all versions but one.
func (s store) forget(except string) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("remove older Corefiles: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || e.Name() == except {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
			return fmt.Errorf("remove older Corefiles: %w", err)
		}
	}
	return nil
}

// last returns what keep has stored, which may be nothing.
func (s store) last() (files, []netip.Addr, error) {
	text, err := os.ReadFile(filepath.Join(s.dir, "addresses"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("read where DNS listened last: %w", err)
	}
	var addrs []netip.Addr
	for _, line := range strings.Fields(string(text)) {
		a, err := netip.ParseAddr(line)
		if err != nil {
			return nil, nil, fmt.Errorf("read where DNS listened last: %w", err)
		}
		addrs = append(addrs, a)
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(s.dir, "good"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the last good Corefile: %w", err)
	}
	f := files{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		f[name] = strings.ReplaceAll(string(content), filepath.Join(s.dir, filepath.Base(dir))+"/", mounted)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the last good Corefile: %w", err)
	}
	return f, addrs, nil
}
