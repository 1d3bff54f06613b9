package upgrade

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// TestForeground is lite without an init system, started by a person: it becomes
// the new program by itself, under running pods.
func TestForeground(t *testing.T) {
	t.Parallel()
	artifact := nextBinary(t)
	b := install(t, cluster.NewNode(t))
	b.put(t, artifact, "/var/lib/next")
	// The datastore is on a disk of its own: it cannot be put back by a rename.
	const store = cluster.DataDir + "/server/etcd"
	b.Output(t, "sh", "-ec", "mkdir -p -m 700 /var/lib/disk "+store+" && mount --bind /var/lib/disk "+store)
	// The user's own manifests are elsewhere too, and theirs to change.
	checkout := cluster.DataDir + "/server/manifests/checkout"
	b.Output(t, "sh", "-ec", "mkdir -p "+checkout+" && mount -t tmpfs tmpfs "+checkout+" && echo before >"+checkout+"/file")
	b.Start(t)
	old, _ := b.versions(t)
	ns := b.Namespace(t)
	ns.Apply(t, cluster.Web(3))
	ns.WaitRollout(t, "deployment/web")
	before := ns.Containers(t)

	t.Run("refused", func(t *testing.T) { b.refuses(t, artifact) })
	b.is(t, old)
	t.Run("nothing can be kept", func(t *testing.T) {
		b.Output(t, "mkdir", cluster.DataDir+"/rollback")
		b.Output(t, "mount", "-t", "tmpfs", "tmpfs", cluster.DataDir+"/rollback")
		// It is found when lite is stopped already.
		b.refused(t, []string{"upgrade", "--artifact", "/var/lib/next"}, "nothing was changed", "back up the old version")
		b.is(t, old)
		b.clean(t)
		b.Output(t, "umount", cluster.DataDir+"/rollback")
	})
	b.Kubectl(t, "create", "configmap", "early")
	b.Output(t, "sh", "-ec", `mkdir -p /etc/lite/site; cd /etc/lite; echo "log-level: info" >site/lite.yaml
		chown 65534:65533 site/lite.yaml; chmod 640 site/lite.yaml; ln -s site/lite.yaml config.yaml`)

	t.Run("channel", func(t *testing.T) {
		key, public := newKey(t)
		files := map[string]string{"/channels/stable": next + "\n"}
		base := b.serve(t, files, artifact, nil)
		b.refused(t, []string{"upgrade", "--base-url", base}, "not encrypted", "--allow-http")
		b.must(t, "upgrade", "--base-url", base, "--allow-http", "--dry-run")
		// As the installer remembers it.
		b.WriteFile(t, "/etc/lite/release.pub", public)
		b.refused(t, []string{"upgrade", "--base-url", base, "--allow-http"}, "is not signed, and must be", "/etc/lite/release.pub")
		b.refused(t, []string{"upgrade", "--artifact", "/var/lib/next"}, "is not signed, and must be")
		other, _ := newKey(t)
		b.refused(t, []string{"upgrade", "--base-url", b.serve(t, files, artifact, other)}, "is not signed with the key")
		base = b.serve(t, files, artifact, key)
		pid := b.PID(t)
		b.must(t, "upgrade", "--base-url", base)
		b.is(t, next)
		b.clean(t)
		if b.PID(t) != pid {
			t.Errorf("process %d became %d", pid, b.PID(t))
		}
		b.WaitReady(t)
		same(t, ns, before)
		if out := b.must(t, "upgrade", "--base-url", base); !strings.Contains(out, "nothing to do") {
			t.Errorf("the same version again:\n%s", out)
		}
		b.clean(t)
	})
	b.Kubectl(t, "create", "configmap", "late")
	b.Output(t, "sh", "-ec", `cd /etc/lite; rm config.yaml site/lite.yaml release.pub; echo "log-level: warn" >site/lite.yaml; echo "log-level: warn" >config.yaml`)
	mine := cluster.DataDir + "/server/mine" // mounted since
	b.Output(t, "sh", "-ec", "mkdir -p "+mine+" && mount -t tmpfs tmpfs "+mine+" && echo mine >"+mine+"/file; echo since >"+checkout+"/file; touch "+checkout+"/new")
	b.WriteFile(t, "/etc/lite/config.yaml.d/20-new.yaml", "log-level: error\n")

	t.Run("rollback", func(t *testing.T) {
		b.refused(t, []string{"rollback"}, "--yes")
		if out := b.must(t, "rollback", "--dry-run"); !strings.Contains(out, next+" -> "+old) {
			t.Errorf("the plan:\n%s", out)
		}
		b.is(t, next)
		kept := cluster.DataDir + "/rollback/lite"
		b.Output(t, "sh", "-ec", "mv "+kept+" "+kept+".mine; cp /var/lib/posers/downgrade "+kept)
		b.refused(t, []string{"rollback", "--yes"}, "is not the lite "+old+" that was backed up: it is lite v0.0.1")
		b.is(t, next)
		b.Output(t, "mv", kept+".mine", kept)
		b.must(t, "rollback", "--yes")
		b.is(t, old)
		b.clean(t)
		b.WaitReady(t)
		same(t, ns, before)
		b.Kubectl(t, "get", "configmap", "early")
		if out, err := b.KubectlErr(t, "get", "configmap", "late"); err == nil {
			t.Errorf("what was written after the upgrade is there after the rollback: %s", out)
		}
		if got := b.ReadFile(t, "/etc/lite/config.yaml"); got != "log-level: info\n" {
			t.Errorf("config.yaml is %q", got)
		}
		if got := b.Output(t, "sh", "-ec", "readlink /etc/lite/config.yaml; stat -c %u:%g:%a /etc/lite/site/lite.yaml"); got != "site/lite.yaml\n65534:65533:640\n" {
			t.Errorf("config.yaml and what it leads to are\n%s", got)
		}
		if got := b.Output(t, "sh", "-ec", "mountpoint -q "+store+"; mountpoint -q "+mine+"; cat "+mine+"/file "+checkout+"/file; ls "+checkout); got != "mine\nsince\nfile\nnew\n" {
			t.Errorf("what was mounted since holds %q", got)
		}
		b.Output(t, "umount", mine)
		for _, path := range []string{"config.yaml", "site/lite.yaml", "config.yaml.d/20-new.yaml"} {
			b.ReadFile(t, cluster.DataDir+"/rollback/dropped/files/etc/lite/"+path)
		}
		b.refused(t, []string{"rollback", "--yes"}, "there is no backup in")
	})

	t.Run("program that ends at once", func(t *testing.T) {
		b.Kubectl(t, "create", "configmap", "before-broken")
		broken := b.pose(t, "/var/lib/broken", func(*pose) {})
		// Nobody starts lite again here, and the command says so.
		b.refused(t, []string{"upgrade", "--artifact", broken}, "is not running", "start it by hand", "this lite cannot start")
		if b.Running() {
			t.Error("lite runs")
		}
		b.Start(t)
		b.is(t, old)
		b.clean(t)
		same(t, ns, before)
		b.Kubectl(t, "get", "configmap", "before-broken")
	})
}

