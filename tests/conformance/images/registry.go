package images

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// Registry serves the images of a layout as a mirror of all registries that they
// are named after. It returns the hosts of these.
func Registry(dir string) (handler http.Handler, hosts []string, err error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read images: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, nil, fmt.Errorf("read images: %w", err)
	}
	// Contents stay in the layout, which names them as the registry does.
	handler = registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewDiskBlobHandler(filepath.Join(dir, "blobs"))))
	known := map[string]bool{}
	for _, d := range manifest.Manifests {
		tag, err := name.NewTag(d.Annotations[nameAnnotation])
		if err != nil {
			return nil, nil, fmt.Errorf("image %q: %w", d.Annotations[nameAnnotation], err)
		}
		image, err := index.Image(d.Digest)
		if err != nil {
			return nil, nil, fmt.Errorf("image %s: %w", tag, err)
		}
		raw, err := image.RawManifest()
		if err != nil {
			return nil, nil, fmt.Errorf("image %s: %w", tag, err)
		}
		request := httptest.NewRequest(http.MethodPut, "/v2/"+tag.RepositoryStr()+"/manifests/"+tag.TagStr(), bytes.NewReader(raw))
		request.Header.Set("Content-Type", string(d.MediaType))
		answer := httptest.NewRecorder()
		if handler.ServeHTTP(answer, request); answer.Code >= 300 {
			return nil, nil, fmt.Errorf("image %s: the registry says %d %s", tag, answer.Code, strings.TrimSpace(answer.Body.String()))
		}
		if host := tag.RegistryStr(); !known[host] {
			known[host] = true
			hosts = append(hosts, host)
		}
	}
	return handler, hosts, nil
}
