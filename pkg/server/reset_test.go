package server

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/datastore/etcd"
)

// TestResets decides which starts make a server the only one of its cluster.
func TestResets(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	plain, asked := configured(t, data), configured(t, data, "--reset-to-single")
	dir := mkdir(t, plain.Layout().Data.Server())
	is := func(when string, withOption, without bool) {
		t.Helper()
		if got, err := Resets(asked); err != nil || got != withOption {
			t.Errorf("%s, with the option: %v, %v", when, got, err)
		}
		if got, err := Resets(plain); err != nil || got != without {
			t.Errorf("%s, without it: %v, %v", when, got, err)
		}
	}
	refuses := func(when string) {
		t.Helper()
		if _, err := Resets(asked); err == nil || !strings.Contains(err.Error(), "is not one of several") {
			t.Errorf("%s: %v", when, err)
		}
	}
	write := func(r reset) {
		t.Helper()
		if err := r.write(dir); err != nil {
			t.Fatal(err)
		}
	}
	refuses("a machine that is new")
	snap := filepath.Join(dir.Etcd(), "member", "snap")
	if err := os.MkdirAll(snap, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(snap, "db"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses("a server that was always alone")
	if err := (membership{Servers: []string{"https://192.0.2.1:6443"}}).write(dir); err != nil {
		t.Fatal(err)
	}
	refuses("a server that has not joined yet")
	if err := (membership{Complete: true}).write(dir); err != nil {
		t.Fatal(err)
	}
	is("one of several", true, false)
	write(reset{Began: time.Now()})
	is("cut short while it copied", true, false)
	write(reset{Began: time.Now(), Forced: true})
	is("cut short later", true, true)
	// What is not there cannot be made the only data: that would be an empty cluster beside those that live.
	if err := os.Rename(filepath.Dir(snap), filepath.Dir(snap)+".away"); err != nil {
		t.Fatal(err)
	}
	refuses("cut short later, and the data were moved away")
	if got, err := Resets(plain); err != nil || got {
		t.Errorf("cut short later, and the data were moved away: %v, %v", got, err)
	}
	if err := os.Rename(filepath.Dir(snap)+".away", filepath.Dir(snap)); err != nil {
		t.Fatal(err)
	}
	write(reset{Began: time.Now(), Forced: true, Done: true})
	is("done", false, false)
	if err := forgetReset(asked); err != nil {
		t.Fatal(err)
	}
	is("done, and the option stays", false, false)
	if err := forgetReset(plain); err != nil {
		t.Fatal(err)
	}
	is("done, and the option was away", true, false)
	if err := os.WriteFile(dir.Reset(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Resets(plain); err == nil || !strings.Contains(err.Error(), dir.Reset()) {
		t.Errorf("a damaged record: %v", err)
	}
}

// A server that is the only one again makes the facts, if its configuration has all of them: one that has joined others
// was not told.
func TestFactsOfTheOneThatIsLeft(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	dir := mkdir(t, configured(t, data).Layout().Data.Server())
	was := configured(t, data, "--disable=dns", "--cluster-domain=a.test").Propose()
	if err := remember(dir, was); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args    []string
		follows bool // its configuration
	}{
		"told nothing":   {nil, false},
		"told a part":    {[]string{"--cluster-domain=a.test"}, false},
		"told all":       {[]string{"--cluster-domain=a.test", "--disable=dns"}, true},
		"told all twice": {[]string{"--cluster-domain=A.TEST", "--disable=dns,dns"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := alone(configured(t, data, c.args...)); err != nil {
				t.Fatal(err)
			}
			if f, err := Facts(configured(t, data, c.args...)); err != nil || !slices.Equal(f.Disable, was.Disable) && !f.Disable.Has(addon.DNS) {
				t.Errorf("the same start: %+v, %v", f, err)
			}
			f, err := Facts(configured(t, data, "--cluster-domain=a.test", "--disable=metrics"))
			if c.follows != (err == nil && slices.Equal(f.Disable, addon.Disabled{addon.Metrics})) {
				t.Errorf("another battery: %+v, %v", f, err)
			}
			// Others can reach it, to be told that they were removed.
			if m, err := readMembership(dir); err != nil || m == nil || !m.Complete || m.Alone != c.follows {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

// A reset that was cut short does not go on beside a server that was started since: the others would stop when they are
// told that they were removed, and what they have acknowledged would be lost.
func TestResetCutShortAsksAgain(t *testing.T) {
	cfg := configured(t, filepath.Join(t.TempDir(), "data"))
	dir := mkdir(t, cfg.Layout().Data.Server())
	other := httptest.NewTLSServer(http.NotFoundHandler())
	defer other.Close()
	was := reset{Began: time.Now(), Forced: true, Others: []string{"https://127.0.0.1:1", other.URL}}
	if err := was.write(dir); err != nil {
		t.Fatal(err)
	}
	if err := Reset(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), other.URL) || !strings.Contains(err.Error(), "lite member rejoin") {
		t.Errorf("another server is up: %v", err)
	}
	other.Close()
	if err := Reset(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "is up meanwhile") {
		t.Errorf("nobody is up: %v", err)
	}
}

// After a reset, two that come back would be a quorum of the cluster of before if this server listened to nobody. So it
// does not forget them, whatever comes and goes meanwhile; a server that the others have left in order does.
func TestAfterAResetTheOthersAreNotForgotten(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	dir := mkdir(t, configured(t, data).Layout().Data.Server())
	all := []string{"--disable=dns"}
	facts := configured(t, data, all...).Propose()
	if err := remember(dir, facts); err != nil {
		t.Fatal(err)
	}
	forgets := func(args ...string) *membership {
		t.Helper()
		known, err := readMembership(dir)
		if err == nil {
			err = (&members{dir: dir, cfg: configured(t, data, args...), facts: facts}).isAlone(known)
		}
		if err == nil {
			known, err = readMembership(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		return known
	}
	if err := alone(configured(t, data)); err != nil { // it had joined others, and was told nothing
		t.Fatal(err)
	}
	if m := forgets(); m == nil || m.Alone {
		t.Errorf("told nothing: %+v", m)
	}
	if m := forgets(all...); m == nil || !m.Alone || !m.Complete {
		t.Errorf("told all: %+v", m)
	}
	if err := (&members{dir: dir}).remember("https://192.0.2.7:6443"); err != nil {
		t.Fatal(err)
	}
	if m := forgets(all...); m == nil || !m.Alone {
		t.Errorf("another one came and went: %+v", m)
	}
	if err := (membership{Complete: true, Servers: []string{"https://192.0.2.7:6443"}}).write(dir); err != nil {
		t.Fatal(err)
	}
	if m := forgets(all...); m != nil {
		t.Errorf("without a reset: %+v", m)
	}
}

// A server that is alone on purpose becomes one of several like any other.
func TestTheOneThatIsLeftIsJoined(t *testing.T) {
	dir := mkdir(t, configured(t, filepath.Join(t.TempDir(), "data")).Layout().Data.Server())
	m := &members{dir: dir}
	if err := (membership{Complete: true, Alone: true}).write(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.remember("https://192.0.2.7:6443"); err != nil {
			t.Fatal(err)
		}
		if got, err := readMembership(dir); err != nil || got.Alone || !got.Complete || !slices.Equal(got.Servers, []string{"https://192.0.2.7:6443"}) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// Nothing is moved aside before another server has said that this one was removed.
func TestRejoinAsksFirst(t *testing.T) {
	cfg := configured(t, filepath.Join(t.TempDir(), "data"))
	dir := mkdir(t, cfg.Layout().Data.Server())
	fails := func(want string) {
		t.Helper()
		if _, err := Rejoin(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	fails("is not one of several")
	if err := (membership{Complete: true, Servers: []string{"https://127.0.0.1:1"}}).write(dir); err != nil {
		t.Fatal(err)
	}
	fails("it joins its cluster by itself")
	db := filepath.Join(dir.Etcd(), "member", "snap", "db")
	if err := os.MkdirAll(filepath.Dir(db), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(db, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails("no other server says whether this one was removed")
	if !etcd.Used(dir.Etcd()) {
		t.Error("the data are gone")
	}
}
