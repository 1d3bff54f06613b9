package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"lite.io/lite/pkg/layout"
)

// singleTimeout is far more than it takes to open a store, and to elect oneself.
const singleTimeout = 2 * time.Minute

// CheckSingle refuses to make a member the only one of its cluster that others of it would contradict: one that is up
// somewhere, and one that has not all the data. Nothing is touched. It returns where the others are reached.
func CheckSingle(dir string) (others []string, err error) {
	if err := verify(dir); err != nil {
		return nil, err
	}
	id, err := MemberID(dir)
	if err != nil {
		return nil, err
	}
	all, err := lastMembers(databaseFile(dir))
	if err != nil {
		return nil, fmt.Errorf("read the members of the datastore: %w", err)
	}
	for _, m := range all {
		switch {
		case m.ID.String() != id && Up(m.PeerURLs) != "":
			return nil, fmt.Errorf("server %s, which is reached at %s, is up: two servers must not both go on with the data; stop lite there, or, if a quorum of the servers is up, leave all as it is", m.Name, strings.Join(m.PeerURLs, ","))
		case m.ID.String() != id:
			others = append(others, m.PeerURLs...)
		case m.IsLearner:
			return nil, errors.New("this server has not copied all data of its cluster yet; choose another one that is left")
		}
	}
	if !slices.ContainsFunc(all, func(m *membership.Member) bool { return m.ID.String() == id }) {
		return nil, errors.New("this server was removed from its cluster, and its data are out of date; choose another one that is left, or run `lite member rejoin`")
	}
	return others, nil
}

// Up is the first of the URLs of members at which somebody answers; "" for none.
func Up(urls []string) string {
	if i := slices.IndexFunc(urls, answers); i >= 0 {
		return urls[i]
	}
	return ""
}

// lastMembers is those that a database knows. Names and form are those of etcd's storage/schema (3.7).
func lastMembers(database string) (all []*membership.Member, err error) {
	db, err := bbolt.Open(database, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return all, db.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte("members"))
		if bucket == nil {
			return errors.New("there are none")
		}
		return bucket.ForEach(func(_, value []byte) error {
			m := &membership.Member{}
			all = append(all, m)
			return json.Unmarshal(value, m)
		})
	})
}

// ForceSingle makes a member that does not run the only one of its cluster, with the data that it has. All others are
// removed: those that come back are told so. It may be cut short at any time, and repeated.
func ForceSingle(ctx context.Context, c Config) error {
	c.Several, c.Admit = false, nil
	e, err := New(c)
	if err != nil {
		return err
	}
	e.config.ForceNewCluster = true
	// Nobody is to reach it before it is what it is to be.
	e.config.ListenClientUrls = []url.URL{{Scheme: "https", Host: layout.Local(0)}}
	e.config.ListenPeerUrls = e.config.ListenClientUrls
	if err := verify(c.Dir); err != nil {
		return err
	}
	if err := adopt(c.Dir); err != nil {
		return err
	}
	server, err := e.start()
	if err != nil {
		return err
	}
	e.server.Store(server)
	ctx, cancel := context.WithTimeout(ctx, singleTimeout)
	defer cancel()
	select {
	case <-server.Server.ReadyNotify():
		if all := server.Server.Cluster().Members(); len(all) != 1 || all[0].ID != server.Server.MemberID() {
			err = fmt.Errorf("the datastore has %d members after all", len(all))
		}
	case <-ctx.Done():
		err = fmt.Errorf("wait for the datastore: %w", ctx.Err())
	case err = <-server.Err():
		err = fmt.Errorf("open the datastore: %w", err)
	case <-server.Server.StopNotify():
		err = errors.New("the datastore stopped while it was opened")
	case reason := <-e.failed:
		return fmt.Errorf("write to %s: %w", c.Dir, reason) // as in Run, it cannot be closed
	}
	server.Close()
	return err
}
