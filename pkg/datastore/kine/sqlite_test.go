package kine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/k3s-io/kine/pkg/server"
	clientv3 "go.etcd.io/etcd/client/v3"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/datastore/shared"
)

// config is of a store in a file of its own. What follows sqlite:// may be given.
func config(t *testing.T, rest string) Config {
	dir := t.TempDir()
	return Config{
		Kind: cluster.SQLite, Endpoint: "sqlite://" + rest, File: filepath.Join(dir, "sqlite", "state.db"),
		Socket: filepath.Join(dir, "kine.sock"), Owner: func() (string, error) { return "sha256:ours", nil },
	}
}

// run runs a store until the test ends, or stop is called, and waits until it is ready.
func run(t *testing.T, c Config) (k *Kine, stop func()) {
	t.Helper()
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the end: %v", err)
		}
	})
	t.Cleanup(stop)
	for {
		err := k.Ready(t.Context())
		if err == nil {
			return k, stop
		}
		select {
		case err := <-done:
			done <- nil
			t.Fatalf("it ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func connect(t *testing.T, k *Kine) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{k.URL()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// create and update are what the API server sends.
func create(client *clientv3.Client, key, value string) (int64, error) {
	r, err := client.Txn(context.Background()).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, value)).Commit()
	switch {
	case err != nil:
		return 0, err
	case !r.Succeeded:
		return 0, errors.New("it exists")
	}
	return r.Header.Revision, nil
}

func update(client *clientv3.Client, key, value string, revision int64) (int64, error) {
	r, err := client.Txn(context.Background()).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
		Then(clientv3.OpPut(key, value)).Else(clientv3.OpGet(key)).Commit()
	switch {
	case err != nil:
		return 0, err
	case !r.Succeeded:
		return 0, fmt.Errorf("conflict with %v", r.Responses[0].GetResponseRange().Kvs)
	}
	return r.Header.Revision, nil
}

func TestSQLiteKeepsItsData(t *testing.T) {
	c := config(t, "")
	if Used(c) {
		t.Error("a store that nobody has made is in use")
	}
	k, stop := run(t, c)
	if _, err := create(connect(t, k), "/registry/a", "1"); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{c.Socket: 0o600, c.File: 0o600, c.File + "-wal": 0o600, filepath.Dir(c.File): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	stop()
	if _, err := os.Stat(c.Socket); !errors.Is(err, os.ErrNotExist) || !Used(c) {
		t.Errorf("after the end: %v, used: %v", err, Used(c))
	}
	if err := os.WriteFile(c.Socket, nil, 0o600); err != nil { // as a killed process leaves it
		t.Fatal(err)
	}
	k, _ = run(t, c)
	r, err := connect(t, k).Get(t.Context(), "/registry/a")
	if err != nil || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "1" {
		t.Errorf("after a restart: %v, %v", r, err)
	}
}

// TestFullDisk fills a store. What kine alone makes of that: a create that failed is acknowledged, and an update that
// failed is a conflict with what is there, for ever.
func TestFullDisk(t *testing.T) {
	c := config(t, filepath.Join(t.TempDir(), "db")+"?_journal_mode=WAL&_txlock=immediate&_busy_timeout=5000&_pragma=max_page_count(120)")
	k, _ := run(t, c)
	client := connect(t, k)
	value := strings.Repeat("x", 20_000)
	revision, err := create(client, "/registry/first", "1")
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for err == nil && acknowledged < 100 {
		if _, err = create(client, fmt.Sprintf("/registry/%d", acknowledged), value); err == nil {
			acknowledged++
		}
	}
	if err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("after %d objects: %v", acknowledged, err)
	}
	if err := k.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "; make room on the disk of "+k.store.(*sqliteStore).path) {
		t.Errorf("ready: %v", err)
	}
	if _, err := update(client, "/registry/first", value, revision); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("an update: %v", err)
	}
	r, err := client.Get(t.Context(), "/registry/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || int(r.Count) != acknowledged+2 { // kine's own key for health
		t.Errorf("%d were acknowledged, %d are there, %v", acknowledged, r.Count, err)
	}
}

