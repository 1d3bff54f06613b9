package install

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// TestOdd installs on a machine that is not as machines are, and starts nothing.
func TestOdd(t *testing.T) {
	t.Parallel()
	m := newMachine(t, cluster.Systemd)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	m.Push(t, busybox, "/root/busybox/busybox")
	m.Sh(t, `/root/busybox/busybox --install -s /root/busybox && mkdir -p /usr/share/bash-completion/completions
		cd /root/release && gzip -1 -k lite-linux-* && ln lite-linux-*[0-9] /root/lite && sha256sum install.sh lite-* images/* >SHA256SUMS
		tar -cf /root/lite.tar install.sh lite-*.gz SHA256SUMS images`)
	o := &odd{Machine: m}
	o.before = o.files(t)
	for _, step := range []struct {
		name string
		run  func(*odd, *testing.T)
	}{
		{"shells", (*odd).testShells},
		{"directories", (*odd).testDirectories},
		{"of others", (*odd).testOthers},
		{"full disk", (*odd).testFull},
		{"read-only programs", (*odd).testReadOnly},
		{"not booted", (*odd).testNotBooted},
		{"locked", (*odd).testLocked},
		{"proxies", (*odd).testProxies},
		{"data", (*odd).testData},
		{"swapped", (*odd).testSwapped},
		{"itself", (*odd).testItself},
		{"served", (*odd).testServed},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(o, t) }) {
			return
		}
	}
}

// odd is a machine on which lite is installed and removed.
type odd struct {
	*cluster.Machine
	before []string
}

// fromBundle installs, and starts nothing. inPlace is the same with a program that is
// there, which is quick.
const (
	fromBundle = "INSTALL_LITE_ARTIFACT=/root/lite.tar INSTALL_LITE_SKIP_START=true "
	inPlace    = "INSTALL_LITE_SKIP_DOWNLOAD=true INSTALL_LITE_SKIP_START=true "
)

// place makes the program be there, with a name that uninstall removes.
func (o *odd) place(t *testing.T, dir string) {
	t.Helper()
	o.Sh(t, "mkdir -p %[1]s && ln -f /root/lite %[1]s/lite", dir)
}

// files are those that there are now, with what tells whether they are the same.
func (o *odd) files(t *testing.T) []string {
	t.Helper()
	return strings.Split(o.Sh(t, `find /usr /etc /opt /srv /root -xdev -type d -printf '%%p %%m\n' -o -printf '%%p %%m %%s %%T@ %%l\n' | sort`), "\n")
}

// same compares the files there are with those of before.
func (o *odd) same(t *testing.T, what string, before []string) {
	t.Helper()
	after := o.files(t)
	for _, c := range []struct {
		word string
		a, b []string
	}{{"gone", before, after}, {"new", after, before}} {
		for _, line := range c.a {
			if !slices.Contains(c.b, line) {
				t.Errorf("%s: %s: %s", what, c.word, line)
			}
		}
	}
}

// gone uninstalls and looks whether all is as it was.
func (o *odd) gone(t *testing.T, uninstall string) {
	t.Helper()
	o.Sh(t, "%s --yes", uninstall)
	o.same(t, "uninstalled", o.before)
}

