package bench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// measureSize compresses the binary, which takes a minute and more; what came
// out is remembered in dist/bench-sizes, by what went in.
func measureSize(b *testing.B, r *report) {
	b.Helper()
	binary := os.Getenv("LITE_BINARY")
	info, err := os.Stat(binary)
	if err != nil {
		b.Fatal(err)
	}
	r.add(size, float64(info.Size())/mb)
	sum := hash(b, binary)
	r.add(sizePlain, compressed(b, binary, sum)/mb)
	r.add(sizeLong, compressed(b, binary, sum, "--long=27")/mb)
}

func hash(b *testing.B, path string) string {
	b.Helper()
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// compressed returns what zstd makes of a file, in bytes.
func compressed(b *testing.B, path, sum string, options ...string) float64 {
	b.Helper()
	memo := filepath.Join(dist, "bench-sizes", strings.Join(append([]string{sum, "19"}, options...), ""))
	if text, err := os.ReadFile(memo); err == nil {
		if n, err := strconv.ParseFloat(string(text), 64); err == nil {
			return n
		}
	}
	progress("zstd -19 %s", strings.Join(options, " "))
	ctx, cancel := context.WithTimeout(b.Context(), 15*time.Minute)
	defer cancel()
	var out counter
	zstd := exec.CommandContext(ctx, "zstd", append([]string{"-q", "-c", "-19", "-T2", path}, options...)...)
	zstd.Stdout, zstd.Stderr = &out, os.Stderr
	if err := zstd.Run(); err != nil {
		b.Fatalf("compress %s: %v", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(memo), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(memo, strconv.AppendInt(nil, int64(out), 10), 0o644); err != nil {
		b.Fatal(err)
	}
	return float64(out)
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
