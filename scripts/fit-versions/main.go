// Command fit-versions says which versions of what lite is made of go together with
// a version of Kubernetes, by what each one's go.mod requires, and where go.mod has
// others:
//
//	go run ./scripts/fit-versions            the Kubernetes that go.mod has
//	go run ./scripts/fit-versions v1.38.0    another one
//
// It asks the Go module proxy for lists of versions and for go.mod files, some 40
// small requests, and downloads no sources. That versions fit does not say that they
// compile, or work. The exit code is 1 where something in go.mod does not fit.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"text/tabwriter"
)

// family is what has to go together, k8s.io/kubernetes aside.
var family = []string{
	etcd,
	"github.com/containerd/containerd/v2",
	"github.com/containerd/fuse-overlayfs-snapshotter/v2",
	"github.com/containernetworking/plugins",
	"github.com/coredns/coredns",
	"github.com/k3s-io/kine",
	"github.com/opencontainers/runc",
	"sigs.k8s.io/cri-tools",
	"sigs.k8s.io/metrics-server",
}

const (
	kubernetes = "k8s.io/kubernetes"
	etcd       = "go.etcd.io/etcd/server/v3"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("fit-versions: ")
	file := flag.String("mod", "go.mod", "the `file` to compare with")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: fit-versions [flags] [version of Kubernetes]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 1 {
		flag.Usage()
		os.Exit(2)
	}
	agree, err := run(os.Stdout, *file, flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	if !agree {
		os.Exit(1)
	}
}

// run prints the table for a version of Kubernetes, "" for that of the go.mod in
// file, and reports whether all that stands there fits.
func run(out io.Writer, file, version string) (agree bool, err error) {
	ours, err := parse(file)
	if err != nil {
		return false, err
	}
	if version == "" {
		version = ours.requires[kubernetes]
	}
	dir, err := os.MkdirTemp("", "fit-versions-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	// Of its own, so that what ours replaces does not count.
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module fit\n\ngo 1.21\n"), 0o644); err != nil {
		return false, err
	}
	p := proxy{dir}
	k, err := p.module(kubernetes, version)
	if err != nil {
		return false, err
	}
	limit, err := limitOf(k, version)
	if err != nil {
		return false, err
	}
	rows := []row{{path: kubernetes, pinned: ours.requires[kubernetes], fits: version, goes: k.goes}}
	for _, path := range family {
		r, err := p.choose(path, ours.requires[path], limit)
		if err != nil {
			return false, err
		}
		rows = append(rows, r)
	}
	print(out, limit, rows)
	agree = say(out, ours, rows)
	raised(out, k, ours)
	return agree, nil
}

// row is a line of the table.
type row struct {
	path, pinned, fits, goes string
	remark                   string // why no newer one
	wrong                    string // what does not fit about the pinned one
}

func print(out io.Writer, l limit, rows []row) {
	fmt.Fprintf(out, "With %s, which is built with etcd 3.%d:\n\n", l.kubernetes, l.etcd)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MODULE\tIN GO.MOD\tNEWEST THAT FITS\tNEEDS GO\t")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.path, orNone(r.pinned), orNone(r.fits), orNone(r.goes), r.remark)
	}
	t.Flush()
	fmt.Fprintln(out)
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
