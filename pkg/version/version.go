// Package version says what this binary is and what is in it.
package version

import (
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Set by the linker; what a plain `go build` leaves says so.
var (
	version = "v0.0.0-unreleased"
	commit  = "unknown"
	runc    = "unknown"
	built   = "" // RFC 3339
	baseURL = "" // none: whoever builds lite says from where releases come
)

// Info is the versions a user may have to name in a report.
type Info struct {
	Version    string `json:"version"`
	Commit     string `json:"commit"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
	Kubernetes string `json:"kubernetes"`
	Etcd       string `json:"etcd"`
	Containerd string `json:"containerd"`
	Runc       string `json:"runc"`
}

// Get reads the versions of the modules from the build information that the
// compiler left in the binary, so that they can't be wrong.
func Get() Info {
	return Info{
		Version:    version,
		Commit:     commit,
		Go:         runtime.Version(),
		Platform:   runtime.GOOS + "/" + runtime.GOARCH,
		Kubernetes: module("k8s.io/kubernetes"),
		Etcd:       module("go.etcd.io/etcd/server/v3"),
		Containerd: module("github.com/containerd/containerd/v2"),
		Runc:       runc,
	}
}

// Version is lite's own version.
func Version() string { return version }

// BaseURL is where releases of lite are, or "" if that is not known.
func BaseURL() string { return baseURL }

func module(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path == path {
			if m.Replace != nil {
				m = m.Replace
			}
			return "v" + strings.TrimPrefix(m.Version, "v")
		}
	}
	return "unknown"
}

// Built is when the commit that this binary is made of was made, in UTC; the
// zero time if nobody told the linker. A clock that is behind it is wrong.
func Built() time.Time {
	t, err := time.Parse(time.RFC3339, built)
	if err != nil {
		return time.Time{}
	}
	return t
}

// NotBeforeBuilt is now, or Built if the clock is behind that.
func NotBeforeBuilt(now time.Time) time.Time {
	if built := Built(); now.Before(built) {
		return built
	}
	return now
}
