package images

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"

	"lite.io/lite/tests/harness/fuzz"
)

// amd64 is the platform that images have to be for.
var amd64 = platforms.OnlyStrict(platforms.MustParse("linux/amd64"))

// Anybody may have made an archive. Whatever it is: what is wrong with it is reported to a person in one line, it takes no
// more memory than archives may, and half of it is not another archive.
func FuzzInspect(f *testing.F) {
	whole := [][]byte{nil, []byte("no archive"), {0x1f, 0x8b, 8}, {0x28, 0xb5, 0x2f, 0xfd, 0}}
	for _, entries := range [][]entry{docker("amd64", "a:1", "b.test/c:2"), docker("arm64", "a:1"), ociLayout("a.test/b:1", "amd64", "arm64"), shared("a.test/b:1", "amd64", "arm64")} {
		data, err := packed(entries)
		if err != nil {
			f.Fatal(err)
		}
		whole = append(whole, data, data[:len(data)/2], gzipped(data), zstandard(data))
	}
	for _, seed := range whole {
		f.Add(seed, uint16(1000))
	}
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) { inspected(t, data, cut) })
}

// As FuzzInspect, for archives that are whole, of descriptions that are not: INDEX, MANIFEST and CONFIG in them stand for
// the digests of the others.
func FuzzDescriptions(f *testing.F) {
	const manifest = `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"CONFIG"}]}`
	const index = `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"MANIFEST","annotations":{"io.containerd.image.name":"a.test/b:1"}}]}`
	const config = `{"os":"linux","architecture":"amd64","rootfs":{}}`
	f.Add(true, index, manifest, config)
	f.Add(true, strings.Replace(index, ".manifest.v1", ".index.v1", 1), index, config)
	f.Add(true, index, strings.ReplaceAll(manifest, "CONFIG", "sha256:x"), config)
	f.Add(true, strings.Replace(index, "MANIFEST", "sha256:../../../../etc/passwd", 1), manifest, config)
	f.Add(true, `{"manifests":[`+strings.Repeat(`{"digest":"MANIFEST"},`, 50)+`{}]}`, manifest, config)
	f.Add(true, "null", "null", "null")
	f.Add(false, `[{"Config":"config","RepoTags":["a:1","b/c:2"],"Layers":["config"]}]`, "", config)
	f.Add(false, `[{"Config":"../config","RepoTags":["A B"],"Layers":["/etc/passwd"]},null]`, "", `{"os":"windows"}`)
	f.Fuzz(func(t *testing.T, oci bool, index, manifest, config string) {
		of := func(text string) string { return digest.FromString(text).String() }
		manifest = strings.ReplaceAll(manifest, "CONFIG", of(config))
		index = strings.ReplaceAll(strings.ReplaceAll(index, "MANIFEST", of(manifest)), "CONFIG", of(config))
		entries := []entry{{"manifest.json", index}, {"config", config}}
		if oci {
			blob := func(text string) entry { return entry{"blobs/sha256/" + digest.FromString(text).Encoded(), text} }
			entries = []entry{{"oci-layout", "{}"}, {"index.json", index}, blob(index), blob(manifest), blob(config)}
		}
		for _, e := range entries {
			if strings.HasPrefix(e.content, "->") {
				return // to pack, that is a link
			}
		}
		data, err := packed(entries)
		if err != nil {
			return
		}
		inspected(t, data, uint16(len(data)/2))
	})
}

// inspected checks an archive, and its first bytes.
func inspected(t *testing.T, data []byte, cut uint16) {
	var c Content
	var err error
	fuzz.AllocatesAtMost(t, 256, func() { c, err = Inspect(bytes.NewReader(data), amd64) })
	if err != nil {
		if !errors.As(err, new(unfit)) {
			t.Errorf("nobody is told what to do: %v (%T)", err, err)
		}
		fuzz.OneLine(t, err)
		return
	}
	if len(c.Images) == 0 || !slices.IsSorted(c.Images) || len(slices.Compact(slices.Clone(c.Images))) != len(c.Images) || c.Size < 0 {
		t.Errorf("it holds %q, %d bytes", c.Images, c.Size)
	}
	part := data[:min(int(cut), len(data))]
	if less, err := Inspect(bytes.NewReader(part), amd64); err == nil && !slices.Equal(less.Images, c.Images) {
		t.Errorf("it holds %q, and the first %d of its %d bytes hold %q", c.Images, len(part), len(data), less.Images)
	}
}
