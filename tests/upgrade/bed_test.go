// Package upgrade shows that lite becomes another version of itself under
// running pods, and itself again when that version does not work.
package upgrade

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/version"
	"lite.io/lite/tests/harness/cluster"
	"lite.io/lite/tests/harness/versions"
)

func TestMain(m *testing.M) { cluster.Main(m) }

const (
	timeout = 2 * time.Minute
	// installed is where lite is on the hosts of these tests: a file that can be
	// replaced, on a disk.
	installed = "/var/lib/bin/lite"
	// next is the version that is upgraded to.
	next = versions.Next
)

// nextBinary is a lite of the version next.
func nextBinary(t *testing.T) string { return versions.Build(t) }

// bed is a node whose lite can be replaced.
type bed struct{ *cluster.Node }

// install gives a node the lite that was built, in a place where it can be replaced.
func install(t *testing.T, n *cluster.Node) bed {
	t.Helper()
	return installProgram(t, n, cluster.Binary(t))
}

// installProgram gives a node a lite that can be replaced. Commands find it first.
func installProgram(t *testing.T, n *cluster.Node, binary string) bed {
	t.Helper()
	b := bed{n}
	b.put(t, binary, installed)
	n.Output(t, "ln", "-s", installed, "/usr/local/sbin/lite")
	return b
}

// put gives a host a file of the machine. Nobody writes to it, so a second name
// does where that is possible.
func (b bed) put(t *testing.T, from, to string) {
	t.Helper()
	target := filepath.Join(b.Dir, "lib", strings.TrimPrefix(to, "/var/lib/"))
	if to != installed {
		defer b.sums(t, to)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Link(from, target) == nil {
		return
	}
	if out, err := exec.Command("cp", "--reflink=auto", from, target).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// sums adds a file of a host to the SHA256SUMS beside it.
func (b bed) sums(t *testing.T, path string) {
	t.Helper()
	target := filepath.Join(b.Dir, "lib", strings.TrimPrefix(path, "/var/lib/"))
	content, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(filepath.Dir(target), "SHA256SUMS")
	text, _ := os.ReadFile(list)
	line := fmt.Sprintf("%x  %s\n", sha256.Sum256(content), filepath.Base(path))
	for old := range strings.Lines(string(text)) {
		if !strings.HasSuffix(old, "  "+filepath.Base(path)+"\n") {
			line += old
		}
	}
	if err := os.WriteFile(list, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run runs a command of lite and returns what it prints.
func (b bed) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	out, err := b.Command(ctx, "lite", args...).CombinedOutput()
	t.Logf("lite %s: %v\n%s", strings.Join(args, " "), err, out)
	return string(out), err
}

// must is run for commands that have to succeed.
func (b bed) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.run(t, args...)
	if err != nil {
		t.Fatalf("lite %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// refused is run for commands that have to fail and say certain words.
func (b bed) refused(t *testing.T, args []string, words ...string) string {
	t.Helper()
	out, err := b.run(t, args...)
	if err == nil {
		t.Errorf("lite %s succeeded", strings.Join(args, " "))
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("lite %s does not say %q:\n%s", strings.Join(args, " "), w, out)
		}
	}
	return out
}

// versions are that of the program on the disk and that of the lite that runs.
func (b bed) versions(t *testing.T) (disk, runs string) {
	t.Helper()
	var v version.Info
	if err := json.Unmarshal([]byte(b.Output(t, installed, "version", "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	var s struct{ Version string }
	if err := json.Unmarshal([]byte(b.Output(t, "lite", "status", "-o", "json")), &s); err != nil {
		t.Fatal(err)
	}
	return v.Version, s.Version
}

// is checks that one version is installed and runs.
func (b bed) is(t *testing.T, want string) {
	t.Helper()
	if disk, runs := b.versions(t); disk != want || runs != want {
		t.Errorf("installed is %s and %s runs, want %s", disk, runs, want)
	}
}

// same checks that the pods are those that were there before.
func same(t *testing.T, ns *cluster.Namespace, before map[string]string) {
	t.Helper()
	cluster.Eventually(t, timeout, func() error {
		if after := ns.Containers(t); !maps.Equal(before, after) {
			return fmt.Errorf("containers and their restarts have changed\nfrom %v\n  to %v", before, after)
		}
		return nil
	})
}

// clean checks that an upgrade that has come to its end left only what it is to
// leave.
func (b bed) clean(t *testing.T) {
	t.Helper()
	for _, path := range []string{"/var/lib/bin/.lite.upgrade", cluster.DataDir + "/rollback.new", cluster.DataDir + "/rollback.old", "/etc/lite/upgrading", cluster.DataDir + "/upgrade.download"} {
		if _, err := os.Lstat(b.Path(path)); err == nil {
			t.Errorf("%s was left behind", path)
		}
	}
}

// tail is the last lines of a text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
