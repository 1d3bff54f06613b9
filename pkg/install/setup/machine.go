package setup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

// machine is where it is installed.
type machine struct {
	root   string // "/", but for tests
	layout layout.Layout
	// execute runs a program, and lookPath finds one in PATH; "" = there is none.
	execute  service.Runner
	lookPath func(name string) string
}

func lookPath(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// at is where a path of the machine is.
func (m machine) at(path string) string { return filepath.Join(m.root, path) }

func (m machine) read(path string) ([]byte, error) { return os.ReadFile(m.at(path)) }

func (m machine) has(path string) bool {
	_, err := os.Lstat(m.at(path))
	return ignoreMissing(err) != nil || err == nil
}

func (m machine) isDir(path string) bool {
	info, err := os.Stat(m.at(path))
	return err == nil && info.IsDir()
}

// succeeds runs a program that may fail.
func (m machine) succeeds(ctx context.Context, name string, args ...string) bool {
	_, code, err := m.execute(ctx, name, args...)
	return err == nil && code == 0
}

// room is how many MiB are free where a path is, or would be.
func (m machine) room(path string) uint64 {
	free, _ := probe.Free(m.at(path))
	return free >> 20
}

// full is that a directory cannot be written to, before anything was put in its place.
func (m machine) full(dir string, err error) error {
	return &writeError{fmt.Sprintf("cannot write to %s (%d MiB are free): nothing was changed; free some space there, or find out why it is not writable",
		dir, m.room(dir)), err}
}

// writeError is a message with a remedy, without the system's error text.
type writeError struct {
	text string
	err  error
}

func (e *writeError) Error() string { return e.text }
func (e *writeError) Unwrap() error { return e.err }
