package etcd

import (
	"errors"
	"fmt"
	"io"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// adopt declares what is at the end of a log committed. A member learns what the cluster has committed with the next
// message, which has not come if the one that led died, and it writes that down without a sync. When etcd (3.7) is forced to be
// a cluster of one, it drops all after that, also what was acknowledged. No other member is left to contradict.
// Changes of the members, and what follows them, are left to etcd.
func adopt(dir string) error {
	w, state, entries, err := openLog(walDir(dir))
	if err != nil {
		return fmt.Errorf("read the end of the write-ahead log in %s: %w", walDir(dir), err)
	}
	committed := state.GetCommit()
	for _, e := range entries {
		if e.GetIndex() <= committed {
			continue
		}
		if e.GetType() != raftpb.EntryNormal {
			break
		}
		committed = e.GetIndex()
	}
	if committed > state.GetCommit() {
		state.Commit = &committed
		err = errors.Join(w.Save(state, nil), w.Sync())
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("commit the end of the write-ahead log in %s: %w", walDir(dir), err)
	}
	return nil
}

// openLog opens a log to go on with it. A last record that is not whole is dropped, as etcd does.
func openLog(dir string) (w *wal.WAL, state *raftpb.HardState, entries []*raftpb.Entry, err error) {
	newest, err := newestSnapshot(dir)
	for repaired := false; err == nil; repaired = true {
		if w, err = wal.Open(zap.NewNop(), dir, newest); err != nil {
			break
		}
		if _, state, entries, err = w.ReadAll(); err == nil {
			return w, state, entries, nil
		}
		w.Close()
		if !repaired && errors.Is(err, io.ErrUnexpectedEOF) && wal.Repair(zap.NewNop(), dir) {
			err = nil
		}
	}
	return nil, nil, nil, err
}
