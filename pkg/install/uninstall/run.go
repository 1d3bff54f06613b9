package uninstall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// commandTimeout is more than any command here takes on a machine that works.
const commandTimeout = time.Minute

// find is the path of a program, the machine's or one that lite brings along.
func (w *work) find(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	for _, dir := range append(w.helpers, "/usr/sbin", "/sbin", "/usr/bin", "/bin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}

// run runs a program and returns what it prints.
func (w *work) run(ctx context.Context, stdin []byte, name string, args ...string) (string, error) {
	path, ok := w.find(name)
	if !ok {
		return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+strings.Join(slices.Concat([]string{os.Getenv("PATH")}, w.helpers, []string{"/usr/sbin", "/sbin"}), ":"))
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return stdout.String(), fmt.Errorf("%s %s: %w", name, strings.Join(args, " "),
			errors.Join(err, errors.New(strings.Join(strings.Fields(stderr.String()), " "))))
	}
	return stdout.String(), nil
}
