// Package images shows that a node without a network gets images, keeps them, and
// passes them on.
package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"lite.io/lite/tests/harness/cluster"
)

const (
	disk     = cluster.DataDir + "/agent" // a small one: images and containers, not etcd
	imageDir = disk + "/images"
	in       = "/root/archives/" // where the archives to import are, in a host
)

// helmConfig is the type of the configuration of a chart.
const helmConfig = types.MediaType("application/vnd.cncf.helm.config.v1+json")

func TestMain(m *testing.M) { cluster.Main(m) }

// TestImages has all that is done to the images of one node, on a small disk.
func TestImages(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	says(t, n, []string{"lite", "images", "list"}, "is not running", "copy archives into "+imageDir)
	n.Output(t, "mount", "-t", "tmpfs", "-o", "size=600m,mode=700", "tmpfs", disk)
	n.Start(t,
		// The kubelet looks for images to collect every five minutes, and when the
		// disk is full, which it looks at every ten seconds.
		"--kubelet-arg", "eviction-hard=imagefs.available<300Mi", "--kubelet-arg", "minimum-image-ttl-duration=1ms",
		"--kubelet-arg", "eviction-pressure-transition-period=1s")
	s := &suite{n}
	t.Run("formats", s.testFormats)
	t.Run("a pod", s.testPod)
	t.Run("refused", s.testRefused)
	t.Run("replaced", s.testReplaced)
	t.Run("exported", s.testExported)
	t.Run("removed", s.testRemoved)
	t.Run("directory", s.testDirectory)
	t.Run("cut short", s.testKilled)
	t.Run("full disk", s.testFullDisk)
	t.Run("disk pressure", s.testPressure)
	t.Run("restart", s.testRestart)
}

type suite struct{ *cluster.Node }

// listed is an image as `lite images list -o json` has it.
type listed struct {
	Name, ID, Source string
	Size             int64
	Pinned           bool
}