// refuses has upgrades that must not begin.
func (b bed) refuses(t *testing.T, artifact string) {
	pid := b.PID(t)
	whole, err := os.ReadFile(artifact)
	if err != nil {
		t.Fatal(err)
	}
	write := func(path string, content []byte) string {
		target := filepath.Join(b.Dir, "lib", strings.TrimPrefix(path, "/var/lib/"))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, content, 0o755); err != nil {
			t.Fatal(err)
		}
		if filepath.Base(path) != "SHA256SUMS" {
			b.sums(t, path)
		}
		return path
	}
	try := func(name, path string, words ...string) {
		t.Run(name, func(t *testing.T) { b.refused(t, []string{"upgrade", "--artifact", path}, words...) })
	}
	posing := func(name string, change func(*pose), words ...string) {
		try(name, b.pose(t, "/var/lib/posers/"+strings.ReplaceAll(name, " ", "-"), change), words...)
	}

	try("missing file", "/var/lib/nothing", "no such file")
	try("text", write("/var/lib/text", bytes.Repeat([]byte("no program\n"), 100)), "neither a lite program")
	try("truncated", write("/var/lib/truncated", whole[:len(whole)/2]), "it is incomplete")
	other := bytes.Clone(whole[:1<<20])
	other[18], other[19] = 0xb7, 0 // e_machine: AArch64
	if runtime.GOARCH == "arm64" {
		other[18] = 0x3e
	}
	try("wrong machine", write("/var/lib/arm", other), "an architecture other than")
	sum := sha256.Sum256([]byte("another"))
	b.put(t, artifact, "/var/lib/wrong/lite")
	write("/var/lib/wrong/SHA256SUMS", []byte(hex.EncodeToString(sum[:])+"  lite\n"))
	try("wrong checksum", "/var/lib/wrong/lite", "wrong checksum", "download it again")
	write("/var/lib/wrong/SHA256SUMS", []byte(hex.EncodeToString(sum[:])+"  other\n"))
	try("no checksum", "/var/lib/wrong/lite", "does not name lite")

	posing("downgrade", func(p *pose) { p.Version.Version = "v0.0.1" }, "older", "lite rollback")
	posing("two minors of Kubernetes", func(p *pose) { p.Version.Kubernetes = minors(p.Version.Kubernetes, 2) }, "one minor version at a time")
	posing("two minors of etcd", func(p *pose) { p.Version.Etcd = minors(p.Version.Etcd, 2) }, "one minor version at a time")
	posing("older Kubernetes", func(p *pose) { p.Version.Kubernetes = minors(p.Version.Kubernetes, -1) }, "older than")
	posing("configuration", func(p *pose) { p.Refuse = "server-color: no such option" }, "rejects the configuration", "server-color")
	posing("no lite", func(p *pose) { p.Version.Version, p.Version.Kubernetes = "", "" }, "it is not lite")
	posing("another platform", func(p *pose) { p.Version.Platform = "plan9/amd64" }, "plan9/amd64")

	t.Run("agent that is too old", func(t *testing.T) {
		b.KubectlStdin(t, `{apiVersion: v1, kind: Node, metadata: {name: left-behind}}`, "create", "-f", "-")
		defer b.Kubectl(t, "delete", "node", "left-behind")
		b.Kubectl(t, "patch", "node", "left-behind", "--subresource=status", "-p", `{"status":{"nodeInfo":{"kubeletVersion":"v1.32.9"}}}`)
		b.refused(t, []string{"upgrade", "--artifact", b.pose(t, "/var/lib/posers/left-behind", func(*pose) {})}, "left-behind", "upgrade it first")
	})
	t.Run("not root", func(t *testing.T) {
		c := b.Command(t.Context(), "/usr/local/bin/lite", "upgrade", "--artifact", "/var/lib/next")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "root") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("another program", func(t *testing.T) {
		out, err := b.Command(t.Context(), "/var/lib/next", "upgrade", "--artifact", "/var/lib/next").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "run `"+installed+" upgrade`") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("no base URL", func(t *testing.T) { b.refused(t, []string{"upgrade"}, "--base-url", "--artifact") })
	t.Run("no such version", func(t *testing.T) {
		b.refused(t, []string{"upgrade", "--to", "v9.9.9", "--base-url", b.serve(t, nil, artifact, nil), "--allow-http"}, "404")
	})
	t.Run("dry run", func(t *testing.T) {
		if out := b.must(t, "upgrade", "--dry-run", "--artifact", "/var/lib/next"); !strings.Contains(out, next) || !strings.Contains(out, "Nothing was changed") {
			t.Errorf("got:\n%s", out)
		}
	})
	b.clean(t)
	if b.PID(t) != pid {
		t.Error("lite was restarted")
	}
	if _, err := os.Stat(b.Path(cluster.DataDir + "/rollback")); err == nil {
		t.Error("something is kept")
	}
}

// packed is the program as a release has it. Packing it well is not the point.
func packed(t *testing.T, artifact string) []byte {
	t.Helper()
	whole, err := os.ReadFile(artifact)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(whole); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// newKey is a key that releases are signed with, and its public half in PEM.
func newKey(t *testing.T) (key *rsa.PrivateKey, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// serve is a plain file server with a release of version next, on the network of
// the host, signed if there is a key. The first answer for the program breaks off half-way.
func (b bed) serve(t *testing.T, files map[string]string, artifact string, key *rsa.PrivateKey) (base string) {
	t.Helper()
	name := "lite-linux-" + runtime.GOARCH + ".gz"
	program := packed(t, artifact)
	sums := fmt.Sprintf("%x  %s\n", sha256.Sum256(program), name)
	broken := false
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if text, ok := files[r.URL.Path]; ok {
			fmt.Fprint(w, text)
			return
		}
		switch r.URL.Path {
		case "/" + next + "/SHA256SUMS":
			fmt.Fprint(w, sums)
		case "/" + next + "/SHA256SUMS.sig":
			if key == nil {
				http.NotFound(w, r)
				return
			}
			hash := sha256.Sum256([]byte(sums))
			signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, hash[:])
			if err != nil {
				t.Error(err)
			}
			_, _ = w.Write(signature)
		case "/" + next + "/" + name:
			w.Header().Set("ETag", `"one"`)
			if !broken {
				broken = true
				w.Header().Set("Content-Length", fmt.Sprint(len(program)))
				_, _ = w.Write(program[:len(program)/2])
				panic(http.ErrAbortHandler)
			}
			if r.Header.Get("Range") == "" {
				t.Error("the download began anew, though the server could go on")
			}
			http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(program))
		default:
			http.NotFound(w, r)
		}
	})
	l, err := b.Network().Listen("tcp", cluster.Gateway+":0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return "http://" + l.Addr().String()
}