// refuses runs what must fail for a reason and change nothing.
func (o *odd) refuses(t *testing.T, command, want string) {
	t.Helper()
	before := o.files(t)
	out, err := o.Run(command)
	if err == nil || strings.Count(out, "[lite] error: ") != 1 || !strings.Contains(out, want) {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
	o.same(t, command, before)
}

// testShells installs by every shell, with the programs of busybox and of Debian,
// whoever has become root in whatever way. It makes the same of all.
func (o *odd) testShells(t *testing.T) {
	var first string
	for _, shell := range []string{
		"env -i " + fromBundle + "PATH=/root/busybox /root/busybox/ash -s - </root/release/install.sh",
		"umask 000; " + inPlace + "dash /root/release/install.sh",
		"umask 077; " + inPlace + "bash --posix /root/release/install.sh",
		"cd / && CDPATH=/root env -u HOME PATH=/usr/bin " + inPlace + "sh root/release/install.sh",
	} {
		if strings.Contains(shell, inPlace) {
			o.place(t, "/usr/local/bin")
		}
		o.Sh(t, "%s", shell)
		made := o.Sh(t, "for path in $(cat /etc/lite/installed); do stat -c '%%n %%a %%N' $path; [ -d $path ] || md5sum <$path; done")
		if first == "" {
			first = made
		}
		if made != first {
			t.Errorf("%s\nmade\n%s\nand not\n%s", shell, made, first)
		}
		if unsafe := o.Sh(t, "find /etc/lite /usr/local -perm /022 ! -type l"); unsafe != "" {
			t.Errorf("%s\nothers may write to %s", shell, unsafe)
		}
		o.gone(t, "lite-uninstall.sh")
	}
}

// testDirectories puts the commands elsewhere, and then elsewhere again.
func (o *odd) testDirectories(t *testing.T) {
	o.Sh(t, fromRelease+"INSTALL_LITE_SKIP_START=true INSTALL_LITE_BIN_DIR=/opt/one/bin/ "+installer)
	o.Sh(t, "test -L /opt/one/bin/kubectl && ! [ -e /usr/local/bin/lite ]")
	if out := o.Sh(t, inPlace+installer); !strings.Contains(out, "not started") {
		t.Errorf("with nothing said:\n%s", out)
	}
	o.Sh(t, "test -x /opt/one/bin/lite && ! [ -e /usr/local/bin/lite ]")
	o.Sh(t, "mkdir /opt/real && ln -s real /opt/link")
	o.place(t, "/opt/link")
	o.Sh(t, inPlace+"INSTALL_LITE_BIN_DIR=/opt/link "+installer)
	if got := o.Sh(t, "ls /opt /opt/link"); got != "/opt:\nlink\nreal\n\n/opt/link:\ncrictl\nctr\nkubectl\nlite\nlite-killall.sh\nlite-uninstall.sh" {
		t.Errorf("it has\n%s", got)
	}
	o.Sh(t, "/opt/link/lite-uninstall.sh --yes && rm /opt/link && rmdir /opt/real")
	for directory, want := range map[string]string{
		"/": "must be a path such as", "/a/../b": "must be a path such as", "'/a b'": "must consist of letters", "bin": "must be an absolute path",
	} {
		o.refuses(t, "INSTALL_LITE_BIN_DIR="+directory+" "+installer, want)
	}
}

// testOthers leaves alone what others have put where lite would put something.
func (o *odd) testOthers(t *testing.T) {
	o.Sh(t, "echo lite >/usr/local/bin/lite && chmod +x /usr/local/bin/lite")
	o.refuses(t, inPlace+installer, "set INSTALL_LITE_BIN_DIR")
	o.place(t, "/usr/local/bin")
	for _, path := range []string{"/etc/systemd/system/lite.service", "/lib/systemd/system/lite.service"} {
		o.Sh(t, "echo '[Unit]' >%s", path)
		o.refuses(t, inPlace+installer, "is not lite's")
		o.Sh(t, "rm %s", path)
	}
	o.Sh(t, "systemctl mask lite")
	o.refuses(t, inPlace+installer, "systemctl unmask lite.service")
	o.Sh(t, "systemctl unmask lite")

	o.Sh(t, `ln -s /nowhere /usr/local/bin/kubectl; echo '#!/bin/sh' >/usr/bin/ctr; chmod +x /usr/bin/ctr; echo theirs >/usr/share/bash-completion/completions/lite`)
	out := o.Sh(t, inPlace+installer)
	if !strings.Contains(out, "ctr is /usr/bin/ctr; lite's is `lite ctr`") {
		t.Errorf("it says:\n%s", out)
	}
	o.Sh(t, "lite-uninstall.sh --yes")
	o.Sh(t, `[ "$(readlink /usr/local/bin/kubectl)" = /nowhere ] && grep theirs /usr/share/bash-completion/completions/lite && rm /usr/local/bin/kubectl /usr/bin/ctr /usr/share/bash-completion/completions/lite`)
}

// testFull has less and less room for what the installer writes, with programs that
// do not all notice that.
func (o *odd) testFull(t *testing.T) {
	for _, path := range []string{"$PATH", "/root/busybox:$PATH"} {
		room, done := 0, false
		for ; !done && room < 64; room += 4 {
			o.place(t, "/usr/local/bin")
			out, err := o.Run(fmt.Sprintf(`mkdir /etc/lite && mount -t tmpfs -o size=64k tmpfs /etc/lite && head -c %d /dev/zero >/etc/lite/filler
				%s PATH=%s sh %s; code=$?
				rm /etc/lite/filler && cp -a /etc/lite /run/kept && umount /etc/lite && rmdir /etc/lite
				if [ $code = 0 ]; then mv /run/kept /etc/lite && lite uninstall --yes; else rm -r /run/kept /usr/local/bin/lite; fi
				exit $code`, (64-room)<<10, inPlace, path, "/root/release/install.sh"))
			done = err == nil
			if !done && (strings.Count(out, "error: ") != 1 || !strings.Contains(out, "cannot write to /etc/lite")) {
				t.Errorf("%d KiB: %v\n%s", room, err, out)
			}
			o.same(t, fmt.Sprintf("%d KiB", room), o.before)
		}
		t.Logf("PATH=%s: %d KiB in /etc/lite do", path, room-4)
		if !done {
			t.Error("it does not do with 64 KiB in /etc/lite")
		}
	}
}

// testReadOnly does without completion where the system's files cannot be written.
func (o *odd) testReadOnly(t *testing.T) {
	const readOnly = "mount --bind /usr /usr && mount -o remount,bind,ro /usr && "
	o.refuses(t, "unshare -m sh -c '"+readOnly+fromRelease+installer+"'", "cannot write to /usr/local/bin")
	o.place(t, "/opt/bin")
	o.Sh(t, "unshare -m sh -c '%s'", readOnly+inPlace+"INSTALL_LITE_BIN_DIR=/opt/bin "+installer)
	o.Sh(t, "/opt/bin/lite-uninstall.sh --yes && rmdir /opt/bin")
	o.same(t, "uninstalled", o.before)
}

// testNotBooted installs into what is going to be the disk of a machine.
func (o *odd) testNotBooted(t *testing.T) {
	const notBooted = "unshare -m sh -c 'mount -t tmpfs tmpfs /run/systemd && %s'"
	o.place(t, "/usr/local/bin")
	if out := o.Sh(t, notBooted, inPlace+installer); !strings.Contains(out, "installed; not started") {
		t.Errorf("it says:\n%s", out)
	}
	o.Sh(t, "test -L /etc/systemd/system/multi-user.target.wants/lite.service")
	o.gone(t, "lite-uninstall.sh")
	o.place(t, "/usr/local/bin")
	out := o.Sh(t, notBooted, "INSTALL_LITE_SKIP_DOWNLOAD=true "+installer)
	if !strings.Contains(out, "This machine has neither systemd nor OpenRC") {
		t.Errorf("it says:\n%s", out)
	}
	o.gone(t, "lite-uninstall.sh")
}

// testLocked lets nobody else change the installation meanwhile.
func (o *odd) testLocked(t *testing.T) {
	o.place(t, "/usr/local/bin")
	o.Sh(t, "mkdir -m 700 /etc/lite")
	o.refuses(t, "touch /run/held; flock /etc/lite sh -c 'while [ -e /run/held ]; do sleep 0.1; done' & until [ -e /run/held ] && ! flock -n /etc/lite true; do sleep 0.1; done; "+
		inPlace+installer+"; code=$?; rm /run/held; wait; exit $code", "something else installs, upgrades or removes lite")
	// Whoever waits for an uninstall begins anew in a new directory.
	o.Sh(t, `touch /run/held; flock /etc/lite sh -c 'while [ -e /run/held ]; do sleep 0.1; done; rmdir /etc/lite' &
		until ! flock -n /etc/lite true; do sleep 0.1; done
		%s & while ! pgrep -x -f 'sleep 1' >/dev/null; do sleep 0.1; done; rm /run/held; wait $!`, inPlace+installer)
	o.Sh(t, "test -e /etc/lite/installed")
	o.gone(t, "lite-uninstall.sh")
	o.place(t, "/usr/local/bin")
	out := o.Sh(t, "mv /usr/bin/flock /usr/bin/flock.away; %s; code=$?; mv /usr/bin/flock.away /usr/bin/flock; exit $code", inPlace+installer)
	if !strings.Contains(out, "warning: there is no command flock") {
		t.Errorf("it says:\n%s", out)
	}
	o.Sh(t, "%[1]s --node-label=by=one & first=$!; %[1]s --node-label=by=two && wait $first", inPlace+installer)
	o.gone(t, "lite-uninstall.sh")
}

// testProxies hands a password on as it is, through what the init systems read.
func (o *odd) testProxies(t *testing.T) {
	const proxy = `http://user:p%40$HOME"a#b\c d;e@proxy.test:3128`
	o.place(t, "/usr/local/bin")
	o.Sh(t, "HTTPS_PROXY='%s' %s", proxy, inPlace+installer)
	for _, read := range []string{
		"systemd-run --quiet --pipe -p EnvironmentFile=/etc/lite/lite.env printenv HTTPS_PROXY",
		"set -a; . /etc/lite/lite.env; printenv HTTPS_PROXY",
	} {
		if got := o.Sh(t, "%s", read); got != proxy {
			t.Errorf("%s: %s, want %s", read, got, proxy)
		}
	}
	o.refuses(t, `HTTPS_PROXY="a'b" `+inPlace+installer, "HTTPS_PROXY contains a quote")
	o.gone(t, "lite-uninstall.sh")
}

// testData refuses what cannot be started on the data that is there.
func (o *odd) testData(t *testing.T) {
	o.refuses(t, fromRelease+"INSTALL_LITE_SKIP_START=true "+installer+"--data-dir '/srv/my data'", "choose a path without")
	o.Sh(t, "%s --data-dir /srv/data", fromRelease+"INSTALL_LITE_SKIP_START=true "+installer)
	o.Sh(t, `cmp "/srv/data/agent/images/busybox.tar" /root/release/images/busybox.tar`)
	o.Sh(t, `echo v99.0.0 >"/srv/data/version"`)
	o.refuses(t, inPlace+installer, "was last used by lite v99.0.0")
	// By its lock uninstalling knows that lite has worked there.
	o.Sh(t, `rm "/srv/data/version"; echo '{}' >"/srv/data/agent/cluster.json"; : >/srv/data/lite.lock`)
	o.refuses(t, inPlace+installer, "contains an agent of a cluster")
	o.gone(t, "lite-uninstall.sh")
}

// testSwapped has the owner of a release, who is not root, put other files in the place
// of those that were checked: after the first sum, which is the program's, and between the
// check of an image and its copy, when the files that were put in their places are labelled.
func (o *odd) testSwapped(t *testing.T) {
	const release, tools = "/root/swapped", "/root/swapping"
	prepare := func(tool, does, swapped string) {
		o.Sh(t, `rm -rf %[1]s %[2]s; mkdir -p %[1]s/images %[2]s; cd %[1]s; ln /root/lite lite-linux-%[3]s; echo right >images/x.tar; sha256sum lite-* images/* >SHA256SUMS
			cat >%[2]s/%[4]s <<'end'
#!/bin/sh
%[5]s
[ -e %[2]s/done ] || { printf '#!/bin/sh\necho evil\n' >%[1]s/evil; chmod 755 %[1]s/evil; mv %[1]s/evil %[1]s/%[6]s; }
: >%[2]s/done
end
			chmod 755 %[2]s/%[4]s`, release, tools, arch(t, o.Machine), tool, does, swapped)
	}
	const install = "PATH=" + tools + ":$PATH INSTALL_LITE_SKIP_START=true INSTALL_LITE_ARTIFACT=" + release + " " + installer
	prepare("sha256sum", `$(PATH=/usr/bin:/bin command -v sha256sum) "$@"`, "lite-linux-"+arch(t, o.Machine))
	o.Sh(t, install)
	o.Sh(t, "cmp /root/lite /usr/local/bin/lite && ! cmp -s /root/lite %s/lite-linux-*", release)
	prepare("restorecon", ":", "images/x.tar")
	o.Sh(t, "rm -rf /var/lib/lite/agent/images")
	// It labels what has changed.
	if out, err := o.Run(install + "--node-label=swapped=image"); err == nil || !strings.Contains(out, "images/x.tar has changed since it was checked") {
		t.Errorf("an image that was swapped: %v\n%s", err, out)
	}
	if out, err := o.Run("ls /var/lib/lite/agent/images/x.tar*"); err == nil {
		t.Errorf("it is there: %s", out)
	}
	o.Sh(t, "rm -rf %s %s", release, tools)
	o.gone(t, "lite-uninstall.sh")
}

// testItself has a program install itself, from where it lies, and again from its place.
func (o *odd) testItself(t *testing.T) {
	const start = "INSTALL_LITE_SKIP_START=true "
	o.refuses(t, "cd /root && INSTALL_LITE_PUBLIC_KEY=/root/key.pem ./lite setup", "INSTALL_LITE_PUBLIC_KEY is for install.sh")
	o.refuses(t, "cd /root && ./lite setup server --no-such-flag", "unknown flag: --no-such-flag: nothing was changed")
	o.Sh(t, "cd /root && "+start+"./lite setup server --disable metrics")
	o.Sh(t, "cmp /root/lite /usr/local/bin/lite && systemctl is-enabled lite && grep 'disable: .metrics.' "+dropIn)
	before := o.files(t)
	o.Sh(t, start+"lite setup && lite setup --help")
	o.same(t, "again", before)
	o.gone(t, "lite-uninstall.sh")
}

// testServed meets servers that do not serve what they should.
func (o *odd) testServed(t *testing.T) {
	var garbage bytes.Buffer
	w := gzip.NewWriter(&garbage)
	_, _ = io.WriteString(w, "a program")
	_ = w.Close()
	garbage.WriteString("and more")
	name := "lite-linux-" + arch(t, o.Machine) + ".gz"
	files := map[string]string{
		"/channels/html":     "<html>\n",
		"/v1.0.0/SHA256SUMS": "<html>\n",
		// As a Windows machine would write it.
		"/v1.1.0/SHA256SUMS": fmt.Sprintf("%X *%s\r\n", sha256.Sum256(garbage.Bytes()), name),
		"/v1.1.0/" + name:    garbage.String(),
	}
	listener, err := o.Network().Listen("tcp", cluster.Gateway+":8080")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, found := files[r.URL.Path]
		if !found {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, content)
	})}
	t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve(listener) }()
	o.Sh(t, "cd /root && openssl genrsa -out key.pem 2>/dev/null && openssl pkey -in key.pem -pubout -out public.pem && openssl genpkey -algorithm ed25519 | openssl pkey -pubout -out ed.pem")
	const from = "INSTALL_LITE_ALLOW_HTTP=true INSTALL_LITE_BASE_URL=http://me:secret@" + cluster.Gateway + ":8080/ "
	for _, c := range []struct{ command, want string }{
		{from + "INSTALL_LITE_CHANNEL=html ", "does not contain a version"},
		{from + "INSTALL_LITE_CHANNEL=none ", "cannot download http://" + cluster.Gateway + ":8080/channels/none"},
		{from + "INSTALL_LITE_VERSION=v1.0.0 ", "SHA256SUMS does not name " + name},
		{from + "INSTALL_LITE_VERSION=v1.1.0 ", name + " is damaged, though its checksum is correct"},
		{from + "INSTALL_LITE_VERSION=v1.1.0 INSTALL_LITE_PUBLIC_KEY=/root/public.pem ", "is not signed, or its signature cannot be downloaded"},
		{from + "INSTALL_LITE_VERSION=v1.1.0 INSTALL_LITE_PUBLIC_KEY=/root/ed.pem ", "neither an RSA nor an EC key"},
		{"INSTALL_LITE_BASE_URL=http://127.example.org ", "not encrypted"},
		{"INSTALL_LITE_BASE_URL=http://me:secret@192.0.2.1 ", "http://192.0.2.1 is not encrypted"},
		{"INSTALL_LITE_BASE_URL=ftp://127.0.0.1 ", "begins with https:// or http://"},
		{"INSTALL_LITE_BASE_URL='http://127.0.0.1/ x' ", "contains white space"},
	} {
		o.refuses(t, c.command+installer, c.want)
	}
	out, _ := o.Run(from + "INSTALL_LITE_VERSION=v1.1.0 " + installer)
	if strings.Contains(out, "secret") {
		t.Errorf("it tells the password:\n%s", out)
	}
}
