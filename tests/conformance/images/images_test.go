package images

import (
	"archive/tar"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	imageutils "k8s.io/kubernetes/test/utils/image"
)

// A new version of Kubernetes may bring images that nobody has thought of.
func TestEveryImageIsMadeOrSaysWhyNot(t *testing.T) {
	used := map[string]bool{}
	for id, config := range imageutils.GetImageConfigs() {
		name := config.GetE2EImage()
		_, made := recipes[id]
		i := slices.IndexFunc(NotMade(), func(m Missing) bool { return strings.Contains(name, m.Image) })
		switch {
		case made == (i >= 0):
			t.Errorf("%s: made: %v, and among those that are not: %v", name, made, i >= 0)
		case i >= 0:
			used[NotMade()[i].Image] = true
		}
	}
	for _, m := range NotMade() {
		if _, err := regexp.Compile(m.Specs); err != nil || m.Reason == "" || !used[m.Image] {
			t.Errorf("%s: reason %q, %v; the tests know it: %v", m.Image, m.Reason, err, used[m.Image])
		}
	}
}

// What is built can be pulled by the names that the tests use.
func TestImagesCanBePulled(t *testing.T) {
	dir := t.TempDir()
	s := Sources{Base: filepath.Join(dir, "base.tar"), Programs: filepath.Join(dir, "bin"), Upstream: filepath.Join(dir, "upstream")}
	base, err := os.Create(s.Base)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(base)
	if err := add(w, tar.Header{Typeflag: tar.TypeReg, Name: "/bin/sh", Mode: 0o755}, []byte("#!")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range recipes {
		for _, from := range r.files {
			path := s.find(from)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(from), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	served, err := recipes[imageutils.Pause].served(s)
	if err != nil {
		t.Fatal(err)
	}
	// An index, a manifest, a configuration and a layer, and the name of the first.
	digestOf := strings.TrimSpace(served["/var/registry/pause/manifests/testing"])
	algorithm, sum, _ := strings.Cut(digestOf, ":")
	index := served["/var/registry/pause/manifests/"+algorithm+"/"+sum[:2]+"/"+sum+"/data"]
	if len(served) != 5 || !strings.Contains(index, `"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json"`) {
		t.Errorf("agnhost serves %q of %d files", index, len(served))
	}
	layout := filepath.Join(dir, "layout")
	missing, err := Build(layout, s)
	if err != nil {
		t.Fatal(err)
	}
	if len(missing)+len(recipes) != len(imageutils.GetImageConfigs()) {
		t.Errorf("missing are %q", missing)
	}
	handler, hosts, err := Registry(layout)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"registry.k8s.io"}; !slices.Equal(hosts, want) {
		t.Errorf("mirrors of %q", hosts)
	}
	config := imageutils.GetConfig(imageutils.Agnhost)
	host, path, _ := strings.Cut(config.GetE2EImage(), "/")
	repository, tag, _ := strings.Cut(path, ":")
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/v2/"+repository+"/manifests/"+tag+"?ns="+host, nil))
	digest := regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindAllString(answer.Body.String(), -1)
	if answer.Code != http.StatusOK || len(digest) != 3 {
		t.Fatalf("%s: %d %s", config.GetE2EImage(), answer.Code, answer.Body)
	}
	for _, d := range digest {
		blob := httptest.NewRecorder()
		if handler.ServeHTTP(blob, httptest.NewRequest(http.MethodGet, "/v2/"+repository+"/blobs/"+d, nil)); blob.Code != http.StatusOK {
			t.Errorf("%s: %d", d, blob.Code)
		}
	}
}
