package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/klauspost/compress/zstd"

	files "lite.io/lite/pkg/install/release"
)

// native is what is in the helper programs and not from a Go module: the Debian
// packages whose libraries they are linked with, or whose source they are built
// from. A program that is neither made of Go alone nor listed here is an error.
var native = map[string][]string{
	"bin/runc":                        {"libseccomp-dev", "libc6-dev"},
	"images/pause.tar":                {"musl"}, // its source is in the module k8s.io/kubernetes
	"netfilter/run":                   {"musl"}, // its source is scripts/build/c/run.c
	"netfilter/xtables-legacy-multi":  {"iptables", "musl"},
	"netfilter/lib/xtables-nft-multi": {"iptables"},
	"netfilter/lib/nft":               {"nftables"},
	"netfilter/lib/ld.so":             {"libc6"},
	"netfilter/lib/libc.so.6":         {"libc6"},
	"netfilter/lib/libm.so.6":         {"libc6"},
	"netfilter/lib/libbsd.so.0":       {"libbsd0"},
	"netfilter/lib/libedit.so.2":      {"libedit2"},
	"netfilter/lib/libgmp.so.10":      {"libgmp10"},
	"netfilter/lib/libjansson.so.4":   {"libjansson4"},
	"netfilter/lib/libmd.so.0":        {"libmd0"},
	"netfilter/lib/libmnl.so.0":       {"libmnl0"},
	"netfilter/lib/libnftables.so.1":  {"libnftables1"},
	"netfilter/lib/libnftnl.so.11":    {"libnftnl11"},
	"netfilter/lib/libtinfo.so.6":     {"libtinfo6"},
	"netfilter/lib/libxtables.so.12":  {"libxtables12"},
}

// debianLock is relative to the root of the repository, where the command runs.
const debianLock = "scripts/build/debian.lock"

// bom collects the components of a release: each once, however many programs it is
// in.
type bom struct {
	components map[string]cdx.Component
	parts      map[string]map[string]bool // of a component, by references
}

// describe is the bill of materials of a release, in CycloneDX. There is no time
// and no serial number in it: the same release has the same.
func describe(version string, builds []build) ([]byte, error) {
	b := bom{components: map[string]cdx.Component{}, parts: map[string]map[string]bool{}}
	root := cdx.Component{BOMRef: "lite@" + version, Type: cdx.ComponentTypeApplication, Name: "lite", Version: version}
	for _, build := range builds {
		if err := b.addBuild(root.BOMRef, version, build); err != nil {
			return nil, fmt.Errorf("bill of materials of %s: %w", build.program, err)
		}
	}
	delete(b.components, root.BOMRef)
	doc := cdx.NewBOM()
	doc.Metadata = &cdx.Metadata{Component: &root}
	components, dependencies := []cdx.Component{}, []cdx.Dependency{}
	for _, ref := range sorted(b.components) {
		components = append(components, b.components[ref])
	}
	for _, ref := range sorted(b.parts) {
		parts := sorted(b.parts[ref])
		dependencies = append(dependencies, cdx.Dependency{Ref: ref, Dependencies: &parts})
	}
	doc.Components, doc.Dependencies = &components, &dependencies
	var text bytes.Buffer
	err := cdx.NewBOMEncoder(&text, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(doc, cdx.SpecVersion1_6)
	return text.Bytes(), err
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// add adds a component as a part of another.
func (b *bom) add(parent string, c cdx.Component) {
	b.components[c.BOMRef] = c
	if b.parts[parent] == nil {
		b.parts[parent] = map[string]bool{}
	}
	b.parts[parent][c.BOMRef] = true
}

// addBuild adds a lite and the helper programs in it.
func (b *bom) addBuild(root, version string, build build) error {
	digest, err := digestOf(build.program)
	if err != nil {
		return err
	}
	name := files.Program(build.arch)
	program := cdx.Component{
		BOMRef: name + "@" + version, Type: cdx.ComponentTypeApplication, Name: name, Version: version,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: fmt.Sprintf("%x", digest)}},
	}
	b.add(root, program)
	info, err := buildinfo.ReadFile(build.program)
	if err != nil {
		return err
	}
	b.addModules(program.BOMRef, info)
	return b.addHelpers(program.BOMRef, build)
}

