package setup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/inventory"
	"lite.io/lite/pkg/install/release"
	"lite.io/lite/pkg/layout"
)

// Where the installation of a test has what, below its root.
var (
	standard = layout.Default()

	installFile   = standard.Config.Install()
	inventoryFile = standard.Config.Installed()
	pendingFile   = standard.Config.Pending()
	envFile       = standard.Config.Environment()
	releaseKey    = standard.Config.ReleaseKey()

	workDir    = string(standard.Config.Setup())
	beforeFile = standard.Config.Setup().Before()
	sumsFile   = standard.Config.Setup().File(release.SumsFile)
	keyFile    = standard.Config.Setup().Key()

	unit       = standard.Host.SystemdUnit
	scopesFile = standard.Host.SystemdScopes
	openRCLog  = standard.Host.OpenRCLog
)

// bed is a machine in a directory, and how a lite is set up there.
type bed struct {
	root     string
	machine  machine
	request  Request
	commands []string
	out      bytes.Buffer
	running  bool
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{root: t.TempDir()}
	for _, dir := range []string{"etc/systemd/system", "run/systemd/system", "usr/local/bin", "usr/share/bash-completion/completions", "root"} {
		b.must(t, os.MkdirAll(b.at(dir), 0o755))
	}
	b.put(t, "root/program", "a program", 0o755)
	b.machine = machine{root: b.root, layout: standard, execute: b.execute, lookPath: func(name string) string {
		if name == "systemctl" {
			return "/bin/" + name
		}
		return ""
	}}
	b.request = Request{
		Program: b.at("root/program"), Version: "v1.2.3", Banner: "lite v1.2.3 (test)", Out: &b.out, Err: &b.out,
		Configure: func(role config.Role, args []string, file string) (Configuration, error) {
			if slices.Contains(args, "--wrong") {
				return Configuration{}, errors.New("unknown flag: --wrong")
			}
			text := fmt.Sprintf("# role: %s\n%s\n", role, strings.Join(args, "\n"))
			return Configuration{[]byte(text), "/var/lib/lite", "/var/lib/lite/agent/images"}, nil
		},
		Complete: func(shell string, w io.Writer) error { _, err := io.WriteString(w, shell); return err },
	}
	return b
}

func (b *bed) at(path string) string { return filepath.Join(b.root, path) }

func (b *bed) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bed) put(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	b.must(t, os.MkdirAll(filepath.Dir(b.at(path)), 0o755))
	b.must(t, os.WriteFile(b.at(path), []byte(text), mode))
}

func (b *bed) remove(t *testing.T, path string) {
	t.Helper()
	b.must(t, os.RemoveAll(b.at(path)))
}

func (b *bed) text(path string) string {
	text, err := os.ReadFile(b.at(path))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// execute is a systemd that starts what it is asked to.
func (b *bed) execute(_ context.Context, name string, args ...string) (string, int, error) {
	b.commands = append(b.commands, name+" "+strings.Join(args, " "))
	switch {
	case slices.Contains(args, "is-active") && !b.running:
		return "", 3, nil
	case slices.Contains(args, "enable"):
		wants := b.at(filepath.Dir(standard.Host.SystemdWanted))
		return "", 0, errors.Join(os.MkdirAll(wants, 0o755), os.Symlink(unit, b.at(standard.Host.SystemdWanted)))
	case slices.Contains(args, "restart"):
		b.running = true
	case slices.Contains(args, "show") && b.running:
		return "ActiveState=active\nInvocationID=" + fmt.Sprint(len(b.commands)) + "\n", 0, nil
	}
	return "", 0, nil
}

func (b *bed) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	b.out.Reset()
	b.commands = nil
	r := b.request
	r.Args = args
	err := run(t.Context(), r, b.machine)
	return b.out.String(), err
}

// tree is all that is on the machine, with what shows whether it is the same.
func (b *bed) tree(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	b.must(t, filepath.WalkDir(b.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var is unix.Stat_t
		if err := unix.Lstat(path, &is); err != nil {
			return err
		}
		fmt.Fprintf(&all, "%s %o", strings.TrimPrefix(path, b.root), is.Mode)
		if !d.IsDir() {
			fmt.Fprintf(&all, " %d %d %d", is.Ino, is.Size, is.Mtim.Nano())
		}
		all.WriteByte('\n')
		return nil
	}))
	return all.String()
}

