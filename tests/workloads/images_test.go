package workloads

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"lite.io/lite/tests/harness/cluster"
)

const (
	mirrorUser     = "reader"
	mirrorPassword = "pass word"
)

// mirror is an image registry on the node's loopback interface that lite is
// told to use in place of registry.test. It wants a password, and has the
// images below another path.
type mirror struct {
	mu     sync.Mutex
	pulled []string // paths asked for with the right password
}

func (m *mirror) serve(t testing.TB, n *cluster.Node) {
	t.Helper()
	listener, err := n.Listen("tcp", "127.0.0.1:5000")
	if err != nil {
		t.Fatal(err)
	}
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	for _, repository := range []string{"cache/team/app", "plain/one", "plain/two"} {
		if err := push(images, cluster.ImageTarball(t, "busybox"), repository, "1"); err != nil {
			t.Fatal(err)
		}
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != mirrorUser || password != mirrorPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="mirror"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		m.mu.Lock()
		m.pulled = append(m.pulled, r.URL.Path)
		m.mu.Unlock()
		images.ServeHTTP(w, r)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })

	n.WriteFile(t, registriesFile, fmt.Sprintf(registries, mirrorUser, mirrorPassword))
}

const (
	registriesFile = "/etc/lite/registries.yaml"
	registries     = `
mirrors:
  registry.test:
    endpoint: ["http://127.0.0.1:5000"]
    rewrite: {"^team/(.*)": "cache/team/$1"}
configs:
  "127.0.0.1:5000":
    auth: {username: %s, password: %s}
`
)

// An image of a registry that cannot be reached is pulled from its mirror.
func (s suite) testRegistryMirror(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  restartPolicy: Never
  containers: [{name: main, image: "registry.test/team/app:1", imagePullPolicy: Always, command: [echo, hello]}]
`)
	ns.WaitFor(t, "jsonpath={.status.phase}=Succeeded", "pod/app")
	s.mirror.mu.Lock()
	defer s.mirror.mu.Unlock()
	if !slices.ContainsFunc(s.mirror.pulled, func(path string) bool {
		return strings.HasPrefix(path, "/v2/cache/team/app/blobs/")
	}) {
		t.Errorf("the mirror was asked for %v, not for a blob of the image", s.mirror.pulled)
	}
}

// Another registries.yaml is in force without a restart, with its credentials, here of
// all mirrors and for the plain ones; a wrong one changes nothing and is told.
func (s suite) testRegistriesChange(t *testing.T, ns *cluster.Namespace) {
	n := s.cluster.Server()
	before := fmt.Sprintf(registries, mirrorUser, mirrorPassword)
	pull := func(name, repository string) {
		t.Helper()
		ns.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  containers: [{name: main, image: "%s:1", imagePullPolicy: Always, command: [echo, hello]}]
`, name, repository))
		ns.WaitFor(t, "jsonpath={.status.phase}=Succeeded", "pod/"+name)
	}
	told := func(what string) {
		t.Helper()
		eventually(t, func() error {
			if log := n.Log(); !strings.Contains(log, what) {
				return fmt.Errorf("the log does not say %q", what)
			}
			return nil
		})
	}

	n.WriteFile(t, registriesFile, strings.Replace(before, "mirrors:", "mirrors:\n  later.test: {endpoint: ['http://localhost:5000']}", 1)+
		fmt.Sprintf("  '*': {auth: {username: %s, password: %s}}\n", mirrorUser, mirrorPassword))
	told("The new registries.yaml is in effect")
	pull("one", "later.test/plain/one")

	n.WriteFile(t, registriesFile, "mirrors:\n  later.test: {endpoints: []}\n")
	told("registries.yaml is invalid; the previous one stays in effect")
	if status := n.Output(t, "lite", "status"); !strings.Contains(status, registriesFile+":2: mirrors: later.test: unknown key") {
		t.Errorf("lite status does not say so:\n%s", status)
	}
	pull("two", "later.test/plain/two")

	n.WriteFile(t, registriesFile, before)
	eventually(t, func() error {
		if status := n.Output(t, "lite", "status"); strings.Contains(status, "registries.yaml") {
			return fmt.Errorf("lite status still says:\n%s", status)
		}
		return nil
	})
}

// push puts the only image of an archive into a registry, changed a little: the
// kubelet would hold every name of an image that it has once pulled, by its ID,
// for one that needs the registry's permission (KubeletEnsureSecretPulledImages).
func push(to http.Handler, archive, repository, tag string) error {
	image, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		return err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config := file.Config
	config.Labels = map[string]string{"from": repository}
	if image, err = mutate.Config(image, config); err != nil {
		return err
	}
	send := func(method, path, contentType string, body []byte) error {
		request := httptest.NewRequest(method, path, strings.NewReader(string(body)))
		request.Header.Set("Content-Type", contentType)
		answer := httptest.NewRecorder()
		if to.ServeHTTP(answer, request); answer.Code >= 300 {
			return fmt.Errorf("%s %s: %d %s", method, path, answer.Code, answer.Body)
		}
		return nil
	}
	blob := func(digest fmt.Stringer, content []byte) error {
		return send("POST", "/v2/"+repository+"/blobs/uploads/?digest="+digest.String(), "application/octet-stream", content)
	}

	layers, err := image.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return err
		}
		compressed, err := layer.Compressed()
		if err != nil {
			return err
		}
		content, err := io.ReadAll(compressed)
		compressed.Close()
		if err != nil {
			return err
		}
		if err := blob(digest, content); err != nil {
			return err
		}
	}
	raw, err := image.RawConfigFile()
	if err != nil {
		return err
	}
	configDigest, err := image.ConfigName()
	if err != nil {
		return err
	}
	if err := blob(configDigest, raw); err != nil {
		return err
	}
	manifest, err := image.RawManifest()
	if err != nil {
		return err
	}
	mediaType, err := image.MediaType()
	if err != nil {
		return err
	}
	return send("PUT", "/v2/"+repository+"/manifests/"+tag, string(mediaType), manifest)
}

// criImage is an image as the container runtime lists it.
type criImage struct {
	RepoTags []string
	Pinned   bool
}

func crictlImage(t testing.TB, n *cluster.Node, tag string) (criImage, error) {
	t.Helper()
	var list struct{ Images []criImage }
	out := n.Output(t, "lite", "crictl", "images", "-o", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return criImage{}, fmt.Errorf("%w: %s", err, out)
	}
	for _, image := range list.Images {
		if slices.Contains(image.RepoTags, tag) {
			return image, nil
		}
	}
	return criImage{}, fmt.Errorf("no image %s among %v", tag, list.Images)
}
