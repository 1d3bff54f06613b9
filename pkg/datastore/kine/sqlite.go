package kine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/generic"
	kinesqlite "github.com/k3s-io/kine/pkg/drivers/sqlite"
	"github.com/k3s-io/kine/pkg/server"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"lite.io/lite/pkg/datastore/shared"
)

// sqliteStore is a file that nobody else works with.
type sqliteStore struct {
	path       string
	parameters string
	own        bool // in the data directory
}

// newSQLite takes what follows sqlite://.
func newSQLite(rest, file string) *sqliteStore {
	path, parameters, _ := strings.Cut(rest, "?")
	s := &sqliteStore{path: path, parameters: parameters}
	if path == "" {
		s.path, s.own = file, true
	}
	if parameters == "" {
		// Upstream's own, but that what was acknowledged survives a power cut.
		s.parameters = strings.Replace(kinesqlite.DefaultParams, "_synchronous=NORMAL", "_synchronous=FULL", 1)
	}
	return s
}

func (s *sqliteStore) String() string { return "SQLite in " + s.path }

func (s *sqliteStore) open(ctx context.Context) error {
	if s.own {
		if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
			return shared.Lasting(err, "make the directory writable")
		}
	}
	// SQLite would create it readable by everybody, and the files beside it with the same mode.
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return shared.Lasting(err, "name a file in a directory that exists and is writable")
	}
	if err := f.Close(); err != nil {
		return err
	}
	db, err := s.connect()
	if err != nil {
		return err
	}
	defer db.Close()
	var objects int
	return db.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_schema`).Scan(&objects)
}

func (s *sqliteStore) backend(ctx context.Context, wg *sync.WaitGroup) (server.Backend, error) {
	c := settings(s.path + "?" + s.parameters)
	// Nobody else writes: it knows by itself when there is something new.
	c.PollInterval = 10 * time.Second
	// Each connection has a cache of 2 MB.
	c.ConnectionPoolConfig = generic.ConnectionPoolConfig{MaxIdle: 4, MaxIdleTime: time.Minute}
	_, b, err := kinesqlite.New(ctx, wg, c)
	return b, err
}

// settings is what all have in common. Compaction is the API server's, every 5 minutes; the last 1000 revisions stay.
func settings(dsn string) *drivers.Config {
	return &drivers.Config{
		DataSourceName:   dsn,
		CompactTimeout:   5 * time.Second,
		CompactMinRetain: 1000,
		CompactBatchSize: 1000,
		PollBatchSize:    500,
		PollInterval:     time.Second,
	}
}

// touch changes a value of the row that kine keeps its compactions in, which nothing reads.
const touch = `UPDATE kine SET old_value = ? WHERE name = 'compact_rev_key'`

// connect is by a connection of our own.
func (s *sqliteStore) connect() (*sql.DB, error) {
	// Of the user's parameters those that this driver knows; upstream translates the others.
	own := url.Values{"_pragma": {"busy_timeout(2000)"}}
	if all, err := url.ParseQuery(s.parameters); err == nil {
		own["_pragma"] = append(own["_pragma"], all["_pragma"]...)
	}
	return sql.Open("sqlite", "file://"+s.path+"?"+own.Encode())
}

func (s *sqliteStore) write(ctx context.Context, size int) error {
	db, err := s.connect()
	if err != nil {
		return err
	}
	return touched(ctx, db, touch, size)
}

func (s *sqliteStore) judge(err error) (remedy string, lasting bool) {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return "", false
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_FULL:
		return "make room on the disk of " + s.path, false
	case lib.SQLITE_NOTADB, lib.SQLITE_CORRUPT:
		return fmt.Sprintf("restore %s from a backup, or move it and the files beside it away to start an empty cluster", s.path), true
	case lib.SQLITE_READONLY, lib.SQLITE_CANTOPEN, lib.SQLITE_PERM:
		return fmt.Sprintf("make %s and its directory writable", s.path), true
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return "end the other program that works with " + s.path, false
	case lib.SQLITE_IOERR:
		return "check the disk of " + s.path, false
	}
	return "", false
}