// TestWatchesAndLists shows that what is strict is still what kine is.
func TestWatchesAndLists(t *testing.T) {
	k, _ := run(t, config(t, ""))
	client := connect(t, k)
	began, err := create(client, "/registry/a", "1")
	if err != nil {
		t.Fatal(err)
	}
	second, err := update(client, "/registry/a", "2", began)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create(client, "/registry/a", "x"); err == nil {
		t.Error("what is there was created")
	}
	if _, err := update(client, "/registry/a", "x", began); err == nil || !strings.Contains(err.Error(), "conflict") {
		t.Errorf("a stale update: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch := client.Watch(ctx, "/registry/a", clientv3.WithRev(began))
	var events []string
	for len(events) < 2 {
		r, ok := <-watch
		if !ok || r.Err() != nil {
			t.Fatalf("the watch ended: %v", r.Err())
		}
		for _, e := range r.Events {
			events = append(events, fmt.Sprintf("%s@%d", e.Kv.Value, e.Kv.ModRevision))
		}
	}
	if want := []string{fmt.Sprintf("1@%d", began), fmt.Sprintf("2@%d", second)}; fmt.Sprint(events) != fmt.Sprint(want) {
		t.Errorf("watched %v, want %v", events, want)
	}
	old, err := client.Get(ctx, "/registry/a", clientv3.WithRev(began))
	if err != nil || len(old.Kvs) != 1 || string(old.Kvs[0].Value) != "1" {
		t.Errorf("at a revision before: %v, %v", old, err)
	}
	none, err := client.Get(ctx, "/registry/none")
	if err != nil || len(none.Kvs) != 0 || none.Header.Revision < second {
		t.Errorf("what is not there: %v, %v", none, err)
	}
}

func TestWhole(t *testing.T) {
	event := func(revision int64) *server.Event { return &server.Event{KV: &server.KeyValue{ModRevision: revision}} }
	for _, c := range []struct {
		batch server.EventBatch
		from  int64
		want  bool
	}{
		{server.EventBatch{CurrentRev: 9}, 0, true},
		{server.EventBatch{CurrentRev: 9}, 10, true},
		{server.EventBatch{CurrentRev: 9}, 9, false},
		{server.EventBatch{}, 9, false},
		{server.EventBatch{CurrentRev: 9, Events: []*server.Event{event(8), event(9)}}, 8, true},
		{server.EventBatch{CurrentRev: 9, Events: []*server.Event{event(7), event(8)}}, 7, false},
	} {
		if got := whole(c.batch, c.from); got != c.want {
			t.Errorf("%v from %d is whole: %v", c.batch, c.from, got)
		}
	}
}

// TestNotOurs: a store of another cluster is refused, and stays as it is.
func TestNotOurs(t *testing.T) {
	c := config(t, "")
	k, stop := run(t, c)
	if _, err := create(connect(t, k), "/registry/a", "1"); err != nil {
		t.Fatal(err)
	}
	stop()
	other := c
	other.Owner = func() (string, error) { return "sha256:theirs", nil }
	k, err := New(other)
	if err != nil {
		t.Fatal(err)
	}
	err = k.Run(t.Context())
	var p *shared.Problem
	if !errors.As(err, &p) || !p.Lasting || !strings.Contains(err.Error(), "belongs to another cluster, whose authority is sha256:ours") {
		t.Errorf("another cluster's: %v", err)
	}
	run(t, c)
}

// TestDamaged: what is no database, or cannot be written, is an error that names file and remedy.
func TestDamaged(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, c Config){
		"restore ": func(t *testing.T, c Config) {
			if err := os.WriteFile(c.File, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"name a file in a directory that exists": func(t *testing.T, c Config) {
			if err := os.MkdirAll(c.File, 0o700); err != nil {
				t.Fatal(err)
			}
		},
	} {
		c := config(t, "")
		if err := os.MkdirAll(filepath.Dir(c.File), 0o700); err != nil {
			t.Fatal(err)
		}
		damage(t, c)
		k, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.File) || !strings.Contains(err.Error(), "; "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestGrowth updates objects again and again, and compacts as the API server does: what is stored stays as large as it
// was soon. With LITE_LONG_TEST=1 there are 100,000 updates.
func TestGrowth(t *testing.T) {
	updates, compactions := 10_000, 10
	if os.Getenv("LITE_LONG_TEST") == "1" {
		updates, compactions = 100_000, 20
	}
	path := filepath.Join(t.TempDir(), "db")
	k, stop := run(t, config(t, path+"?_journal_mode=WAL&_busy_timeout=30000&_synchronous=OFF&_txlock=immediate"))
	client := connect(t, k)
	const objects = 10
	var revisions [objects]int64
	value := strings.Repeat("x", 1000)
	for i := range objects {
		var err error
		if revisions[i], err = create(client, fmt.Sprintf("/registry/%d", i), value); err != nil {
			t.Fatal(err)
		}
	}
	size := func() (all int64) {
		for _, suffix := range []string{"", "-wal"} {
			if info, err := os.Stat(path + suffix); err == nil {
				all += info.Size()
			}
		}
		return all
	}
	var sizes []int64
	for i := range updates {
		o := i % objects
		var err error
		if revisions[o], err = update(client, fmt.Sprintf("/registry/%d", o), value, revisions[o]); err != nil {
			t.Fatal(err)
		}
		if (i+1)%(updates/compactions) == 0 {
			// kine keeps the last 1000 revisions whatever it is asked for.
			if _, err := client.Compact(t.Context(), revisions[o]); err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, size()>>10)
		}
	}
	t.Logf("KiB after each of %d compactions: %v", compactions, sizes)
	// The log beside the file is emptied when SQLite gets to it. Without compaction there would be 3 KiB for each update.
	early, last := sizes[compactions/5], sizes[compactions-1]
	if last > early+8<<10 {
		t.Errorf("it has grown from %d KiB to %d KiB", early, last)
	}
	stop()
	run(t, config(t, path))
	t.Logf("KiB after a restart: %d", size()>>10)
}
