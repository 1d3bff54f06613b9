package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

// care is the upkeep of a member that runs, whose next look is due when the test says so.
func care(e *Etcd) *upkeep {
	s := e.server.Load().Server
	return &upkeep{EtcdServer: s, etcd: e, disk: e.disk, applied: s.AppliedIndex()}
}

// fill writes MiB under keys with a name, until the quota.
func fill(t *testing.T, e *Etcd, name string, mib int) (full bool) {
	t.Helper()
	for i := range mib {
		_, err := e.server.Load().Server.Put(t.Context(), &etcdserverpb.PutRequest{Key: fmt.Appendf(nil, "%s-%d", name, i), Value: bytes.Repeat([]byte{byte(i)}, 1<<20)})
		if err != nil && strings.Contains(err.Error(), "no space") {
			return true
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return false
}

// remove deletes all keys that begin with a name.
func remove(t *testing.T, e *Etcd, prefix string) {
	t.Helper()
	_, err := e.server.Load().Server.DeleteRange(t.Context(), &etcdserverpb.DeleteRangeRequest{Key: []byte(prefix), RangeEnd: append([]byte(prefix), 0xff)})
	if err != nil {
		t.Fatal(err)
	}
}

// alarmed waits until the cluster has an alarm: the member that finds it tells the others.
func alarmed(t *testing.T, e *Etcd) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(e.server.Load().Server.Alarms()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no alarm")
		}
	}
}

// A store that a lone member can give half of back is rewritten while it runs, at a quiet moment.
func TestSpaceIsGivenBackWhileItRuns(t *testing.T) {
	e := member(t, filepath.Join(t.TempDir(), "etcd"))
	defer running(t, e)()
	put(t, e, "stays", "here")
	fill(t, e, "large", 2*defragAt)
	be := e.server.Load().Server.Backend()
	be.ForceCommit()
	u := care(e)
	u.look(t.Context())
	if be.Size() < 2*defragAt<<20 {
		t.Fatalf("what is in use was given back: %d bytes are left", be.Size())
	}
	remove(t, e, "large")
	if err := u.compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	u.applied = u.AppliedIndex() - quietBelow
	u.look(t.Context())
	if be.Size() < 2*defragAt<<20 {
		t.Error("it was defragmented while somebody worked")
	}
	u.look(t.Context())
	if be.Size() > 10<<20 || value(t, e, "stays") != "here" {
		t.Errorf("%d MiB are left of %d at a quiet moment, %d of them in use", be.Size()>>20, 2*defragAt, be.SizeInUse()>>20)
	}
	put(t, e, "after", "x")
}

// A store that has reached its quota goes on by itself if there is room to be made, and says what to do if not.
func TestFullStoreGoesOnByItself(t *testing.T) {
	for name, test := range map[string]struct {
		keys  int // how many are written in turn
		helps func(t *testing.T, e *Etcd)
	}{
		"history of one object":       {keys: 1},
		"history of a few":            {keys: 7},
		"objects, which were deleted": {keys: 1000, helps: func(t *testing.T, e *Etcd) { remove(t, e, "own") }},
	} {
		t.Run(name, func(t *testing.T) {
			e := member(t, filepath.Join(t.TempDir(), "etcd"))
			e.config.QuotaBackendBytes = 48 << 20
			defer running(t, e)()
			put(t, e, "stays", "here")
			full := false
			for i := 0; i < 300 && !full; i++ {
				full = fill(t, e, fmt.Sprintf("own-%d", i%test.keys), 1)
			}
			if !full {
				t.Fatal("the store takes more than its quota")
			}
			alarmed(t, e)
			u := care(e)
			u.look(t.Context())
			if test.helps != nil {
				if err := e.Ready(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "alarm NOSPACE: ") || !strings.Contains(err.Error(), "delete objects") {
					t.Errorf("there is no room to be made: %v", err)
				}
				test.helps(t, e)
				u.look(t.Context())
			}
			if err := e.Ready(t.Context()); err != nil {
				t.Error(err)
			}
			put(t, e, "after", "x")
			if value(t, e, "stays") != "here" {
				t.Error("what was there is not any more")
			}
		})
	}
}

// A store is called full before it is, in the status and once as an event, and not after room was made.
func TestNearlyFullStoreIsTold(t *testing.T) {
	e := member(t, filepath.Join(t.TempDir(), "etcd"))
	e.config.QuotaBackendBytes = 100 << 20
	var events []string
	refuse := errors.New("the API does not answer")
	e.event = func(_ context.Context, reason, message string) error {
		if refuse == nil {
			events = append(events, reason+": "+message)
		}
		return refuse
	}
	defer running(t, e)()
	u := care(e)
	fill(t, e, "a", 70)
	u.look(t.Context())
	if note := e.Note(); note != "" {
		t.Errorf("at 70 %%: %s", note)
	}
	fill(t, e, "b", 15)
	e.server.Load().Server.Backend().ForceCommit()
	u.look(t.Context()) // nobody takes the event
	refuse = nil
	u.look(t.Context())
	u.look(t.Context())
	if note := e.Note(); !strings.Contains(note, "at its quota of 100 MiB it refuses writes") || len(events) != 1 || events[0] != "DatastoreNearlyFull: "+note {
		t.Errorf("note %q, events %q", note, events)
	}
	remove(t, e, "a-")
	if err := u.compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := u.defragment(t.Context()); err != nil {
		t.Fatal(err)
	}
	u.look(t.Context())
	if note := e.Note(); note != "" || len(events) != 1 {
		t.Errorf("with room again: note %q, events %q", note, events)
	}
}

// A quota is etcd's default or none where the user says so.
func TestQuotaOfUsers(t *testing.T) {
	for arg, want := range map[string]int64{"quota-backend-bytes=0": 2 << 30, "quota-backend-bytes=-1": -1, "quota-backend-bytes=134217728": 128 << 20} {
		e, err := New(sample(arg))
		if err != nil {
			t.Fatal(err)
		}
		if u := (&upkeep{etcd: e}); e.quota() != want || u.hasRoom(127<<20) != (want != 128<<20) {
			t.Errorf("%s: %d", arg, e.quota())
		}
	}
}

// A disk is slow by what has been written in the last minutes, not by what was before.
func TestSlowDiskIsTold(t *testing.T) {
	d := newDisk()
	if d.syncs == nil {
		t.Fatal("etcd counts otherwise now")
	}
	counts := d.syncs.(prometheus.Histogram)
	observe := func(n int, seconds float64) {
		for range n {
			counts.Observe(seconds)
		}
	}
	observe(1000, 3)
	d.sample()
	observe(90, 3)
	if note := d.note(); note != "" {
		t.Errorf("of 90 writes: %s", note)
	}
	observe(9000, 0.002)
	d.sample()
	if note := d.note(); note != "" {
		t.Errorf("90 slow ones of 9,000: %s", note)
	}
	observe(10, 0.15)
	if note := d.note(); !strings.Contains(note, "the disk is slow") || !strings.Contains(note, "of 9100 writes") {
		t.Errorf("one in a hundred: %q", note)
	}
	for range samplesKept {
		observe(100, 0.002)
		d.sample()
	}
	if note := d.note(); note != "" || len(d.samples) != samplesKept {
		t.Errorf("a while ago: %q, %d samples", note, len(d.samples))
	}
}
