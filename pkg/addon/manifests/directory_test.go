package manifests

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"lite.io/lite/pkg/kube"
)

// TestRunWithoutAPI: the component is ready as soon as it watches, its note shows what it
// waits for, and it stops when asked to.
func TestRunWithoutAPI(t *testing.T) {
	dir := t.TempDir()
	d := NewDirectory(DirectoryConfig{Client: kube.NewClient(filepath.Join(dir, "none"), "test"), Dir: filepath.Join(dir, "manifests"), Server: "a"})
	if err := d.Ready(t.Context()); err == nil || err.Error() != "reading "+dir+"/manifests" {
		t.Errorf("before it runs: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); d.Note() == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it says nothing")
		}
	}
	if err := d.Ready(ctx); err != nil || !strings.HasPrefix(d.Note(), "read kubeconfig ") {
		t.Errorf("got %v and %q", err, d.Note())
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWait(t *testing.T) {
	d := NewDirectory(DirectoryConfig{})
	dir := t.TempDir()
	s := scanWell(t, dir)
	if d.wait(t.Context(), s, time.Millisecond, false) {
		t.Error("nothing has changed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if d.wait(ctx, s, 0, false) {
		t.Error("nothing has changed")
	}
	go func() { s.watcher.Errors <- fsnotify.ErrEventOverflow }()
	if !d.wait(t.Context(), s, 0, false) {
		t.Error("that events were lost is no reason to look again")
	}
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() { // changes all the time, which puts it off for a while only
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_ = os.WriteFile(filepath.Join(dir, "a"), nil, 0o600)
			}
		}
	}()
	if !d.wait(t.Context(), s, 0, false) {
		t.Error("a change is not noticed")
	}
	close(stop)
	<-stopped
}

func TestTell(t *testing.T) {
	d := NewDirectory(DirectoryConfig{})
	for _, test := range []struct {
		note string
		seen *scan
		err  error
		want string
	}{
		{"", nil, nil, ""},
		{"1 file applied", &scan{}, nil, "1 file applied"},
		{"1 file applied", &scan{}, errors.New("no\nAPI"), "no API; 1 file applied"},
		{"", nil, errors.New("no"), "no"},
		{"", &scan{unwatched: errors.New("why")}, nil, "changes take effect within half a minute only: why"},
	} {
		if d.setNote(test.note, test.seen, test.err); d.Note() != test.want {
			t.Errorf("got %q, want %q", d.Note(), test.want)
		}
	}
}