func TestSetup(t *testing.T) {
	b := newBed(t)
	b.request.Env = []string{"HTTPS_PROXY=http://proxy.test", "PATH=/usr/bin"}
	if out, err := b.run(t, "server", "--a=b"); err != nil || !strings.Contains(out, "the node is ready: see /usr/local/bin/lite status and /usr/local/bin/lite kubectl get nodes") {
		t.Fatalf("%v\n%s", err, out)
	}
	for path, want := range map[string]struct {
		mode fs.FileMode
		text string
	}{
		"usr/local/bin/lite":            {0o755, "a program"},
		"usr/local/bin/lite-killall.sh": {0o755, "#!/bin/sh\nexec /usr/local/bin/lite killall \"$@\"\n"},
		installFile:                     {0o600, "# role: server\n--a=b\n"},
		envFile:                         {0o600, "HTTPS_PROXY='http://proxy.test'\n"},
		scopesFile:                      {0o644, scopesText},
		"usr/share/bash-completion/completions/lite": {0o644, "bash"},
	} {
		info, err := os.Lstat(b.at(path))
		if err != nil || info.Mode() != want.mode || b.text(path) != want.text {
			t.Errorf("%s: %v, %v, %q", path, info, err, b.text(path))
		}
	}
	if info, err := os.Stat(b.at(unit)); err != nil || info.Mode() != 0o600 || !strings.Contains(b.text(unit), "ExecStart=/usr/local/bin/lite server\n") {
		t.Errorf("%v %v\n%s", info, err, b.text(unit))
	}
	if to, err := os.Readlink(b.at("usr/local/bin/kubectl")); to != "/usr/local/bin/lite" {
		t.Errorf("kubectl leads to %q, %v", to, err)
	}
	listed, err := inventory.Read(b.at(inventoryFile))
	if err != nil {
		t.Error(err)
	}
	for _, path := range listed {
		if _, err := os.Lstat(b.at(path)); err != nil {
			t.Error(err)
		}
	}
	want := []string{"daemon-reload", "--quiet enable", "reset-failed", "show", "--no-block restart", "show"}
	for i, command := range b.commands {
		if i >= len(want) || !strings.HasPrefix(command, "systemctl "+want[i]) {
			t.Errorf("command %d is %s", i, command)
		}
	}

	// Again, with the same and with nothing asked for.
	before := b.tree(t)
	for _, args := range [][]string{{"server", "--a=b"}, nil} {
		if args == nil {
			b.request.Env = nil
		}
		if out, err := b.run(t, args...); err != nil || !strings.Contains(out, "nothing has changed, and the service is running") || len(b.commands) != 1 {
			t.Errorf("%v: %v %v\n%s", args, err, b.commands, out)
		}
		if after := b.tree(t); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	}

	// Elsewhere, and without a proxy: what was made goes.
	b.request.Env = []string{"INSTALL_LITE_BIN_DIR=/opt/lite/bin/"}
	if out, err := b.run(t, "server", "--a=b"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, path := range []string{"usr/local/bin/lite", "usr/local/bin/kubectl", "usr/local/bin/lite-killall.sh", envFile, pendingFile, workDir} {
		if _, err := os.Lstat(b.at(path)); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	if got := b.text(inventoryFile); !strings.Contains(got, "/opt/lite/\n/opt/lite/bin/\n/opt/lite/bin/crictl\n") {
		t.Errorf("the inventory is\n%s", got)
	}
	if strings.Contains(b.tree(t), newSuffix+" ") {
		t.Errorf("something was left:\n%s", b.tree(t))
	}
	before = b.tree(t)
	b.request.Env, b.request.Program = nil, b.at("opt/lite/bin/lite")
	if out, err := b.run(t, "server", "--a=b"); err != nil || b.tree(t) != before {
		t.Errorf("again, from its place: %v\n%s\nbefore:\n%s\nafter:\n%s", err, out, before, b.tree(t))
	}
}

// What fails leaves the machine as it was, before it was ever installed and afterwards.
func TestFailureLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*testing.T, *bed)
		args    []string
		want    string
	}{
		"flag":  {nil, []string{"--wrong"}, "unknown flag: --wrong: nothing was changed; `lite server --help`"},
		"word":  {nil, []string{"sever"}, "'sever' is neither server nor agent"},
		"quote": {func(_ *testing.T, b *bed) { b.request.Env = []string{"INSTALL_LITE_EXEC='a"} }, nil, "a quote that is not closed"},
		"unit of others": {func(t *testing.T, b *bed) { b.put(t, "lib/systemd/system/lite.service", "[Unit]\n", 0o644) }, []string{"server"},
			"there already is a /lib/systemd/system/lite.service, which is not lite's"},
		"masked": {func(t *testing.T, b *bed) {
			b.must(t, errors.Join(os.MkdirAll(b.at("lib/systemd/system"), 0o755), os.Symlink("/dev/null", b.at("lib/systemd/system/lite.service"))))
		}, []string{"server"}, "systemctl unmask lite.service"},
		"proxy": {func(_ *testing.T, b *bed) { b.request.Env = []string{"NO_PROXY=a'b"} }, []string{"server"}, "NO_PROXY contains a quote"},
		"no room": {func(t *testing.T, b *bed) {
			b.put(t, "opt/bin", "a file", 0o644)
			b.request.Env = []string{"INSTALL_LITE_BIN_DIR=/opt/bin/x"}
		}, []string{"server"}, "cannot write to /opt ("},
		"completion": {func(_ *testing.T, b *bed) {
			b.request.Complete = func(string, io.Writer) error { return errors.New("no shell") }
		}, []string{"server"}, "no shell"},
		"variable":    {func(_ *testing.T, b *bed) { b.request.Env = []string{"INSTALL_LITE_VERSION=v9.9.9"} }, []string{"server"}, "is for install.sh"},
		"no variable": {func(_ *testing.T, b *bed) { b.request.Env = []string{"INSTALL_LITE_EXCE=server"} }, []string{"server"}, "there is no variable INSTALL_LITE_EXCE"},
	} {
		for _, installed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, installed %t", name, installed), func(t *testing.T) {
				b := newBed(t)
				if installed {
					b.request.Env = []string{"INSTALL_LITE_SKIP_START=true"}
					if out, err := b.run(t, "agent"); err != nil {
						t.Fatalf("%v\n%s", err, out)
					}
					b.put(t, "root/program", "another program", 0o755)
				}
				if c.prepare != nil {
					c.prepare(t, b)
				}
				before := b.tree(t)
				if out, err := b.run(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v\n%s", err, out)
				}
				if after := b.tree(t); after != before {
					t.Errorf("before:\n%s\nafter:\n%s", before, after)
				}
			})
		}
	}
}