// supervised starts lite as an init system does: again whenever it ends, and
// before each start it has the kept program look after an upgrade.
func (b bed) supervised(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(b.Dir, "lite.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c := b.Command(t.Context(), "sh", "-c", `while :; do
		[ ! -x /etc/lite/upgrading ] || /etc/lite/upgrading upgrade resume
		lite server
		sleep 0.2
	done`)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	b.waitFor(t, "")
}

// waitFor waits until a version runs and is ready, "" for any.
func (b bed) waitFor(t *testing.T, want string) {
	t.Helper()
	cluster.Eventually(t, timeout, func() error {
		out, err := b.Command(t.Context(), "lite", "status", "-o", "json").Output()
		if err != nil {
			return fmt.Errorf("lite status: %w: %s\n%s", err, out, tail(b.Log(), 20))
		}
		var s struct{ Version string }
		if err := json.Unmarshal(out, &s); err != nil {
			return err
		}
		if want != "" && s.Version != want {
			return fmt.Errorf("%s runs, want %s", s.Version, want)
		}
		return nil
	})
}

// state is that of the journal, "" for none.
func (b bed) state() string {
	var j struct{ State string }
	data, err := os.ReadFile(b.Path(cluster.DataDir + "/upgrade.json"))
	if err != nil || json.Unmarshal(data, &j) != nil {
		return ""
	}
	return j.State
}

// settled waits until the journal has come to a state.
func (b bed) settled(t *testing.T, want string) {
	t.Helper()
	cluster.Eventually(t, timeout, func() error {
		if got := b.state(); got != want {
			return fmt.Errorf("the journal says %q, want %q\n%s", got, want, tail(b.Log(), 20))
		}
		return nil
	})
}

// killAt begins an upgrade or a rollback and kills the command when the journal
// has come to a state.
func (b bed) killAt(t *testing.T, state string, args ...string) {
	t.Helper()
	c := b.Command(t.Context(), "lite", args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for deadline := time.Now().Add(timeout); b.state() != state; time.Sleep(100 * time.Microsecond) {
		select {
		case err := <-ended:
			t.Fatalf("lite %s ended before the journal came to %s: %v", strings.Join(args, " "), state, err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the journal does not come to %s, it says %q", state, b.state())
		}
	}
	_ = c.Process.Kill()
	<-ended
}

// TestKilled kills `lite upgrade` and `lite rollback` at each state. Whatever
// keeps lite running brings the rest to an end.
func TestKilled(t *testing.T) {
	t.Parallel()
	artifact := nextBinary(t)
	b := install(t, cluster.NewNode(t))
	b.put(t, artifact, "/var/lib/next")
	// The program is on another file system than what is kept: it is copied, not linked,
	// and that takes long enough to be killed in the middle.
	b.Output(t, "mount", "--bind", filepath.Dir(installed), filepath.Dir(installed))
	b.supervised(t)
	old, _ := b.versions(t)
	ns := b.Namespace(t)
	ns.Apply(t, cluster.Web(3))
	ns.WaitRollout(t, "deployment/web")
	before := ns.Containers(t)

	t.Run("prepared", func(t *testing.T) {
		b.killAt(t, "prepared", "upgrade", "--artifact", "/var/lib/next")
		b.waitFor(t, old)
		b.is(t, old)
	})
	t.Run("started", func(t *testing.T) {
		b.Kubectl(t, "create", "configmap", "early")
		b.killAt(t, "started", "upgrade", "--artifact", "/var/lib/next")
		b.settled(t, "healthy")
		b.waitFor(t, next)
		b.is(t, next)
		b.clean(t)
		b.Kubectl(t, "get", "configmap", "early")
		b.Kubectl(t, "create", "configmap", "late")
	})
	t.Run("returning", func(t *testing.T) {
		b.killAt(t, "returning", "rollback", "--yes")
		b.waitFor(t, next)
		b.is(t, next)
		b.Kubectl(t, "get", "configmap", "late")
	})
	t.Run("rolling back", func(t *testing.T) {
		b.killAt(t, "rolling-back", "rollback", "--yes")
		b.waitFor(t, old)
		b.settled(t, "rolled-back")
		b.is(t, old)
		b.clean(t)
		b.Kubectl(t, "get", "configmap", "early")
		if out, err := b.KubectlErr(t, "get", "configmap", "late"); err == nil {
			t.Errorf("the data is that of the newer version: %s", out)
		}
	})
	t.Run("program that ends at once", func(t *testing.T) {
		b.killAt(t, "started", "upgrade", "--artifact", b.pose(t, "/var/lib/broken", func(*pose) {}))
		b.waitFor(t, old)
		b.settled(t, "rolled-back")
		b.is(t, old)
		b.clean(t)
	})
	t.Run("never ready", func(t *testing.T) {
		// Without a pod network the node is never ready.
		never := b.pose(t, "/var/lib/never", func(p *pose) {
			p.Version.Version, p.Exec = next, "/var/lib/next"
			p.Write, p.Content = "/etc/lite/config.yaml.d/90-broken.yaml", "disable: [cni]\n"
		})
		b.Kubectl(t, "create", "configmap", "kept")
		b.refused(t, []string{"upgrade", "--health-timeout=15s", "--artifact", never}, "was not healthy within 15s", "was rolled back to "+old, "last lines")
		b.waitFor(t, old)
		b.is(t, old)
		b.clean(t)
		b.Kubectl(t, "get", "configmap", "kept")
	})
	same(t, ns, before)
}

// TestFullDisk has a new version fill the disk before it fails, and kills the command
// that could take it back. What is set aside for that suffices to go back.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	b := install(t, cluster.NewNode(t))
	b.Output(t, "mount", "-t", "tmpfs", "-o", "size=1200m,mode=700", "tmpfs", cluster.DataDir)
	b.supervised(t)
	old, _ := b.versions(t)
	b.Kubectl(t, "create", "configmap", "kept")
	const filler = cluster.DataDir + "/filler"
	fills := b.pose(t, "/var/lib/fills", func(p *pose) { p.Exec, p.Write = "/var/lib/fill", "/var/lib/filled" })
	b.Output(t, "sh", "-ec", "printf '#!/bin/sh\n[ -e "+filler+" ] || cat /dev/zero >"+filler+"\nexit 1\n' >/var/lib/fill; chmod +x /var/lib/fill")
	b.killAt(t, "started", "upgrade", "--artifact", fills)
	b.settled(t, "rolled-back")
	// The old version is there, and starts when it has room.
	if disk, err := b.Command(t.Context(), installed, "version").Output(); err != nil || !strings.Contains(string(disk), old) {
		t.Errorf("installed is %s, %v", disk, err)
	}
	b.Output(t, "rm", filler)
	b.waitFor(t, old)
	b.clean(t)
	b.Kubectl(t, "get", "configmap", "kept")
}
