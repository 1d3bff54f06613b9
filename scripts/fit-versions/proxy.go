package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// proxy asks the module proxy, by the go command: so it is whichever GOPROXY names,
// and what was asked once is in the module cache.
type proxy struct{ dir string }

// gomod is what a go.mod says.
type gomod struct {
	goes     string // the Go that it needs
	requires map[string]string
}

// releases is the versions of a module that the proxy lists, but those before a
// release, and the pinned one: a proxy need not list what it has.
func (p proxy) releases(path, pinned string) ([]*version.Version, error) {
	var said struct{ Versions []string }
	if err := p.ask(&said, "-versions", path); err != nil {
		return nil, err
	}
	if pinned != "" && !slices.Contains(said.Versions, pinned) {
		said.Versions = append(said.Versions, pinned)
	}
	var all []*version.Version
	for _, v := range said.Versions {
		parsed, err := version.ParseSemantic(v)
		if err == nil && parsed.PreRelease() == "" && parsed.BuildMetadata() == "" {
			all = append(all, parsed)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no release, says the module proxy", path)
	}
	return all, nil
}

// module is the go.mod of a version.
func (p proxy) module(path, version string) (gomod, error) {
	var said struct{ GoMod string }
	if err := p.ask(&said, path+"@"+version); err != nil {
		return gomod{}, err
	}
	if said.GoMod == "" {
		return gomod{}, fmt.Errorf("the module proxy has no go.mod of %s %s", path, version)
	}
	return parse(said.GoMod)
}

// ask has the go command say something of a module. It takes the first proxy that
// answers; fetching by git is left out, which would take minutes.
func (p proxy) ask(said any, args ...string) error {
	cmd := exec.Command("go", append([]string{"list", "-m", "-json"}, args...)...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOVCS=*:off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		if errors.Is(err, exec.ErrNotFound) {
			first = err.Error()
		}
		return fmt.Errorf("ask the module proxy for %s: %s; `go env GOPROXY` tells which one that is", args[len(args)-1], first)
	}
	return json.Unmarshal(out, said)
}

// parse reads a go.mod.
func parse(file string) (gomod, error) {
	cmd := exec.Command("go", "mod", "edit", "-json", file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return gomod{}, fmt.Errorf("read %s: %s", file, strings.TrimSpace(stderr.String()))
	}
	var said struct {
		Go      string
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return gomod{}, fmt.Errorf("read %s: %w", file, err)
	}
	m := gomod{goes: said.Go, requires: map[string]string{}}
	for _, r := range said.Require {
		m.requires[r.Path] = r.Version
	}
	return m, nil
}
