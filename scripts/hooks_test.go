package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repository is a new one with a module in it, and the scripts that a hook needs.
func repository(t *testing.T) (dir string, git func(args ...string) (string, error)) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "scripts"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"env", "lint", "hooks"} {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "scripts", name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(program string, args ...string) (string, error) {
		c := exec.CommandContext(t.Context(), program, args...)
		c.Dir = dir
		for _, e := range os.Environ() { // git's own are of the repository that the tests run in, if a hook runs them
			if !strings.HasPrefix(e, "GIT_") {
				c.Env = append(c.Env, e)
			}
		}
		c.Env = append(c.Env, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		out, err := c.CombinedOutput()
		return string(out), err
	}
	git = func(args ...string) (string, error) {
		return run("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@lite.test"}, args...)...)
	}
	for _, command := range [][]string{{"git", "init", "-q"}, {"go", "mod", "init", "lite.test/x"}, {"scripts/hooks"}, {"scripts/hooks"}} {
		if out, err := run(command[0], command[1:]...); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	return dir, git
}

// What make hooks installs lets a commit pass that is right, and no other.
func TestHooks(t *testing.T) {
	for _, program := range []string{"git", "shellcheck"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v; run scripts/setup", err)
		}
	}
	dir, git := repository(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	built, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, file, content, want string }{
		{"right", "a/a.go", "package a\n", ""},
		{"badly formatted", "a/b.go", "package a\nfunc  F() {}\n", "gofmt would change a/b.go"},
		{"what vet finds", "a/c.go", "package a\n\nimport \"fmt\"\n\nfunc c() { fmt.Printf(\"%d\\n\", \"x\") }\n", "fmt.Printf format %d has arg"},
		{"a script", "b.sh", "#!/bin/sh\necho $1\n", "SC2086"},
		{"a script without a suffix", "scripts/b", "#!/usr/bin/env bash\ncd $1\n", "SC2164"},
		{"a program", "c", string(built), "c is a program that was built"},
		{"a document", "d.md", "# x\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, c.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := git("add", c.file); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			out, err := git("commit", "-q", "-m", c.name)
			if (err == nil) != (c.want == "") || !strings.Contains(out, c.want) {
				t.Errorf("%v\n%s\nwant %q", err, out, c.want)
			}
			if err != nil {
				if out, err := git("rm", "-q", "-f", c.file); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
		})
	}
	hook := filepath.Join(dir, ".git", "hooks", "pre-commit")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho mine\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	install := exec.CommandContext(t.Context(), filepath.Join(dir, "scripts", "hooks"))
	if out, err := install.CombinedOutput(); err == nil || !strings.Contains(string(out), "add this line to it: scripts/lint staged") {
		t.Errorf("%v\n%s", err, out)
	}
	if content, err := os.ReadFile(hook); err != nil || !strings.Contains(string(content), "mine") {
		t.Errorf("a hook of somebody else's was replaced by\n%s, %v", content, err)
	}
}
