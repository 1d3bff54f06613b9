package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// minors is how many minor versions of a module are looked at, newest first.
const minors = 6

// limit is what nothing may be newer than.
type limit struct {
	kubernetes string
	staging    uint // the minor version of k8s.io/api and its like
	etcd       uint
}

func limitOf(k gomod, kubernetes string) (limit, error) {
	v, err := version.ParseSemantic(kubernetes)
	if err != nil {
		return limit{}, fmt.Errorf("%q is no version of Kubernetes, such as v1.37.2", kubernetes)
	}
	e, err := version.ParseSemantic(k.requires[etcd])
	if err != nil {
		return limit{}, fmt.Errorf("the go.mod of Kubernetes %s does not say which etcd it is built with", kubernetes)
	}
	return limit{kubernetes, v.Minor(), e.Minor()}, nil
}

// against is what speaks against a version of a module, or "".
func (l limit) against(path string, v *version.Version, m gomod) string {
	if path == etcd && v.Minor() > l.etcd {
		return fmt.Sprintf("is newer than the etcd of Kubernetes, 3.%d", l.etcd)
	}
	for _, path := range slices.Sorted(maps.Keys(m.requires)) {
		v, err := version.ParseSemantic(m.requires[path])
		if err != nil {
			continue
		}
		staging := strings.HasPrefix(path, "k8s.io/") && v.Major() == 0 && v.Minor() > l.staging
		store := strings.HasPrefix(path, "go.etcd.io/etcd/") && v.Major() == 3 && v.Minor() > l.etcd
		if staging || store {
			return "requires " + path + " " + m.requires[path]
		}
	}
	return ""
}

// choose finds the newest version of a module that fits, and looks at the one that
// is pinned.
func (p proxy) choose(path, pinned string, l limit) (row, error) {
	r := row{path: path, pinned: pinned}
	all, err := p.releases(path, pinned)
	if err != nil {
		return r, err
	}
	for _, patches := range byMinor(all, minors) {
		if err = p.search(&r, patches, l); err != nil || r.fits != "" {
			break
		}
	}
	if err != nil || pinned == "" || pinned == r.fits {
		return r, err
	}
	v, err := version.ParseSemantic(pinned)
	if err != nil {
		return r, fmt.Errorf("%s %s: %w", path, pinned, err)
	}
	m, err := p.module(path, pinned)
	if err != nil {
		return r, err
	}
	if against := l.against(path, v, m); against != "" {
		r.wrong = fmt.Sprintf("%s %s %s", path, pinned, against)
	}
	return r, nil
}

// search looks for the newest that fits among the patches of one minor version,
// oldest first, by halves: what the newer ones require, the older ones may not yet.
func (p proxy) search(r *row, patches []*version.Version, l limit) error {
	fit := func(v *version.Version) (bool, error) {
		m, err := p.module(r.path, "v"+v.String())
		if err != nil {
			return false, err
		}
		against := l.against(r.path, v, m)
		if against == "" {
			r.fits, r.goes = "v"+v.String(), m.goes
		} else if r.remark == "" {
			r.remark = fmt.Sprintf("v%s %s", v, against)
		}
		return against == "", nil
	}
	newest := len(patches) - 1
	if ok, err := fit(patches[newest]); ok || err != nil {
		return err
	}
	from, to := 0, newest // all before from fit, none from to on
	for from < to {
		middle := (from + to) / 2
		ok, err := fit(patches[middle])
		if err != nil {
			return err
		}
		if ok {
			from = middle + 1
		} else {
			to = middle
		}
	}
	return nil
}

// byMinor is the patches of each of the n newest minor versions, these newest first
// and those oldest first.
func byMinor(all []*version.Version, n int) (groups [][]*version.Version) {
	slices.SortFunc(all, func(a, b *version.Version) int {
		if a.LessThan(b) {
			return -1
		}
		return 1
	})
	for _, v := range slices.Backward(all) {
		last := len(groups) - 1
		if last >= 0 && groups[last][0].Major() == v.Major() && groups[last][0].Minor() == v.Minor() {
			groups[last] = slices.Insert(groups[last], 0, v)
			continue
		}
		if len(groups) == n {
			break
		}
		groups = append(groups, []*version.Version{v})
	}
	return groups
}

// say prints what is to be done, and reports whether nothing is wrong.
func say(out io.Writer, ours gomod, rows []row) (agree bool) {
	agree = true
	parted := alike(ours)
	wrong := func(format string, args ...any) {
		agree = false
		fmt.Fprintf(out, "WRONG: "+format+"\n", args...)
	}
	for _, r := range rows {
		switch {
		case r.wrong != "":
			wrong("%s", r.wrong)
		case r.fits == "":
			wrong("none of the last %d minor versions of %s fits", minors, r.path)
		case r.path == kubernetes && r.pinned != r.fits:
			fmt.Fprintf(out, "This is not about the Kubernetes that go.mod has, %s.\n", orNone(r.pinned))
		case r.pinned != "" && r.pinned != r.fits:
			fmt.Fprintf(out, "%s could be %s.\n", r.path, r.fits)
		}
		if older(ours.goes, r.goes) {
			wrong("%s %s needs Go %s, and go.mod says %s", r.path, r.fits, r.goes, ours.goes)
		}
	}
	for _, line := range parted {
		wrong("%s", line)
	}
	if agree {
		fmt.Fprintln(out, "All that go.mod has fits.")
	}
	return agree
}

// alike is which modules of one source are not of one version.
func alike(ours gomod) (parted []string) {
	staging := strings.Replace(ours.requires[kubernetes], "v1.", "v0.", 1)
	for _, path := range slices.Sorted(maps.Keys(ours.requires)) {
		v := ours.requires[path]
		parsed, err := version.ParseSemantic(v)
		if err != nil {
			continue
		}
		switch {
		case strings.HasPrefix(path, "go.etcd.io/etcd/") && v != ours.requires[etcd]:
			parted = append(parted, fmt.Sprintf("%s %s is beside %s %s", path, v, etcd, ours.requires[etcd]))
		case strings.HasPrefix(path, "k8s.io/") && parsed.Major() == 0 && parsed.Minor() > 0 && v != staging:
			parted = append(parted, fmt.Sprintf("%s %s is beside %s %s", path, v, kubernetes, ours.requires[kubernetes]))
		}
	}
	return parted
}

// raised prints what is linked in another minor version than Kubernetes is tested
// with, because something else requires it.
func raised(out io.Writer, k, ours gomod) {
	var lines []string
	for _, path := range slices.Sorted(maps.Keys(k.requires)) {
		theirs, err := version.ParseSemantic(k.requires[path])
		own, err2 := version.ParseSemantic(ours.requires[path])
		if err != nil || err2 != nil || strings.HasPrefix(path, "k8s.io/") || strings.HasPrefix(path, "golang.org/x/") {
			continue
		}
		if theirs.Major() != own.Major() || theirs.Minor() != own.Minor() {
			lines = append(lines, fmt.Sprintf("  %s %s, not %s", path, ours.requires[path], k.requires[path]))
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(out, "\nLinked in another minor version than Kubernetes is tested with (`go mod why -m` tells for whom):\n%s\n", strings.Join(lines, "\n"))
	}
}

// older reports whether a version of Go is older than the one that is needed.
func older(have, need string) bool {
	h, err := version.ParseGeneric(have)
	n, err2 := version.ParseGeneric(need)
	return err == nil && err2 == nil && h.LessThan(n)
}