// addModules adds the modules that a program is linked from, and Go's library.
func (b *bom) addModules(parent string, info *debug.BuildInfo) {
	b.add(parent, module("std", strings.TrimPrefix(info.GoVersion, "go")))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		b.add(parent, module(m.Path, m.Version))
	}
}

func module(path, version string) cdx.Component {
	purl := "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
	return cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: purl}
}

// addHelpers adds the programs of the archive that is in lite.
func (b *bom) addHelpers(parent string, build build) error {
	f, err := os.Open(build.helpers)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return err
	}
	defer z.Close()
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", build.helpers, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		content, err := io.ReadAll(t)
		if err != nil {
			return fmt.Errorf("%s: %w", build.helpers, err)
		}
		if err := b.addHelper(parent, h.Name, build.arch, content); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// addHelper adds a helper program, its modules and its libraries.
func (b *bom) addHelper(parent, name, arch string, content []byte) error {
	name = path.Clean(name)
	program := cdx.Component{
		BOMRef: name + "@" + arch, Type: cdx.ComponentTypeApplication, Name: path.Base(name), Description: "in lite as " + name + ", for " + arch,
	}
	packages, listed := native[name]
	info, err := buildinfo.Read(bytes.NewReader(content))
	switch {
	case err == nil:
		if program.Version = info.Main.Version; program.Version == "" || program.Version == "(devel)" {
			program.Version = versionOf(info, info.Path)
		}
		if usesC(info) && !listed {
			return errors.New("it is linked with C libraries; say which in native, scripts/release/mkrelease/sbom.go")
		}
	case !listed:
		return errors.New("it is no Go program; say what it is made of in native, scripts/release/mkrelease/sbom.go")
	}
	b.add(parent, program)
	if err == nil {
		b.addModules(program.BOMRef, info)
	}
	for _, p := range packages {
		c, err := debian(p, arch)
		if err != nil {
			return err
		}
		b.add(program.BOMRef, c)
	}
	return nil
}

// versionOf is the version of the module that a package is in: of a program that
// is built as a dependency, the main module is unknown.
func versionOf(info *debug.BuildInfo, pkg string) string {
	for _, m := range info.Deps {
		if pkg == m.Path || strings.HasPrefix(pkg, m.Path+"/") {
			return m.Version
		}
	}
	return ""
}

func usesC(info *debug.BuildInfo) bool {
	return slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "CGO_ENABLED" && s.Value == "1" })
}

// debian is a Debian package: of the version that the build fetches, else of the
// one that is installed.
func debian(name, arch string) (cdx.Component, error) {
	locked, err := lockedVersion(name, arch)
	if err != nil {
		return cdx.Component{}, err
	}
	for _, candidate := range []string{name + ":" + arch, name} {
		if locked != "" {
			break
		}
		out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", candidate).Output()
		if status, version, _ := strings.Cut(string(out), " "); err == nil && status == "installed" {
			locked = version
		}
	}
	if locked == "" {
		return cdx.Component{}, fmt.Errorf("the Debian package %s is not installed for %s, so its version is not known", name, arch)
	}
	purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", name, strings.NewReplacer("+", "%2B", ":", "%3A").Replace(locked), arch)
	return cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: name, Version: locked, PackageURL: purl}, nil
}

// lockedVersion is the version of a package in scripts/build/debian.lock, if there is
// such a file: lines of package, version, architecture and checksum.
func lockedVersion(name, arch string) (string, error) {
	lock, err := os.ReadFile(debianLock)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for line := range strings.Lines(string(lock)) {
		if f := strings.Fields(line); len(f) >= 3 && f[0] == name && (f[2] == arch || f[2] == "source") {
			return f[1], nil
		}
	}
	return "", nil
}
