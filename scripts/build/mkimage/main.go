// Command mkimage packs files into an image, as an archive that `docker load` and containerd can import. The same input
// gives the same image, to the byte.
//
//	mkimage -o pause.tar -tag lite.io/pause:3.10 -entrypoint /pause ./pause=/pause
//	mkimage -o db.tar -tag db:15 -base debian.tar -dir /tmp:1777
//	mkimage -o box.tar -tag box:1 -tag box:2,VERSION=2 -link /bin/ls=/bin/busybox -dir /tmp:1777 busybox=/bin/busybox:755
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"log"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	log.SetFlags(0)
	log.SetPrefix("mkimage: ")
	var tags, entrypoint, cmd, env, links, dirs list
	out := flag.String("o", "", "archive to write")
	arch := flag.String("arch", runtime.GOARCH, "architecture of the files")
	user := flag.String("user", "", "user[:group] to run as")
	base := flag.String("base", "", "tar of a file system that lies below all else")
	flag.Var(&tags, "tag", "name:tag[,K=V...] of an image, with variables of its own; repeat for images that share the files")
	flag.Var(&entrypoint, "entrypoint", "word of the entrypoint; repeatable")
	flag.Var(&cmd, "cmd", "word of the default command; repeatable")
	flag.Var(&env, "env", "K=V in the environment; repeatable")
	flag.Var(&links, "link", "/path=target, a symbolic link; repeatable")
	flag.Var(&dirs, "dir", "/path[:mode], a directory; repeatable")
	flag.Parse()
	layer, err := pack(dirs, links, flag.Args())
	if err != nil {
		log.Fatal(err)
	}
	layers, err := stack(*base, layer)
	if err != nil {
		log.Fatal(err)
	}
	config := v1.Config{User: *user, Env: env, Entrypoint: entrypoint, Cmd: cmd}
	if err := write(*out, *arch, layers, config, tags); err != nil {
		log.Fatal(err)
	}
}

// pack makes one uncompressed layer. Files are src=/dest[:mode]; a mode is octal, 755 unless given.
func pack(dirs, links, files []string) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, d := range dirs {
		dest, mode, err := splitMode(d)
		if err != nil {
			return nil, err
		}
		if err := add(w, tar.Header{Typeflag: tar.TypeDir, Name: dest + "/", Mode: mode}, nil); err != nil {
			return nil, err
		}
	}
	for _, f := range files {
		src, dest, _ := strings.Cut(f, "=")
		dest, mode, err := splitMode(dest)
		if err != nil {
			return nil, err
		}
		content, err := os.ReadFile(src)
		if err != nil {
			return nil, err
		}
		if err := add(w, tar.Header{Typeflag: tar.TypeReg, Name: dest, Mode: mode}, content); err != nil {
			return nil, err
		}
	}
	for _, l := range links {
		from, to, _ := strings.Cut(l, "=")
		if err := add(w, tar.Header{Typeflag: tar.TypeSymlink, Name: from, Linkname: to, Mode: 0o777}, nil); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return static.NewLayer(buf.Bytes(), types.DockerUncompressedLayer), nil
}

// stack puts a layer upon a tar of a file system, if there is one.
func stack(base string, layer v1.Layer) ([]v1.Layer, error) {
	if base == "" {
		return []v1.Layer{layer}, nil
	}
	below, err := tarball.LayerFromFile(base, tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", base, err)
	}
	return []v1.Layer{below, layer}, nil
}

func splitMode(s string) (dest string, mode int64, err error) {
	dest, octal, ok := strings.Cut(s, ":")
	if !path.IsAbs(dest) {
		return "", 0, fmt.Errorf("%q has no absolute path inside the image", s)
	}
	if !ok {
		return dest, 0o755, nil
	}
	mode, err = strconv.ParseInt(octal, 8, 32)
	return dest, mode, err
}

func add(w *tar.Writer, h tar.Header, content []byte) error {
	h.Name = strings.TrimPrefix(h.Name, "/")
	h.Size = int64(len(content))
	if err := w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

func write(file, arch string, layers []v1.Layer, config v1.Config, tags []string) error {
	images := map[name.Tag]v1.Image{}
	for _, t := range tags {
		words := strings.Split(t, ",")
		tag, err := name.NewTag(words[0], name.StrictValidation)
		if err != nil {
			return err
		}
		own := config
		own.Env = append(append([]string{}, config.Env...), words[1:]...)
		image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
			Architecture: arch, OS: "linux", Config: own, RootFS: v1.RootFS{Type: "layers"},
		})
		if err != nil {
			return err
		}
		if images[tag], err = mutate.AppendLayers(image, layers...); err != nil {
			return err
		}
	}
	return tarball.MultiWriteToFile(file, images)
}
