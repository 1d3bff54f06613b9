package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path+".part", []byte("what a killed run has left"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := NewPart(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteString("new"); err != nil {
		t.Fatal(err)
	}
	if _, err := NewPart(path, 0o600); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one: got %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it is there before it is whole")
	}
	if err := p.Finish(); err != nil {
		t.Fatal(err)
	}
	p.Discard() // does nothing any more
	if content, err := os.ReadFile(path); err != nil || string(content) != "new" {
		t.Errorf("got %q, %v", content, err)
	}
	if _, err := os.Stat(path + ".part"); err == nil {
		t.Error("the part is still there")
	}
}

func TestPartDiscard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	p, err := NewPart(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p.Discard()
	p.Discard()
	if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Whoever may write into the directory must not choose what is overwritten.
func TestPartOfOthers(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(precious, filepath.Join(dir, "a.part")); err != nil {
		t.Fatal(err)
	}
	if _, err := NewPart(filepath.Join(dir, "a"), 0o600); err == nil {
		t.Error("a link was followed")
	}
	if content, err := os.ReadFile(precious); err != nil || string(content) != "precious" {
		t.Errorf("got %q, %v", content, err)
	}
}

// Root could replace /dev/null by its file.
func TestPartReplacesOnlyFiles(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, dir + "/", link, "/dev/null", "/dev/stdout"} {
		if _, err := NewPart(path, 0o600); err == nil || !strings.Contains(err.Error(), path+" exists and is not a file") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	for _, left := range []string{dir + "/.part", link + ".part", "/dev/null.part", "/dev/stdout.part"} {
		if _, err := os.Lstat(left); err == nil {
			t.Errorf("%s was made", left)
		}
	}
}