// Who interrupts it before it has begun finds nothing changed.
func TestInterrupted(t *testing.T) {
	b := newBed(t)
	before := b.tree(t)
	ctx, cancel := context.WithCancel(t.Context())
	configure := b.request.Configure
	b.request.Configure = func(role config.Role, args []string, file string) (Configuration, error) {
		cancel()
		return configure(role, args, file)
	}
	if err := run(ctx, b.request, b.machine); !errors.Is(err, ErrInterrupted) {
		t.Errorf("got %v", err)
	}
	if after := b.tree(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A run that was killed after the commit has left the service as it was, and the inventory with what is obsolete.
func TestKilledAfterCommit(t *testing.T) {
	b := newBed(t)
	if out, err := b.run(t, "agent"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b.put(t, pendingFile, "", 0o600)
	b.put(t, workDir+"/inventory.before", "", 0o600)
	b.put(t, inventoryFile, b.text(inventoryFile)+"/opt/gone\n/usr/local/bin/lite-killall.sh.new\n", 0o600)
	b.put(t, "opt/gone", "of an earlier one", 0o644)
	b.put(t, "usr/local/bin/lite-killall.sh.new", "half", 0o644)
	if out, err := b.run(t); err != nil || !strings.Contains(out, "starting the service lite (agent)") {
		t.Errorf("%v\n%s", err, out)
	}
	if tree := b.tree(t); strings.Contains(tree, "/opt/gone") || strings.Contains(tree, newSuffix+" ") || strings.Contains(tree, "/install.") {
		t.Errorf("left:\n%s", tree)
	}
}

// stage does what install.sh does before it becomes lite setup.
func (b *bed) stage(t *testing.T, env ...string) {
	t.Helper()
	b.put(t, "usr/local/bin/lite.new", "a program", 0o755)
	b.must(t, os.MkdirAll(b.at(workDir), 0o700))
	before, _ := os.ReadFile(b.at(inventoryFile))
	b.put(t, beforeFile, string(before), 0o600)
	b.put(t, inventoryFile, string(before)+"/usr/local/bin/lite.new\n", 0o600)
	b.request.Staged, b.request.Program = true, b.at("usr/local/bin/lite.new")
	b.request.Env = append([]string{"INSTALL_LITE_BIN_DIR=/usr/local/bin", "INSTALL_LITE_SKIP_START=true"}, env...)
}

func sum(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

// What comes with a program is what was verified, whatever its owner has put there since.
func TestStaged(t *testing.T) {
	statement := "  \"sha256\": \"" + sum("a program") + "\"\n  \"gitCommit\": \"0123abcd\"\n"
	for name, c := range map[string]struct {
		version, image, later, statement string
		want                             string // "" = it is installed
	}{
		"right":                 {"v1.2.3", "image", "", statement, ""},
		"whichever version":     {"", "image", "", "", ""},
		"older version":         {"v9.9.8", "image", "", "", "what is served as lite v9.9.8 is lite v1.2.3"},
		"image changed before":  {"", "evil", "", "", "images/x.tar has the wrong checksum"},
		"image changed later":   {"", "image", "evil", "", "images/x.tar has changed since it was checked: the service was not started"},
		"other program":         {"v1.2.3", "image", "", "\"0000\"", "lite-v1.provenance.json is about a program other than"},
		"statement was changed": {"v1.2.3", "image", "", statement + " ", "lite-v1.provenance.json has the wrong checksum"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			artifact := t.TempDir()
			image := filepath.Join(artifact, "images", "x.tar")
			b.must(t, errors.Join(os.Mkdir(filepath.Dir(image), 0o755), os.WriteFile(image, []byte(c.image), 0o644)))
			b.stage(t, "INSTALL_LITE_ARTIFACT="+artifact, "INSTALL_LITE_VERSION="+c.version)
			said := c.statement
			if c.statement != "" {
				b.put(t, workDir+"/lite-v1.provenance.json", c.statement, 0o600)
			}
			b.put(t, sumsFile, sum("image")+"  images/x.tar\n"+sum(strings.TrimSuffix(said, " "))+" *lite-v1.provenance.json\n", 0o600)
			b.request.Complete = func(string, io.Writer) error { // after it was checked
				if c.later == "" {
					return nil
				}
				return errors.Join(os.WriteFile(image+"2", []byte(c.later), 0o644), os.Rename(image+"2", image))
			}
			out, err := b.run(t, "server")
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v\n%s", err, out)
				}
				if strings.Contains(b.tree(t), "/x.tar") || strings.Contains(b.tree(t), newSuffix+" ") {
					t.Errorf("left:\n%s", b.tree(t))
				}
				return
			}
			if err != nil || b.text("/var/lib/lite/agent/images/x.tar") != "image" || b.text("usr/local/bin/lite") != "a program" {
				t.Errorf("%v\n%s\n%s", err, out, b.tree(t))
			}
			if c.statement != "" && !strings.Contains(out, "lite-v1.provenance.json is about this program, built from commit 0123abcd\n") {
				t.Errorf("it says\n%s", out)
			}
		})
	}
}

// A pipe in the place of an image is not waited for.
func TestPipeInTheArtifact(t *testing.T) {
	b := newBed(t)
	artifact := t.TempDir()
	b.must(t, errors.Join(os.Mkdir(filepath.Join(artifact, "images"), 0o755), unix.Mkfifo(filepath.Join(artifact, "images", "x.tar"), 0o644)))
	b.stage(t, "INSTALL_LITE_ARTIFACT="+artifact)
	b.put(t, sumsFile, "", 0o600)
	if out, err := b.run(t, "server"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The key of releases is kept, replaced, and forgotten.
func TestKey(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct{ given, variable, want string }{
		{"first", "/root/a.pem", "first"}, {"", "", "first"}, {"second", "/root/b.pem", "second"}, {"", "none", ""},
	} {
		b.stage(t, "INSTALL_LITE_PUBLIC_KEY="+c.variable)
		if c.given != "" {
			b.put(t, keyFile, c.given, 0o600)
		}
		if out, err := b.run(t, "server"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := b.text(releaseKey); got != c.want && (c.want != "" || b.machine.has(releaseKey)) {
			t.Errorf("%+v: the key is %q", c, got)
		}
		if got := strings.Contains(b.text(inventoryFile), releaseKey); got != (c.want != "") {
			t.Errorf("%+v: the inventory is\n%s", c, b.text(inventoryFile))
		}
	}
}
