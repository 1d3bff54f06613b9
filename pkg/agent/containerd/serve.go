package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"lite.io/lite/pkg/component"
)

// served is the registries.yaml that is in force. containerd reads what is written of
// it at each pull, and asks for credentials each time, so another file needs no
// restart.
type served struct {
	file    string
	dir     string // of hosts.toml files
	through *rewriter
	now     atomic.Pointer[registries]
	// wrong is why the file as it is now is not in force, nil if it is.
	wrong atomic.Pointer[string]
	// fixed is whether containerd has the credentials permanently; see pullsByItself.
	fixed bool
}

func newServed(file, dir, listen string) *served {
	return &served{file: file, dir: dir, through: newRewriter(listen)}
}

// load puts the file in force. An error changes nothing.
func (s *served) load() (changed bool, err error) {
	r, err := parseRegistries(s.file)
	if err != nil {
		return false, err
	}
	before := s.now.Load()
	s.through.begin()
	if err := r.write(s.dir, s.through); err != nil {
		return false, fmt.Errorf("private-registry %s: %w", s.file, err)
	}
	s.now.Store(r)
	s.through.keep()
	return before != nil && !reflect.DeepEqual(before, r), nil
}

// credentials is what to show to a host.
func (s *served) credentials(host string) (user, secret string) {
	return s.now.Load().credentialsFor(host).userAndSecret()
}

// note is what a person should know of the file.
func (s *served) note() string {
	if why := s.wrong.Load(); why != nil {
		return "the previous registries.yaml stays in effect: " + *why
	}
	if r := s.now.Load(); r != nil {
		return r.unused()
	}
	return ""
}

// settle is how long nobody may have written before the file is read: who writes one
// in place empties it first.
const settle = 200 * time.Millisecond

// watch follows the file until ctx is done.
func (s *served) watch(ctx context.Context) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		slog.Warn("Changes to registries.yaml will need a restart; raise fs.inotify.max_user_instances", "err", err)
		return
	}
	defer w.Close()
	at, changed := "", time.NewTimer(settle)
	defer changed.Stop()
	for {
		// Before the file is read, so that nothing falls between; and read again when
		// the watch is another, as where the directory has come to be.
		if dir := nearestDirectory(s.file); dir != at || len(w.WatchList()) == 0 {
			if at != "" {
				_ = w.Remove(at)
			}
			at = dir
			if err := w.Add(dir); err != nil {
				slog.Warn("Changes to registries.yaml will need a restart", "directory", dir, "err", err)
				return
			}
			changed.Reset(settle)
		}
		select {
		case e := <-w.Events:
			// Others may write to the directory all the time. What is mounted as a
			// volume is replaced by a link whose name begins with two dots.
			if name := filepath.Base(e.Name); name == filepath.Base(s.file) || strings.HasPrefix(name, "..") {
				changed.Reset(settle)
			}
		case <-w.Errors:
			changed.Reset(settle)
		case <-changed.C:
			s.reload()
		case <-ctx.Done():
			return
		}
	}
}

// reload loads the file and logs the result, once.
func (s *served) reload() {
	changed, err := s.load()
	if err != nil {
		why := component.Line(err)
		if before := s.wrong.Swap(&why); before == nil || *before != why {
			slog.Error("registries.yaml is invalid; the previous one stays in effect", "err", err)
		}
		return
	}
	if s.wrong.Swap(nil) != nil || changed {
		r := s.now.Load()
		slog.Info("The new registries.yaml is in effect", "file", s.file, "mirrors", len(r.mirrors), "configs", len(r.configs))
		if s.fixed {
			slog.Warn("Changed credentials in registries.yaml need a restart of lite: a drop-in in config.toml.d makes containerd pull images itself")
		}
		if unused := r.unused(); unused != "" {
			slog.Warn("A setting in registries.yaml has no effect", "file", s.file, "what", unused)
		}
	}
}

// nearestDirectory is the directory of a file, or the one above in which it will
// appear.
func nearestDirectory(file string) string {
	dir := filepath.Dir(file)
	for dir != "/" && dir != "." {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}
