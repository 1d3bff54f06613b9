package uninstall

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/tests/upstream"
)

func TestCheckDataDir(t *testing.T) {
	for _, dir := range []string{"/", "/var", "/var/lib", "/home", "/home/me", "/etc", "/etc/lite", "/usr/local", "/root", "/tmp", "/var/lib/docker",
		"relative", "/var/lib/../", "/var/lib/lite/", "/dev/shm"} {
		if err := checkDataDir(dir); err == nil {
			t.Errorf("%s is accepted", dir)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/var", link); err != nil {
		t.Fatal(err)
	}
	if err := checkDataDir(link); err == nil || !strings.Contains(err.Error(), "/var is a directory of the machine") {
		t.Errorf("a link to /var: %v", err)
	}
	for _, dir := range []string{"/var/lib/lite", "/data", "/srv/lite", "/opt/lite", "/var/lib/my lite", "/home/me/lite"} {
		if err := checkDataDir(dir); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// newWork removes files and nothing else.
func newWork(t *testing.T) (*work, *bytes.Buffer) {
	var out bytes.Buffer
	dir := t.TempDir()
	return &work{Report: NewReport(&out), Installation: Installation{RunDir: layout.Run(dir + "/run"), ConfigDir: layout.Config(dir + "/etc"), Host: layout.Default().Host}}, &out
}

func write(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRemoveFollowsNoLink(t *testing.T) {
	w, _ := newWork(t)
	dir := t.TempDir()
	write(t, dir+"/outside/kept", dir+"/data/a/b/c", dir+"/data/file")
	for _, link := range []string{dir + "/data/link", dir + "/data/a/link"} {
		if err := os.Symlink(dir+"/outside", link); err != nil {
			t.Fatal(err)
		}
	}
	w.remove(dir + "/data")
	if exists(dir + "/data") {
		t.Errorf("it is still there: %v", w.failed)
	}
	if !exists(dir + "/outside/kept") {
		t.Error("what a link leads to was removed")
	}
	if err := os.Symlink(dir+"/outside", dir+"/data"); err != nil {
		t.Fatal(err)
	}
	w.remove(dir + "/data")
	if exists(dir+"/data") || !exists(dir+"/outside/kept") {
		t.Error("of a link only the link is to be removed")
	}
}

func TestTheAuditLogGoesWhereNobodyHasNamedAPlace(t *testing.T) {
	const ours, rotated, theirs = "/lite/audit.log", "/lite/audit-2026-11-29T03-50-18.123.log.gz", "/lite/auditors.txt"
	for name, test := range map[string]struct {
		there, left []string
	}{
		"ours alone":       {[]string{ours, rotated}, nil},
		"beside others'":   {[]string{ours, rotated, theirs}, []string{theirs}},
		"there is nothing": {nil, nil},
	} {
		w, out := newWork(t)
		dir := t.TempDir()
		w.OwnLog = dir + ours
		for _, path := range test.there {
			write(t, dir+path)
		}
		w.removeAuditLog()
		for _, path := range []string{ours, rotated, theirs} {
			if want := slices.Contains(test.left, path); exists(dir+path) != want {
				t.Errorf("%s: %s is there: %t", name, path, !want)
			}
		}
		if exists(dir+"/lite") != (test.left != nil) || len(w.failed) > 0 {
			t.Errorf("%s: %v\n%s", name, w.failed, out)
		}
	}
}

func TestRemoveDeep(t *testing.T) {
	w, _ := newWork(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "data", strings.Repeat("d/", 300), "file"))
	w.remove(dir + "/data")
	if len(w.failed) > 0 || exists(dir+"/data") || len(names(dir)) > 0 {
		t.Errorf("left %v: %v", names(dir), w.failed)
	}
}

func TestRemoveEntersNoMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	w, _ := newWork(t)
	dir := t.TempDir()
	write(t, dir+"/outside/kept", dir+"/data/a/mount/x", dir+"/data/b")
	if err := unix.Mount(dir+"/outside", dir+"/data/a/mount", "", unix.MS_BIND, ""); err != nil {
		t.Skipf("may not mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir+"/data/a/mount", unix.MNT_DETACH) })
	w.remove(dir + "/data")
	if !exists(dir+"/outside/kept") || exists(dir+"/data/b") {
		t.Error("a mount was entered, or what is beside it stayed")
	}
	if len(w.left) != 1 || !strings.Contains(w.left[0], "data/a/mount") || len(w.failed) > 0 {
		t.Errorf("left %q, failed %q", w.left, w.failed)
	}
}

func TestDataDirOfOthers(t *testing.T) {
	w, _ := newWork(t)
	dir := t.TempDir() + "/my data"
	write(t, dir+"/precious", dir+"/server/x", dir+"/lite.lock")
	w.used = map[string]bool{dir: true}
	w.removeDataDir(dir)
	if !exists(dir+"/precious") || exists(dir+"/server") || exists(dir+"/lite.lock") {
		t.Errorf("there is %q", names(dir))
	}
	w.DefaultDir = dir
	w.removeDataDir(dir)
	if exists(dir) {
		t.Errorf("of a directory that is named after lite %q stays", names(dir))
	}
}

// A directory that no lite has worked in was emptied of everything that has a name which
// lite uses too, such as server and storage.
func TestDataDirWithoutLite(t *testing.T) {
	w, _ := newWork(t)
	dir := t.TempDir() + "/data"
	write(t, dir+"/server/mine", dir+"/storage/mine", dir+"/agent/mine", dir+"/agent/images/a.tar", dir+"/version")
	w.removeDataDir(dir)
	for _, name := range []string{"server/mine", "storage/mine", "agent/mine", "version"} {
		if !exists(filepath.Join(dir, name)) {
			t.Errorf("%s was removed", name)
		}
	}
	if exists(dir + "/agent/images") {
		t.Error("what the installer has put there stays")
	}
	// Where lite has worked the directory of volumes may have been somebody's before.
	w.used = map[string]bool{dir: true}
	write(t, dir+"/lite.lock", dir+"/storage/pvc-1_ns_data/file")
	w.removeDataDir(dir)
	if !exists(dir+"/storage/mine") || exists(dir+"/storage/pvc-1_ns_data") || !exists(dir+"/lite.lock") {
		t.Errorf("there is %q, and in storage %q", names(dir), names(dir+"/storage"))
	}
	if err := os.RemoveAll(dir + "/storage/mine"); err != nil {
		t.Fatal(err)
	}
	w.removeDataDir(dir) // lite.lock has stayed for this
	if exists(dir) {
		t.Errorf("%q stays", names(dir))
	}
}

// What was mounted there to be looked into when lite was killed is taken away, and what
// is mounted on the directory itself is not.
func TestMountsOfTemporaryFiles(t *testing.T) {
	w, _ := newWork(t)
	for path, want := range map[string]bool{
		w.RunDir.Temporary() + "/containerd-mount1": true, w.RunDir.Temporary() + "/ovl-idmapped2": true, w.RunDir.Temporary(): false, w.RunDir.Temporary() + "files/a": false,
	} {
		if got := w.ourMount(path); got != want {
			t.Errorf("%s: got %t", path, got)
		}
	}
}

// On a machine where lite has never run, or when run again, uninstall took the volumes of
// another distribution's pods for lite's.
func TestOthersKubelet(t *testing.T) {
	w, out := newWork(t)
	dir := t.TempDir()
	n := w.Installation
	n.DataDirs, n.KubeletDir = []string{dir + "/data"}, dir+"/kubelet"
	write(t, dir+"/kubelet/pods/uid/volumes/data", dir+"/kubelet/cpu_manager_state")
	kept := func(when string) {
		t.Helper()
		if !exists(dir+"/kubelet/pods/uid/volumes/data") || !exists(dir+"/kubelet/cpu_manager_state") {
			t.Errorf("%s: of another kubelet's files there are %q", when, names(dir+"/kubelet"))
		}
	}
	w, err := begin(n, Options{}, NewReport(out))
	if err != nil {
		t.Fatal(err)
	}
	w.removeData()
	kept("lite has never run")
	if len(w.podUIDs()) > 0 || slices.Contains(w.mountDirs(), dir+"/kubelet/pods") {
		t.Errorf("its pods are %q, their mounts in %q", w.podUIDs(), w.mountDirs())
	}

	write(t, dir+"/data/lite.lock")
	write(t, dir+"/kubelet/pod-resources/x")
	socket, err := net.Listen("unix", dir+"/kubelet/pod-resources/kubelet.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if w, err = begin(n, Options{}, NewReport(out)); err != nil {
		t.Fatal(err)
	}
	w.hadRun = true
	w.findOther()
	if w.hadRun || len(w.left) != 1 || !strings.Contains(w.left[0], "kubelet.sock") {
		t.Errorf("another kubelet is at work, and it says %q", w.left)
	}
	w.removeData()
	kept("another kubelet is running")

	socket.Close()
	write(t, dir+"/data/lite.lock")
	if w, err = begin(n, Options{}, NewReport(out)); err != nil {
		t.Fatal(err)
	}
	w.findOther()
	if len(w.podUIDs()) != 1 || len(w.left) > 0 {
		t.Errorf("lite has run, and its pods are %q, left %q", w.podUIDs(), w.left)
	}
}

// In a container mounts and processes are not those of the machine.
func TestNamespaces(t *testing.T) {
	dir := t.TempDir()
	for path, id := range map[string]string{"own/mnt": "mnt:[1]", "own/net": "net:[1]", "machine/mnt": "mnt:[1]", "machine/net": "net:[1]", "inside/mnt": "mnt:[2]"} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(id, path); err != nil {
			t.Fatal(err)
		}
	}
	if err := checkNamespaces(dir+"/own", dir+"/machine"); err != nil {
		t.Error(err)
	}
	if err := checkNamespaces(dir+"/inside", dir+"/machine"); err == nil || !strings.Contains(err.Error(), "nsenter") {
		t.Errorf("got %v", err)
	}
}

// A command that somebody has put in the place of a link of the installer's is theirs.
func TestOthersPrograms(t *testing.T) {
	w, _ := newWork(t)
	dir := t.TempDir()
	write(t, dir+"/kubectl", dir+"/lite-uninstall.sh")
	for path, to := range map[string]string{"crictl": "/proc/self/exe", "ctr": "nothing"} {
		if err := os.Symlink(to, filepath.Join(dir, path)); err != nil {
			t.Fatal(err)
		}
	}
	w.removeInstalled([]string{dir + "/kubectl", dir + "/crictl", dir + "/ctr", dir + "/lite-uninstall.sh"})
	if all := names(dir); !exists(dir+"/kubectl") || !exists(dir+"/crictl") || len(all) != 2 || len(w.left) != 2 {
		t.Errorf("there is %q, left %q", all, w.left)
	}
}

func TestOurUnit(t *testing.T) {
	for line, want := range map[string]bool{
		"ExecStart=/usr/local/bin/lite server": true, "ExecStart=/opt/lite-v1.2/lite-linux-amd64 agent --token-file x": true,
		`ExecStart="/opt/my tools/lite" server`: true, "ExecStart=/usr/bin/elite server": false, "ExecStart=/usr/sbin/lited": false,
		"command_args=\"-c '[ ! -x /etc/lite/upgrading ] || /etc/lite/upgrading upgrade resume; exec /usr/local/bin/lite server'\"": true,
	} {
		if ourUnit.MatchString(line) != want {
			t.Errorf("%s: want %v", line, want)
		}
	}
}

func TestInventory(t *testing.T) {
	w, _ := newWork(t)
	dir := t.TempDir()
	write(t, dir+"/bin/lite", dir+"/bin/other", dir+"/lib/only/x")
	write(t, w.ConfigDir.File())
	list := strings.Join([]string{dir + "/bin/lite", dir + "/bin", dir + "/lib/only/x", dir + "/lib/only/", dir + "/missing", "relative", "/a/../b", ""}, "\n")
	if err := os.WriteFile(w.ConfigDir.Installed(), []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	w.removeInstalled(w.installed())
	if exists(dir+"/bin/lite") || !exists(dir+"/bin/other") || exists(dir+"/lib/only") || !exists(dir+"/lib") {
		t.Errorf("bin %q, lib %q", names(dir+"/bin"), names(dir+"/lib"))
	}
	if len(w.left) != 3 || len(w.failed) > 0 { // relative, /a/../b, bin
		t.Errorf("left %q, failed %q", w.left, w.failed)
	}
}

func TestReport(t *testing.T) {
	w, out := newWork(t)
	w.Step("Doing %s", "it")
	w.Leave("that")
	w.Fail(nil)
	w.Fail(os.ErrPermission)
	if err := w.end(); err == nil || !strings.Contains(err.Error(), "1 step") {
		t.Errorf("end: %v", err)
	}
	if want := "Doing it\nLeft: that\nFAILED: permission denied\n"; out.String() != want {
		t.Errorf("%q, want %q", out, want)
	}
}

// A machine may have no program for the packet filter but those that lite brings along.
func TestFindHelpers(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	w := &work{Installation: Installation{DataDirs: []string{dir}}}
	for _, path := range []string{"netfilter/nft/nft", "netfilter/bin/iptables-nft-save"} {
		path = filepath.Join(dir, "bundle", "digest", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.findHelpers()
	for _, name := range []string{"nft", "iptables-nft-save"} {
		if path, ok := w.programs.Find(name); !ok || !strings.HasPrefix(path, dir) {
			t.Errorf("%s is %q", name, path)
		}
	}
}

// What an upgrade leaves was not known here, so a data directory of the user's own choice
// stayed after uninstall.
func TestDocumentedDataIsRemoved(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "files.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## Data directory\n")
	section, _, _ = strings.Cut(section, "\n## ")
	found := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|").FindAllStringSubmatch(section, -1) {
		for _, cell := range strings.Split(row[1], ", ") {
			name, _, _ := strings.Cut(strings.Trim(cell, "`"), "/")
			if strings.Contains(row[1], "`server/") || strings.HasPrefix(name, "<") {
				continue // below what is removed as a whole, and the directory itself
			}
			found++
			if !slices.Contains(layout.Data("").Names(), name) {
				t.Errorf("docs/files.md has %s in the data directory, and uninstall does not remove it", name)
			}
		}
	}
	if found < 10 {
		t.Errorf("the table of docs/files.md has only %d names", found)
	}
}

var (
	kubeletDirs   = regexp.MustCompile(`getRootDir\(\), kubeletconfig\.(\w+)`)
	kubeletStates = regexp.MustCompile(`"(\w+_state)"`)
)

// What the kubelet makes in its directory changes with its version, and what this
// list does not know stays on the machine.
func TestKubeletNamesAreAllThatTheKubeletMakes(t *testing.T) {
	kubelet := filepath.Join(upstream.Sources(t, "k8s.io/kubernetes"), "pkg/kubelet")
	constants := map[string]string{}
	upstream.Files(t, filepath.Join(kubelet, "kubeletconfig"), func(_, content string) {
		for _, m := range regexp.MustCompile(`(?m)^\s*(\w+)\s*= "(.*)"$`).FindAllStringSubmatch(content, -1) {
			constants[m[1]] = m[2]
		}
	})
	found := 0
	check := func(path, name string) {
		if found++; !slices.Contains(kubeletNames, name) {
			t.Errorf("%s makes %q", path, name)
		}
	}
	upstream.Files(t, kubelet, func(path, content string) {
		for _, m := range kubeletDirs.FindAllStringSubmatch(content, -1) {
			check(path, constants[m[1]])
		}
		if strings.Contains(path, "/metrics/") || strings.Contains(path, "/pleg/") {
			return // names of labels
		}
		for _, m := range kubeletStates.FindAllStringSubmatch(content, -1) {
			check(path, m[1])
		}
	})
	if found < 12 {
		t.Errorf("only %d names were found: the kubelet says them otherwise now", found)
	}
}
