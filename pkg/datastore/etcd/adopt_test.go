package etcd

import (
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// A member had a write in its log that was acknowledged, and died before it was told that it is committed. It keeps
// that when it becomes the only one; but not a change of the members that nobody has agreed to, and what follows.
func TestSingleKeepsTheEndOfItsLog(t *testing.T) {
	quietly(t)
	s := &servers{root: t.TempDir()}
	only := s.member(t, 1)
	stop := running(t, only)
	write(t, only, "committed")
	id := uint64(only.server.Load().Server.MemberID())
	stop()

	dir := only.config.Dir
	w, state, entries, err := openLog(walDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	last := entries[len(entries)-1].GetIndex()
	put := func(key string) []byte {
		data, err := proto.Marshal(&etcdserverpb.InternalRaftRequest{ID: 1, Put: &etcdserverpb.PutRequest{Key: []byte(key), Value: []byte("x")}})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	leave, err := proto.Marshal(&raftpb.ConfChange{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: &id})
	if err != nil {
		t.Fatal(err)
	}
	var tail []*raftpb.Entry
	for i, e := range []struct {
		kind raftpb.EntryType
		data []byte
	}{{raftpb.EntryNormal, put("first")}, {raftpb.EntryNormal, put("second")}, {raftpb.EntryConfChange, leave}, {raftpb.EntryNormal, put("after")}} {
		tail = append(tail, &raftpb.Entry{Term: new(state.GetTerm()), Index: new(last + 1 + uint64(i)), Type: e.kind.Enum(), Data: e.data})
	}
	if err := w.Save(state, tail); err != nil {
		t.Fatal(err)
	}
	w.Close()

	if err := ForceSingle(t.Context(), Config{Name: "host1", Dir: dir, PKI: s.pki(1)}); err != nil {
		t.Fatal(err)
	}
	again := s.member(t, 1)
	defer running(t, again)()
	for _, key := range []string{"committed", "first", "second"} {
		has(t, again, key)
	}
	got, err := again.server.Load().Server.Range(t.Context(), &etcdserverpb.RangeRequest{Key: []byte("after")})
	if err != nil || got.Count != 0 {
		t.Errorf("after a change of the members: %v, %v", got, err)
	}
}
