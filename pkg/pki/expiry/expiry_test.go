package expiry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics/legacyregistry"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/pki"
)

const day = 24 * time.Hour

// node makes what a server has, as of now: all but authorities end in a year.
func node(t *testing.T) (pki.Dir, *Watch) {
	t.Helper()
	dir := pki.Dir(filepath.Join(t.TempDir(), "pki"))
	issue(t, dir)
	return dir, New(Config{NodeName: "n", Client: kube.NewClient("/nowhere", "test"), Files: dir.Files(), Uses: map[string][]string{
		"etcd": {dir.CA(pki.EtcdCA), dir.Cert(pki.EtcdServer)},
	}})
}

func issue(t *testing.T, dir pki.Dir) {
	t.Helper()
	if _, err := pki.Ensure(dir, pki.Node{Name: "n", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, ClusterDomain: "cluster.local"}, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// logged gathers the log.
func logged(t *testing.T) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&b, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return &b
}

// TestYear lets a year and a day pass: nothing is told for eleven months, then one line
// a day, and the parts that use what has ended are not ready.
func TestYear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, w := node(t)
		log := logged(t)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		defer func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		lines := func() int { return strings.Count(log.String(), "A certificate has to be renewed") }

		time.Sleep(335*day - time.Minute)
		synctest.Wait()
		if got := lines(); got != 0 || w.Note() != "" || len(w.Due(time.Now())) > 0 {
			t.Errorf("%d lines, note %q, a month and a minute before", got, w.Note())
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := lines(); got != 1 || !strings.HasSuffix(w.Note(), "expire soon: see below") {
			t.Errorf("%d lines, note %q, a month before:\n%s", got, w.Note(), log)
		}
		for _, want := range []string{"and 12 more", "restart lite, which renews it"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q: %s", want, log)
			}
		}
		time.Sleep(10 * day)
		synctest.Wait()
		if got := lines(); got < 10 || got > 12 {
			t.Errorf("%d lines in ten days", got)
		}
		if err := w.Veto("etcd"); err != nil {
			t.Error(err)
		}
		time.Sleep(20*day + time.Minute)
		synctest.Wait()
		if err := w.Veto("etcd"); err == nil || !strings.Contains(err.Error(), dir.Cert(pki.EtcdServer)+" expired on") {
			t.Errorf("etcd is said to be well: %v", err)
		}
		if err := w.Veto("dns"); err != nil {
			t.Errorf("a part that uses none: %v", err)
		}
		if !strings.Contains(log.String(), " expired on ") || !strings.Contains(w.Note(), "13 expired") {
			t.Errorf("note %q, log %s", w.Note(), log)
		}
		// Others are in the files now: all is well without a restart of the watch.
		before := lines()
		issue(t, dir)
		time.Sleep(freshFor)
		if err := w.Veto("etcd"); err != nil || w.Note() != "" {
			t.Errorf("%v, note %q", err, w.Note())
		}
		time.Sleep(3 * day)
		synctest.Wait()
		if got := lines() - before; got != 0 {
			t.Errorf("%d lines after that", got)
		}
	})
}

// TestEvents are alike while the facts are, so that they are counted, and are renewed
// before the API forgets them.
func TestEvents(t *testing.T) {
	dir, w := node(t)
	recorder := record.NewFakeRecorder(100)
	r := reporter{config: w.config, recorder: recorder}
	seen := map[string]int{}
	begin := time.Now().Add(336 * day)
	for now := begin; now.Before(begin.Add(day)); now = now.Add(next(w.certificates(), now)) {
		r.report(t.Context(), notices(w.Due(now), now), now)
		seen[<-recorder.Events]++
	}
	if len(seen) != 1 {
		t.Errorf("%d events in a day: %v", len(seen), seen)
	}
	for text, n := range seen {
		if n < 24 || n > 30 {
			t.Errorf("%d times in a day: %s", n, text)
		}
		if !strings.HasPrefix(text, "Warning CertificateExpiring certificate "+string(dir)) {
			t.Error(text)
		}
	}
	after := begin.Add(30 * day)
	r.report(t.Context(), notices(w.Due(after), after), after)
	if text := <-recorder.Events; !strings.HasPrefix(text, "Warning CertificateExpired certificate ") {
		t.Error(text)
	}
}

// TestNext is when the timer goes off: never more often than there is something to tell.
func TestNext(t *testing.T) {
	_, w := node(t)
	now := time.Now()
	ends := now.Add(365 * day)
	for _, c := range []struct {
		before time.Duration // the end
		most   time.Duration
	}{
		{300 * day, scanEvery},
		{30*day + time.Hour, time.Hour + time.Minute},
		{29 * day, eventEvery},
		{time.Minute, time.Minute + 2*time.Second},
		{-day, eventEvery},
	} {
		got := next(w.certificates(), ends.Add(-c.before))
		if got > c.most || got < c.most-time.Minute {
			t.Errorf("%s before: %s, want %s", c.before, got, c.most)
		}
	}
}

// TestSeries reads the metric.
func TestSeries(t *testing.T) {
	dir, w := node(t)
	registry := legacyregistry.DefaultGatherer
	s := newSeries(w)
	if err := legacyregistry.CustomRegister(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { legacyregistry.Registerer().Unregister(s) })
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ends := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "lite_certificate_expiration_timestamp_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			ends[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	if len(ends) != len(dir.Files()) {
		t.Errorf("%d certificates have a value, want %d", len(ends), len(dir.Files()))
	}
	if left := time.Until(time.Unix(int64(ends[dir.Cert(pki.APIServer)]), 0)); left < 364*day || left > 366*day {
		t.Errorf("the API server's ends in %s", left)
	}
}

// TestSymlink has a certificate that is exchanged as the kubelet does it.
func TestSymlink(t *testing.T) { synctest.Test(t, testSymlink) }

func testSymlink(t *testing.T) {
	dir, _ := node(t)
	path := filepath.Join(t.TempDir(), "kubelet-client-current.pem")
	if err := os.Symlink(dir.Cert(pki.Kubelet), path); err != nil {
		t.Fatal(err)
	}
	w := New(Config{Files: []pki.File{{Path: path, Renewal: pki.ByKubelet}}})
	first := w.certificates()
	if err := errors.Join(os.Symlink(dir.Cert(pki.KubeletClient), path+".new"), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(freshFor)
	second := w.certificates()
	if len(first) != 1 || len(second) != 1 || bytes.Equal(first[0].Raw, second[0].Raw) {
		t.Error(fmt.Sprint("it was not read again: ", first, second))
	}
}
