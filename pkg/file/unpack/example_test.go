package unpack_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"lite.io/lite/pkg/file/unpack"
)

// What others have packed is read through a limit of what comes out, whatever it claims.
func ExampleLimit() {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	_ = w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: 10 << 20})
	_, _ = w.Write(make([]byte, 10<<20))
	_, _ = w.Close(), z.Close()
	fmt.Println("packed to less than 100 kB:", packed.Len() < 100_000)

	plain, suffix, err := unpack.Decompress(&packed)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer plain.Close()
	files := unpack.NewTar(unpack.Limit(plain, 1<<20))
	h, err := files.Next()
	fmt.Println(suffix, h.Name, err)
	_, err = io.Copy(io.Discard, files)
	fmt.Println(err)
	// Output:
	// packed to less than 100 kB: true
	// .tar.gz zeros <nil>
	// it unpacks to more than 1.0 MB
}
