package manifests

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// write makes files, and links from "name -> target".
func write(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		name, target, isLink := strings.Cut(name, " -> ")
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if isLink {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte("# "+name), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func keys[V any](m map[string]V) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

func scanWell(t *testing.T, dir string) *scan {
	t.Helper()
	s, err := scanDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	if s.unwatched != nil {
		t.Fatal(s.unwatched)
	}
	return s
}

func TestScanFinds(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", "b.yml", "c.json", "sub/dir/d.yaml", "e.txt", "README", ".hidden.yaml", ".git/x.yaml", "f.yaml~", "g.yaml.skip", "sub.skip")
	write(t, dir, "none.yaml -> nowhere", "loop.yaml -> loop.yaml", "up -> ..", "sub/self -> ../sub", "link.yaml -> sub/dir/d.yaml", "linked -> sub/dir", "text -> e.txt")
	if err := os.Mkdir(filepath.Join(dir, "named.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := scanWell(t, filepath.Join(dir))
	if got, want := strings.Join(keys(s.files), " "), "a.yaml b.yml c.json link.yaml linked/d.yaml sub/dir/d.yaml"; got != want {
		t.Errorf("files: got %q, want %q", got, want)
	}
	if got, want := strings.Join(keys(s.skipped), " "), "g.yaml sub"; got != want {
		t.Errorf("skipped: got %q, want %q", got, want)
	}
	for name, want := range map[string]string{
		"none.yaml": "links to " + dir + "/nowhere, which does not exist",
		"loop.yaml": "too many links",
		"sub/self":  "links to a directory above itself",
	} {
		if err := s.failed[name]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	if covering(s.skipped, "sub/dir/d.yaml") != "sub" || covering(s.skipped, "a.yaml") != "" || covering(s.skipped, "subs/x.yaml") != "" {
		t.Error("what is skipped")
	}
}

// A link to /, or to /proc, which has itself below it by other names, is not
// followed without end, and keeps no other file back.
func TestScanEnds(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", "kernel -> /proc", "more/kernel -> /proc", "more/b.yaml", "z/c.yaml")
	s := scanWell(t, dir) // what could not be watched there does not matter
	if got := strings.Join(keys(s.files), " "); got != "a.yaml z/c.yaml" {
		t.Errorf("files: %q", got)
	}
	for _, name := range []string{"kernel", "more"} {
		if err := s.failed[name]; err == nil || !strings.Contains(err.Error(), "has more than 1000 directories") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(s.failed) != 2 {
		t.Errorf("failed: %v", keys(s.failed))
	}
}

func TestScanCreatesTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	scanWell(t, dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v", info, err)
	}
	file := filepath.Join(dir, "file")
	write(t, dir, "file")
	if _, err := scanDirectory(file); err == nil {
		t.Error("a file is taken for a directory")
	}
}

// TestScanNotices has the changes that have to be noticed.
func TestScanNotices(t *testing.T) {
	for name, test := range map[string]struct {
		files []string
		do    func(dir string) error
	}{
		"a new file":      {nil, func(dir string) error { return os.WriteFile(dir+"/in/new", nil, 0o600) }},
		"a removed file":  {[]string{"in/a.yaml"}, func(dir string) error { return os.Remove(dir + "/in/a.yaml") }},
		"a changed file":  {[]string{"in/a/b/c.yaml"}, func(dir string) error { return os.WriteFile(dir+"/in/a/b/c.yaml", nil, 0o600) }},
		"its mode":        {[]string{"in/a.yaml"}, func(dir string) error { return os.Chmod(dir+"/in/a.yaml", 0o600) }},
		"the directory":   {nil, func(dir string) error { return os.Rename(dir+"/in", dir+"/out") }},
		"a link":          {[]string{"a", "in/x -> ../a"}, func(dir string) error { return os.Remove(dir + "/in/x") }},
		"a link's target": {[]string{"out/a.yaml", "in/a.yaml -> ../out/a.yaml"}, func(dir string) error { return os.WriteFile(dir+"/out/a.yaml", nil, 0o600) }},
		"a link between": {[]string{"1/a.yaml", "2/a.yaml", "now -> 1", "in/a.yaml -> ../now/a.yaml"}, func(dir string) error {
			return errors.Join(os.Symlink("2", dir+"/new"), os.Rename(dir+"/new", dir+"/now"))
		}},
		"what a link misses":      {[]string{"out/b", "in/a.yaml -> ../out/a.yaml"}, func(dir string) error { return os.WriteFile(dir+"/out/a.yaml", nil, 0o600) }},
		"in a linked directory":   {[]string{"out/sub/a.yaml", "in/x -> ../out"}, func(dir string) error { return os.Remove(dir + "/out/sub/a.yaml") }},
		"in a hidden one, linked": {[]string{"in/.1/a.yaml", "in/a.yaml -> .1/a.yaml"}, func(dir string) error { return os.Remove(dir + "/in/.1/a.yaml") }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, append(test.files, "in/x.txt")...)
			s := scanWell(t, dir+"/in")
			if err := test.do(dir); err != nil {
				t.Fatal(err)
			}
			select {
			case <-s.watcher.Events:
			case <-time.After(10 * time.Second):
				t.Error("it is not noticed")
			}
		})
	}
}

func TestRead(t *testing.T) {
	for name, test := range map[string]struct {
		do  func(path string) error
		err string
	}{
		"well":       {func(string) error { return nil }, ""},
		"by others":  {func(path string) error { return os.Chmod(path, 0o602) }, "is writable by others than root (mode 0602)"},
		"by a group": {func(path string) error { return os.Chmod(path, 0o620) }, "is writable by others than root (mode 0620)"},
		"gone":       {os.Remove, "no such file"},
		"large":      {func(path string) error { return os.Truncate(path, maxFile+1) }, "has 16 MiB, and may have 16: split it"},
		"directory":  {func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.yaml")
			write(t, filepath.Dir(path), "a.yaml")
			if err := test.do(path); err != nil {
				t.Fatal(err)
			}
			data, is, err := found{path: path}.read()
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Fatalf("got %v, want %q", err, test.err)
			}
			if err == nil && (string(data) != "# a.yaml" || is.Size != 8) {
				t.Errorf("got %q, %+v", data, is)
			}
		})
	}
}

func TestReadOfAnotherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	write(t, dir, "theirs/a.yaml", "ours/b.yaml", "in/dir/c.yaml", "in/a.yaml -> ../theirs/a.yaml", "in/b.yaml -> ../ours/b.yaml")
	for _, path := range []string{"/theirs", "/in/dir", "/in/b.yaml"} {
		if err := os.Lchown(dir+path, 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	s := scanWell(t, dir+"/in")
	for name, want := range map[string]string{"a.yaml": "/theirs", "dir": "/in/dir", "b.yaml": "/in/b.yaml"} {
		if err := s.failed[name]; err == nil || !strings.HasPrefix(err.Error(), dir+want+" belongs to user 1000") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestReadWaitsForWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	writer, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if _, _, err := (found{path: path}).read(); !errors.Is(err, errBusy) {
		t.Errorf("got %v", err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (found{path: path}).read(); err != nil {
		t.Error(err)
	}
}