func list(t *testing.T, n *cluster.Node) map[string]listed {
	t.Helper()
	var all []listed
	out := n.Output(t, "lite", "images", "list", "-o", "json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	byName := map[string]listed{}
	for _, i := range all {
		byName[i.Name] = i
	}
	return byName
}

// says runs a command that must fail with one line that has certain words.
func says(t *testing.T, n *cluster.Node, command []string, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := n.Command(ctx, command[0], command[1:]...)
	var stderr strings.Builder
	c.Stderr = &stderr
	if err := c.Run(); err == nil {
		t.Errorf("%v succeeded", command)
	}
	message := strings.TrimSpace(stderr.String())
	if message == "" || strings.Contains(message, "\n") {
		t.Errorf("%v: want one line, got:\n%s", command, message)
	}
	for _, word := range want {
		if !strings.Contains(message, word) {
			t.Errorf("%v: the message does not say %q:\n%s", command, word, message)
		}
	}
}

// files is the names in the node's image directory, hidden ones too.
func (s *suite) files(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(s.Path(imageDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// put saves an image where the node can import it from.
func (s *suite) put(t *testing.T, file, name string, i v1.Image) string {
	t.Helper()
	save(t, s.Path(in+file), map[string]v1.Image{name: i})
	return in + file
}

func (s *suite) testFormats(t *testing.T) {
	before := len(s.files(t))
	for file, name := range map[string]string{
		"plain.tar": "lite.test/plain:1", "gzip.tar.gz": "lite.test/gzip:1", "zstd.tar.zst": "lite.test/zstd:1",
	} {
		path := s.put(t, file, name, image(t, file))
		if got := s.Output(t, "lite", "images", "import", path); got != "imported "+name+"\n" {
			t.Errorf("%s: it says:\n%s", file, got)
		}
	}
	saveLayout(t, s.Path(in+"layout.tgz"), "lite.test/layout:1", image(t, "layout"))
	if got := s.Output(t, "sh", "-c", "lite images import - <"+in+"layout.tgz"); got != "imported lite.test/layout:1\n" {
		t.Errorf("standard input: it says:\n%s", got)
	}
	save(t, s.Path(in+"two.tar"), map[string]v1.Image{"lite.test/two:a": image(t, "a"), "lite.test/two:b": image(t, "b")})
	s.Output(t, "lite", "images", "import", in+"two.tar")
	s.Output(t, "lite", "images", "import", in+"two.tar", in+"plain.tar") // again: nothing changes

	all := list(t, s.Node)
	for _, name := range []string{"plain:1", "gzip:1", "zstd:1", "layout:1", "two:a", "two:b"} {
		if i := all["lite.test/"+name]; !i.Pinned || i.Size == 0 || i.ID == "" || i.Source == "pulled" {
			t.Errorf("%s: got %+v", name, i)
		}
	}
	if got := len(s.files(t)) - before; got != 5 {
		t.Errorf("%d archives were kept, want 5: %v", got, s.files(t))
	}
	if out := s.Output(t, "lite", "crictl", "images", "--pinned"); !strings.Contains(out, "lite.test/zstd") {
		t.Errorf("for the kubelet these are pinned:\n%s", out)
	}
}

func (s *suite) testPod(t *testing.T) {
	s.KubectlStdin(t, `
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  containers: [{name: main, image: "lite.test/zstd:1", imagePullPolicy: Never, command: [sleep, "3600"]}]
`, "apply", "-f", "-")
	s.Kubectl(t, "wait", "--for=condition=Ready", "pod/user", "--timeout=60s")
	says(t, s.Node, []string{"lite", "images", "remove", "lite.test/zstd:1"}, "lite.test/zstd:1 has 1 containers", "--force")
	s.Kubectl(t, "delete", "pod", "user", "--grace-period=1")
}

func (s *suite) testRefused(t *testing.T) {
	before, images := s.files(t), len(list(t, s.Node))
	path := s.put(t, "whole.tar", "lite.test/whole:1", image(t, "whole"))
	whole, err := os.ReadFile(s.Path(path))
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.Path(in+"short.tar"), whole[:len(whole)/2])
	write(t, s.Path(in+"text.tar"), []byte(strings.Repeat("no archive\n", 1000)))
	s.put(t, "arm.tar", "lite.test/arm:1", changed(t, func(f *v1.ConfigFile) { f.Architecture = other }))
	saveLayout(t, s.Path(in+"chart.tar"), "lite.test/chart:1", artifact(t, helmConfig, "application/vnd.cncf.helm.chart.content.v1.tar+gzip"))
	saveLayout(t, s.Path(in+"files.tgz"), "lite.test/files:1", artifact(t, "application/vnd.oci.empty.v1+json", "text/plain"))
	saveLayout(t, s.Path(in+"signature.tar"), "lite.test/signature:1", artifact(t, types.OCIConfigJSON, "application/vnd.dev.cosign.simplesigning.v1+json"))
	for file, want := range map[string]string{
		in + "chart.tar":     "lite.test/chart:1 in it is not an image but another artifact (" + string(helmConfig) + ")",
		in + "files.tgz":     "lite.test/files:1 in it is not an image but another artifact (application/vnd.oci.empty.v1+json)",
		in + "signature.tar": "lite.test/signature:1 in it is not an image but another artifact (application/vnd.dev.cosign",
		in + "short.tar":     "it is incomplete, with",
		in + "text.tar":      "not an image archive",
		in + "arm.tar":       "lite.test/arm:1 in it is for linux/" + other,
		in + "nowhere.tar":   "no such file",
		in:                   "tar -C",
		"/dev/null":          "it is empty",
	} {
		says(t, s.Node, []string{"lite", "images", "import", file}, "import "+file, want)
	}
	// What is wrong with one keeps no other back.
	says(t, s.Node, []string{"lite", "images", "import", in + "short.tar", path}, "it is incomplete")
	if _, ok := list(t, s.Node)["lite.test/whole:1"]; !ok {
		t.Error("the archive after a bad one was not imported")
	}
	s.Output(t, "lite", "images", "remove", "lite.test/whole:1")
	if got := s.files(t); !slices.Equal(got, before) || len(list(t, s.Node)) != images {
		t.Errorf("something is left: %v", got)
	}
	says(t, s.Node, []string{"lite", "images", "import"}, "requires at least 1 arg")
	says(t, s.Node, []string{"lite", "images", "list", "-o", "yaml"}, "table or json")
}

// An import replaces an older one of the same images, and only that.
func (s *suite) testReplaced(t *testing.T) {
	s.Output(t, "lite", "images", "import", s.put(t, "app.tar", "lite.test/app:1", image(t, "old")))
	old, files := list(t, s.Node)["lite.test/app:1"], len(s.files(t))
	s.Output(t, "lite", "images", "import", s.put(t, "app.tar", "lite.test/app:1", image(t, "new")))
	now := list(t, s.Node)["lite.test/app:1"]
	if now.ID == old.ID || now.Source == old.Source || !now.Pinned {
		t.Errorf("was %+v, is %+v", old, now)
	}
	if got := s.files(t); len(got) != files || slices.Contains(got, old.Source) {
		t.Errorf("the old archive is still among %v", got)
	}
	// two:a comes from another archive now; the archive of both is needed for two:b.
	s.Output(t, "lite", "images", "import", s.put(t, "a.tar", "lite.test/two:a", image(t, "a2")))
	if len(s.files(t)) != files+1 {
		t.Errorf("the archive of two:b is not among %v", s.files(t))
	}
}

func (s *suite) testExported(t *testing.T) {
	says(t, s.Node, []string{"lite", "images", "export", "-o", in + "x.tar", "lite.test/ap:1", "lite.test/app:2"},
		"image lite.test/ap:1 is not on this node", "image lite.test/app:2 is not on this node; similar names are: lite.test/app:1")
	if _, err := os.Stat(s.Path(in + "x.tar")); err == nil {
		t.Error("a failed export has left a file")
	}
	says(t, s.Node, []string{"lite", "images", "export", "-o", "/dev/null", "lite.test/app:1"}, "/dev/null exists and is not a file")
	want := list(t, s.Node)
	s.Output(t, "lite", "images", "export", "-o", in+"x.tar.zst", "lite.test/app:1", "lite.test/layout:1")
	s.Output(t, "lite", "images", "remove", "lite.test/app:1")
	s.Output(t, "lite", "images", "remove", "lite.test/layout:1")
	s.Output(t, "sh", "-c", "set -e; lite images import "+in+"x.tar.zst; lite images export lite.test/app:1 | lite images import -")
	got := list(t, s.Node)
	for _, name := range []string{"lite.test/app:1", "lite.test/layout:1"} {
		if got[name].ID != want[name].ID || !got[name].Pinned {
			t.Errorf("%s was %+v, is %+v", name, want[name], got[name])
		}
	}
}

func (s *suite) testRemoved(t *testing.T) {
	says(t, s.Node, []string{"lite", "images", "remove", "lite.test/two:b"}, "also contains lite.test/two:a")
	says(t, s.Node, []string{"lite", "images", "remove", "lite.io/pause:3.10.2"}, "part of lite")
	s.Output(t, "lite", "images", "remove", "lite.test/two:a", "lite.test/two:b")
	for name := range list(t, s.Node) {
		if strings.Contains(name, "two") {
			t.Errorf("%s is still there", name)
		}
	}
	if out := s.Output(t, "lite", "ctr", "images", "ls", "-q"); strings.Contains(out, "two") {
		t.Errorf("containerd has:\n%s", out)
	}
	says(t, s.Node, []string{"lite", "images", "remove", "lite.test/two:b"}, "not on this node")

	// Without the sandbox image no pod would start: it comes back.
	const pause = "lite.io/pause:3.10.2"
	for _, tool := range [][]string{{"crictl", "rmi"}, {"ctr", "images", "rm"}} {
		s.Output(t, "lite", append(tool, pause)...)
		cluster.Eventually(t, 30*time.Second, func() error {
			if !strings.Contains(s.Output(t, "lite", "ctr", "images", "ls", "-q"), pause) {
				return fmt.Errorf("after %s there is no %s", tool[0], pause)
			}
			return nil
		})
		s.testPod(t)
	}
}

// What appears in the image directory is imported, under whatever name, and when the
// directory is another one. What is damaged changes no image that is there.
func (s *suite) testDirectory(t *testing.T) {
	appears := func(archive, name string) listed {
		t.Helper()
		save(t, s.Path(imageDir+"/"+archive), map[string]v1.Image{name: image(t, archive)})
		var got listed
		cluster.Eventually(t, time.Minute, func() error {
			if got = list(t, s.Node)[name]; !got.Pinned || got.Source != archive {
				return fmt.Errorf("%s: got %+v", name, got)
			}
			return nil
		})
		return got
	}
	odd := appears("my Äpp 'n $HOME.tar", "lite.test/odd:1")
	appears("-"+strings.Repeat("long ", 45)+".tar.gz", "lite.test/long:1")

	path := s.put(t, "damaged.tar", "lite.test/odd:1", withNoise(t, image(t, "damaged"), 8<<20))
	data, err := os.ReadFile(s.Path(path))
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	write(t, s.Path(imageDir+"/damaged.tar"), data)
	cluster.Eventually(t, time.Minute, func() error {
		if !strings.Contains(s.Log(), "import "+imageDir+"/damaged.tar: ") {
			return errors.New("the log does not name the damaged archive")
		}
		// A log is not looked at while all is said to be ready (k3s#13136).
		if status := s.Output(t, "lite", "status"); !strings.Contains(status, "not imported, the log shows why: damaged.tar") {
			return fmt.Errorf("the status does not name the damaged archive:\n%s", status)
		}
		return nil
	})
	if got := list(t, s.Node)["lite.test/odd:1"]; got != odd {
		t.Errorf("a damaged archive made of %+v: %+v", odd, got)
	}
	says(t, s.Node, []string{"lite", "images", "import", imageDir + "/damaged.tar"}, "lite.test/odd:1", "damaged")
	if got := list(t, s.Node)["lite.test/odd:1"]; got != odd {
		t.Errorf("a damaged archive made of %+v: %+v", odd, got)
	}

	saveLayout(t, s.Path(imageDir+"/chart.tar"), "lite.test/odd:1", artifact(t, helmConfig, "application/vnd.cncf.helm.chart.content.v1.tar+gzip"))
	cluster.Eventually(t, time.Minute, func() error {
		if !strings.Contains(s.Log(), "import "+imageDir+"/chart.tar: lite.test/odd:1 in it is not an image but another artifact ("+string(helmConfig)) {
			return errors.New("the log does not name the archive of a chart")
		}
		return nil
	})
	if got := list(t, s.Node)["lite.test/odd:1"]; got != odd {
		t.Errorf("an archive of a chart made of %+v: %+v", odd, got)
	}

	s.Output(t, "sh", "-c", "rm "+imageDir+"/damaged.tar "+imageDir+"/chart.tar && mv "+imageDir+" "+disk+"/was && mkdir "+imageDir)
	if status := s.Output(t, "lite", "status"); strings.Contains(status, "damaged.tar") {
		t.Errorf("the status names an archive that is gone:\n%s", status)
	}
	appears("second.tar", "lite.test/second:1")
	s.Output(t, "sh", "-c", "mv "+imageDir+"/* "+disk+"/was && rmdir "+imageDir+" && mv "+disk+"/was "+imageDir+" && rm "+imageDir+"/second.tar")
	appears("third.tar", "lite.test/third:1")
	if got := list(t, s.Node)["lite.test/second:1"]; !got.Pinned {
		t.Errorf("without its archive it is %+v", got)
	}
}

// A killed import leaves nothing, and keeps no later one back.
func (s *suite) testKilled(t *testing.T) {
	before := s.files(t)
	path := s.put(t, "killed.tar", "lite.test/killed:1", image(t, "killed"))
	data, err := os.ReadFile(s.Path(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, signal := range []os.Signal{os.Kill, os.Interrupt} {
		c := s.Command(t.Context(), "lite", "images", "import", "-")
		stdin, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := stdin.Write(data[:len(data)/2]); err != nil {
			t.Fatal(err)
		}
		if err := c.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if signal == os.Interrupt { // it notices when it can read
			_, _ = stdin.Write(data[len(data)/2:])
		}
		stdin.Close()
		if err := c.Wait(); err == nil {
			t.Errorf("with %v it succeeded", signal)
		}
		if got := s.files(t); !slices.Equal(got, before) {
			t.Errorf("after %v there is %v, was %v", signal, got, before)
		}
	}
	s.Output(t, "lite", "images", "import", path)
	if i := list(t, s.Node)["lite.test/killed:1"]; !i.Pinned {
		t.Errorf("got %+v", i)
	}
}

// fill leaves so many MiB of the disk free.
func (s *suite) fill(t *testing.T, free int) (empty func()) {
	t.Helper()
	const filler = disk + "/filler"
	s.Output(t, "sh", "-c", fmt.Sprintf(
		`have=$(df -Pm %s | awk 'NR == 2 { print $4 }'); dd if=/dev/zero of=%s bs=1M count=$((have - %d)) 2>&1`, disk, filler, free))
	return func() { _ = os.Remove(s.Path(filler)) }
}

func (s *suite) testFullDisk(t *testing.T) {
	before := s.files(t)
	path := in + "agnhost.tar" // 43 MB, and twice that for its layers
	copyFile(t, cluster.ImageTarball(t, "agnhost"), s.Path(path))
	const datastore = 128 // what is kept for it, where it is not on this disk as well
	empty := s.fill(t, datastore+60)
	defer empty()
	says(t, s.Node, []string{"lite", "images", "import", path}, "to import and unpack it needs at least 8", "lite images remove")
	empty()
	empty = s.fill(t, datastore+20)
	defer empty()
	says(t, s.Node, []string{"lite", "images", "import", path}, "the copy of the archive needs at least 4")
	// Of standard input nobody knows the size.
	says(t, s.Node, []string{"sh", "-c", "lite images import - <" + path}, "the copy of the archive needs more than", "are kept for the datastore", "nothing of it was stored")
	// This one says too little of itself.
	empty()
	empty = s.fill(t, datastore+60)
	defer empty()
	saveLayout(t, s.Path(in+"zeros.tar"), "lite.test/zeros:1", withZeros(t, image(t, "zeros"), 100<<20))
	says(t, s.Node, []string{"lite", "images", "import", in + "zeros.tar"}, "unpacking the layer sha256:", "needs more than", "nothing of it was stored")
	if i, ok := list(t, s.Node)["lite.test/zeros:1"]; ok {
		t.Errorf("half of an image is there: %+v", i)
	}
	if got := s.files(t); !slices.Equal(got, before) {
		t.Errorf("there is %v, was %v", got, before)
	}
	empty()
	empty = s.fill(t, 20)
	defer empty()
	says(t, s.Node, []string{"lite", "bundle", "create", "-o", disk + "/x.tar"}, "no space left on device", "--output")
	if left, _ := filepath.Glob(s.Path(disk) + "/x.tar*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if got := s.files(t); !slices.Equal(got, before) {
		t.Errorf("there is %v, was %v", got, before)
	}
}

// Images that were imported survive the kubelet's garbage collection, when others
// do not.
func (s *suite) testPressure(t *testing.T) {
	path := s.put(t, "loose.tar", "lite.test/loose:1", image(t, "loose"))
	s.Output(t, "lite", "ctr", "images", "import", path) // as a pull does, without a pin
	before := list(t, s.Node)
	if i := before["lite.test/loose:1"]; i.ID == "" || i.Pinned {
		t.Fatalf("got %+v", i)
	}
	defer s.fill(t, 150)()
	cluster.Eventually(t, time.Minute, func() error {
		if _, ok := list(t, s.Node)["lite.test/loose:1"]; ok {
			return fmt.Errorf("an image without a pin is still there:\n%s", s.Output(t, "df", disk))
		}
		return nil
	})
	after := list(t, s.Node)
	for name, i := range before {
		if i.Pinned && after[name] != i {
			t.Errorf("%s was %+v, is %+v", name, i, after[name])
		}
	}
	if len(after) != len(before)-1 {
		t.Errorf("of %d images there are %d", len(before), len(after))
	}
}

// Whatever was done to imported images, after a start they are as they were.
func (s *suite) testRestart(t *testing.T) {
	before := list(t, s.Node)
	s.Output(t, "lite", "ctr", "images", "label", "lite.test/gzip:1", "io.cri-containerd.pinned=")
	s.Output(t, "lite", "crictl", "rmi", "lite.test/plain:1")
	s.Output(t, "lite", "crictl", "rmi", "lite.test/app:1") // of an archive with another image
	// Others change what a name stands for, and add names, labels and all.
	s.Output(t, "lite", "ctr", "images", "import", "--local", s.put(t, "x.tar", "lite.test/killed:1", image(t, "another")))
	s.Output(t, "lite", "ctr", "images", "tag", "--local", "lite.test/zstd:1", "lite.test/copy:1")
	s.Output(t, "lite", "ctr", "images", "tag", "--local", "lite.test/odd:1", "lite.test/odd:2")
	s.Output(t, "lite", "ctr", "images", "rm", "lite.test/odd:1")
	// The archive's own time does not count, but when it came: an older app is behind.
	after := list(t, s.Node)
	if _, ok := after["lite.test/plain:1"]; ok || after["lite.test/gzip:1"].Pinned || after["lite.test/killed:1"].Source != "pulled" || after["lite.test/copy:1"].Source != "pulled" {
		t.Fatalf("got %+v", after)
	}
	s.Kill(t)
	s.Start(t)
	cluster.Eventually(t, time.Minute, func() error {
		after := list(t, s.Node)
		for name, i := range before {
			if after[name] != i {
				return fmt.Errorf("%s was %+v, is %+v", name, i, after[name])
			}
		}
		return nil
	})
	if strings.Contains(s.Log(), "from=zstd-") {
		t.Error("an archive was imported again for an image that was given a second name")
	}
}

// TestBundle brings lite and images to a machine that has nothing else.
func TestBundle(t *testing.T) {
	t.Parallel()
	from := cluster.NewNode(t)
	from.Start(t)
	s := &suite{from}
	s.Output(t, "lite", "images", "import", s.put(t, "app.tar", "lite.test/app:1", image(t, "bundled")))
	s.put(t, "other.tar.gz", "lite.test/other:1", image(t, "other"))
	want := list(t, from)["lite.test/app:1"]

	const bundle = "/var/log/bundle.tar"
	create := []string{"lite", "bundle", "create", "-o", bundle, "--image", "lite.test/app:1", "--image-file", in + "other.tar.gz"}
	out := s.Output(t, create[0], create[1:]...)
	for _, word := range []string{bundle, "install.sh", "lite-linux-", "lite.test/app:1", "lite.test/other:1"} {
		if !strings.Contains(out, word) {
			t.Errorf("it does not say %s:\n%s", word, out)
		}
	}
	says(t, from, create, bundle, "--force")
	says(t, from, []string{"lite", "bundle", "create", "-o", "/var/log/x.tar", "--image", "lite.test/ap:1"}, "similar names are: lite.test/app:1")
	// Compressing lite takes seconds: from here on it is done already.
	s.Output(t, "sh", "-c", "tar -C /var/log -xf "+bundle+" lite-linux-"+runtime.GOARCH+".gz")
	binary := []string{"--binary", "/var/log/lite-linux-" + runtime.GOARCH + ".gz"}
	says(t, from, append([]string{"lite", "bundle", "create", "-o", "/var/log/x.tar", "--image-file", "/etc/passwd"}, binary...), "/etc/passwd", "not an image archive")
	says(t, from, append([]string{"lite", "bundle", "create", "-o", "/var/log/x.tar", "--arch", other}, binary...), "an architecture other than")
	says(t, from, []string{"lite", "bundle", "create", "-o", "/var/log/x.tar", "--arch", other}, "--binary")
	says(t, from, []string{"lite", "bundle", "create", "-o", "/var/log/x.tar", "--binary", "/etc/passwd"}, "not a program for Linux")
	says(t, from, []string{"lite", "bundle", "create", "-o", "-"}, "it must be a file")
	says(t, from, []string{"lite", "bundle", "create", "-o", "/dev/full", "--force"}, "/dev/full exists and is not a file")
	for _, left := range []string{"/var/log/x.tar", "/var/log/x.tar.part", bundle + ".part"} {
		if _, err := os.Stat(from.Path(left)); err == nil {
			t.Errorf("%s was left behind", left)
		}
	}
	s.Output(t, "cp", bundle, "/var/log/first.tar")
	s.Output(t, create[0], append(append(create[1:], "--force"), binary...)...)
	s.Output(t, "cmp", bundle, "/var/log/first.tar")
	s.Output(t, "sh", "-c", "head -c 30000000 "+bundle+" >/var/log/short.tar; "+
		"(head -c 1000000 "+bundle+"; printf x; tail -c +1000002 "+bundle+") >/var/log/damaged.tar; rm /var/log/first.tar")
	says(t, from, []string{"lite", "bundle", "verify", "/var/log/short.tar"}, "/var/log/short.tar", "it is incomplete")
	says(t, from, []string{"lite", "bundle", "verify", "/var/log/damaged.tar"}, "lite-linux-", "copy")
	from.Stop(t)

	// A machine of its own network, with the tools of busybox.
	to := cluster.NewNode(t)
	copyFile(t, from.Path(bundle), to.Path("/var/log/bundle.tar"))
	if err := os.RemoveAll(to.Path(cluster.DataDir)); err != nil {
		t.Fatal(err)
	}
	to.Output(t, "sh", "-ec", `
mkdir /var/log/bundle
cd /var/log/bundle
busybox tar -xf ../bundle.tar
busybox sha256sum -c SHA256SUMS
sh -n install.sh
busybox gunzip -c lite-linux-*.gz >/usr/local/sbin/lite
chmod 755 /usr/local/sbin/lite
cmp /usr/local/sbin/lite /usr/local/bin/lite
mkdir -p `+imageDir+`
cp images/* `+imageDir)
	to.Start(t)
	cluster.Eventually(t, time.Minute, func() error {
		got := list(t, to)
		if got["lite.test/app:1"].ID != want.ID || !got["lite.test/app:1"].Pinned || !got["lite.test/other:1"].Pinned {
			return fmt.Errorf("got %+v", got)
		}
		return nil
	})
	to.Kubectl(t, "run", "app", "--image=lite.test/app:1", "--restart=Never", "--command", "--", "echo", "hello")
	to.Kubectl(t, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/app", "--timeout=60s")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	source, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	target, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(target, source); err != nil {
		t.Fatal(err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
}
