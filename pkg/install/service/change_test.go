package service

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain also is the other process: it takes the right to change a directory and
// keeps it until its input ends.
func TestMain(m *testing.M) {
	dir := os.Getenv("CHANGE_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	c, err := BeginChange(context.Background(), func(text string) { fmt.Println(text) }, dir)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("has it", len(c.dirs))
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// other is a process that changes what is installed.
type other struct {
	*exec.Cmd
	out *bufio.Reader
	end io.Closer
}

func startOther(t *testing.T, dir string, open ...*os.File) other {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env, c.ExtraFiles = append(os.Environ(), "CHANGE_DIR="+dir), open
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return other{c, bufio.NewReader(out), in}
}

func (o other) line(t *testing.T) string {
	t.Helper()
	line, err := o.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func TestChangeIsForOne(t *testing.T) {
	dir := t.TempDir()
	first := startOther(t, dir)
	if got := first.line(t); got != "has it 1" {
		t.Fatal(got)
	}
	who := fmt.Sprintf("%s (pid %d)", filepath.Base(os.Args[0]), first.Process.Pid)
	if _, err := lockDir(t.Context(), func(string) {}, dir, 0); err == nil || !strings.Contains(err.Error(), who) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second one: %v, want it to name %s", err, who)
	}
	// Whoever waits learns for whom, and gets the lock when that process is killed.
	reported := make(chan string, 1)
	had := make(chan error, 1)
	go func() {
		d, err := lockDir(t.Context(), func(text string) { reported <- text }, dir, time.Hour)
		if err == nil {
			err = d.Close()
		}
		had <- err
	}()
	if got := <-reported; !strings.Contains(got, who) {
		t.Errorf("told %q, want %s", got, who)
	}
	_ = first.Process.Kill()
	if err := <-had; err != nil {
		t.Errorf("after the first one was killed: %v", err)
	}
}

// install.sh has the lock by a file that is open, and so what it runs has.
func TestChangeIsInherited(t *testing.T) {
	dir := t.TempDir()
	d, err := tryLockDir(dir)
	if err != nil || d == nil {
		t.Fatal(d, err)
	}
	defer d.Close()
	if got := startOther(t, dir, d).line(t); got != "has it 0" {
		t.Errorf("a child: %s", got)
	}
	if _, is := inherited(dir); is {
		t.Error("what this process has locked itself counts as inherited")
	}
}

// Uninstall removes the directory that others wait for.
func TestChangeOfARemovedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lite")
	mkdir := func() {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mkdir()
	d, err := tryLockDir(dir)
	if err != nil || d == nil {
		t.Fatal(d, err)
	}
	waiting := startOther(t, dir)
	if got := waiting.line(t); !strings.HasPrefix(got, "Waiting for ") {
		t.Fatal(got)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	mkdir()
	d.Close()
	if got := waiting.line(t); got != "has it 1" {
		t.Fatal(got)
	}
	if d, err := tryLockDir(dir); err == nil {
		t.Errorf("two have it: %v", d)
	}
	if c, err := BeginChange(t.Context(), func(string) {}, filepath.Join(dir, "missing")); err != nil || len(c.dirs) > 0 {
		t.Errorf("a directory that is not there: %v, %v", c, err)
	}
}

// A token on a command line is not for messages.
func TestNameOf(t *testing.T) {
	c := exec.Command("sh", "-c", "read x; exit", "lite", "--token", "secret")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer in.Close()
	// The kernel shows the process a moment before its arguments.
	got := nameOf(c.Process.Pid)
	for deadline := time.Now().Add(10 * time.Second); got == "a process" && time.Now().Before(deadline); got = nameOf(c.Process.Pid) {
		runtime.Gosched()
	}
	if got != "sh" {
		t.Errorf("got %q", got)
	}
}
