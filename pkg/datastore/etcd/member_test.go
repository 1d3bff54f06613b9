package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"lite.io/lite/pkg/pki"
)

// servers is a cluster whose members are on loopback addresses of their own.
type servers struct {
	root  string
	first *Etcd
	net   byte // of 127.0.net.n; 77 unless said otherwise
	// several is whether the first knows that there are others.
	several bool
}

func (s *servers) pki(n int) pki.Dir { return pki.Dir(filepath.Join(s.root, fmt.Sprint(n), "pki")) }

// member makes the n-th, in a directory of its own; its authority is that of the first.
func (s *servers) member(t *testing.T, n int) *Etcd {
	t.Helper()
	dir := filepath.Join(s.root, fmt.Sprint(n))
	certs := s.pki(n)
	if _, err := os.Stat(string(certs)); n > 1 && errors.Is(err, fs.ErrNotExist) {
		from := filepath.Join(s.root, "1", "pki")
		if err := os.CopyFS(string(certs), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	address := netip.AddrFrom4([4]byte{127, 0, cmp.Or(s.net, 77), byte(n)})
	name := fmt.Sprintf("host%d", n)
	if _, err := pki.Ensure(certs, pki.Node{Name: name, IPs: []netip.Addr{address}, ClusterDomain: "cluster.local"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	config := Config{Name: name, Dir: filepath.Join(dir, "etcd"), PKI: certs, Address: address, Several: n > 1 || s.net != 0 || s.several}
	if n > 1 {
		config.Admit = func(ctx context.Context, peer string) (string, error) { return s.first.Admit(ctx, name, peer) }
	}
	e, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	e.config.ListenClientUrls = []url.URL{{Scheme: "https", Host: address.String() + ":0"}}
	e.config.AdvertiseClientUrls = e.config.ListenClientUrls
	return e
}

func write(t *testing.T, e *Etcd, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := e.server.Load().Server.Put(ctx, &etcdserverpb.PutRequest{Key: []byte(key), Value: []byte("x")}); err != nil {
		t.Fatalf("write %s on %s: %v", key, e.config.Name, err)
	}
}

func has(t *testing.T, e *Etcd, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := e.server.Load().Server.Range(ctx, &etcdserverpb.RangeRequest{Key: []byte(key)})
	if err != nil || got.Count != 1 {
		t.Errorf("%s on %s: %v, %v", key, e.config.Name, got, err)
	}
}

// One member becomes three without anything being said to it; two of three go on; one that
// lost its data comes back under another identity; one that was removed does not.
func TestMembers(t *testing.T) {
	quietly(t)
	s := &servers{root: t.TempDir()}
	s.first = s.member(t, 1)
	defer running(t, s.first)()
	write(t, s.first, "alone")
	if conn, err := net.DialTimeout("tcp", "127.0.77.1:2380", time.Second); err == nil {
		conn.Close()
		t.Error("a member that is alone can be reached")
	}
	for range 2 {
		if err := s.first.Share(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	second, third := s.member(t, 2), s.member(t, 3)
	stopSecond := running(t, second)
	stopThird := running(t, third)
	has(t, second, "alone")
	write(t, third, "three")
	has(t, s.first, "three")
	all, err := second.Members()
	if err != nil || len(all) != 3 {
		t.Fatalf("members %v, %v", all, err)
	}
	for i, m := range all {
		if m.Name != fmt.Sprintf("host%d", i+1) || m.Learner || m.Self != (i == 1) || m.Self != (m.Applied > 0) || !strings.HasSuffix(m.PeerURL, fmt.Sprintf("127.0.77.%d:2380", i+1)) {
			t.Errorf("member %+v", m)
		}
	}

	t.Run("TwoOfThree", func(t *testing.T) {
		if h, err := second.Health(t.Context(), nil); err != nil || h.MayFail != 1 || h.Members[1].Behind == nil {
			t.Errorf("all are up: %+v, %v", h, err)
		}
		stopThird()
		if h, err := second.Health(t.Context(), nil); err != nil || h.MayFail != 0 || !h.Members[0].Reachable || h.Members[2].Reachable || h.Members[2].Reason == "" {
			t.Errorf("the third is down: %+v, %v", h, err)
		}
		write(t, second, "two")
		if _, err := s.first.Remove(t.Context(), "host2"); err == nil || !strings.Contains(err.Error(), "host3 is not reachable") {
			t.Errorf("removing one of two that are up: %v", err)
		}
		third = s.member(t, 3)
		stopThird = running(t, third)
		has(t, third, "two")
	})
	for name, lose := range map[string]func(dir string) error{
		"DataLost":     os.RemoveAll,
		"DataSetAside": func(dir string) error { return SetAside(dir, dir+".aside") },
	} {
		t.Run(name, func(t *testing.T) {
			stopThird()
			var busy *BusyError
			if _, err := s.first.Admit(t.Context(), "host3", "https://127.0.77.9:2380"); !errors.As(err, &busy) || !strings.Contains(err.Error(), "lite member remove host3") {
				t.Errorf("another machine by the name of one that is off: %v", err)
			}
			before, _ := s.first.Members()
			if n, err := CountMembers(third.config.Dir); n != 3 || err != nil {
				t.Errorf("a stopped one counts %d members, %v", n, err)
			}
			if err := lose(third.config.Dir); err != nil {
				t.Fatal(err)
			}
			third = s.member(t, 3)
			stopThird = running(t, third)
			has(t, third, "two")
			after, _ := s.first.Members()
			if len(after) != 3 || after[2].ID == before[2].ID {
				t.Errorf("before %v, after %v", before, after)
			}
		})
	}
	t.Run("Removed", func(t *testing.T) {
		var unknown *UnknownError
		if _, err := s.first.Remove(t.Context(), "host9"); !errors.As(err, &unknown) {
			t.Errorf("one that is none was removed: %v", err)
		}
		ended := third.server.Load().Server.StopNotify()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // until all have been up for a while
			_, err := s.first.Remove(t.Context(), "host3")
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
		<-ended
		again := s.member(t, 3)
		err := again.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "this server was removed from the cluster") {
			t.Errorf("a member that was removed: %v", err)
		}
		write(t, s.first, "after")
	})
	stopSecond()
}

// One enters at a time; who never comes back holds up nobody for good.
func TestLearnersTakeTurns(t *testing.T) {
	quietly(t)
	s := &servers{root: t.TempDir()}
	s.first = s.member(t, 1)
	defer running(t, s.first)()
	if err := s.first.Share(t.Context()); err != nil {
		t.Fatal(err)
	}
	cluster, err := s.first.Admit(t.Context(), "host2", "https://127.0.77.2:2380")
	if want := "host1=https://127.0.77.1:2380,host2=https://127.0.77.2:2380"; err != nil || cluster != want {
		t.Fatalf("got %q, %v; want %q", cluster, err, want)
	}
	if again, err := s.first.Admit(t.Context(), "host2", "https://127.0.77.2:2380"); err != nil || again != cluster {
		t.Errorf("asked again: %q, %v", again, err)
	}
	var busy *BusyError
	if _, err := s.first.Admit(t.Context(), "host3", "https://127.0.77.3:2380"); !errors.As(err, &busy) || !strings.Contains(err.Error(), "is joining") {
		t.Errorf("a second at the same time: %v", err)
	}
	for id := range s.first.silent {
		s.first.silent[id] = time.Now().Add(-deadAfter)
	}
	if cluster, err = s.first.Admit(t.Context(), "host3", "https://127.0.77.3:2380"); err != nil || strings.Contains(cluster, "host2") {
		t.Errorf("after one that never came: %q, %v", cluster, err)
	}
	for name, peer := range map[string]string{"host1": "https://127.0.77.4:2380", "host4": "https://127.0.77.1:2380"} {
		if _, err := s.first.Admit(t.Context(), name, peer); err == nil || errors.As(err, &busy) {
			t.Errorf("%s at %s, which is the first itself: %v", name, peer, err)
		}
	}
}

// A learner that was killed when it had its log and nothing in it goes on.
func TestLearnerKilledAtItsBeginning(t *testing.T) {
	quietly(t)
	s := &servers{root: t.TempDir()}
	s.first = s.member(t, 1)
	defer running(t, s.first)()
	if err := s.first.Share(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, s.first, "before")
	// A learner that does not know the members yet answers where it is told to.
	if at := s.first.config.AdvertisePeerUrls[0].Host; at != "127.0.77.1:2380" {
		t.Errorf("others answer at %s", at)
	}
	second := s.member(t, 2)
	if err := second.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := s.first.Members()
	if err != nil || len(all) != 2 {
		t.Fatalf("members %v, %v", all, err)
	}
	var id types.ID
	for _, m := range all {
		if m.Learner {
			id, err = types.IDFromString(m.ID)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	metadata, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: new(uint64(id)), ClusterID: new(uint64(s.first.server.Load().Server.Cluster().ID()))})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(second.config.Dir, "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	log, err := wal.Create(zap.NewNop(), walDir(second.config.Dir), metadata)
	if err != nil {
		t.Fatal(err)
	}
	log.Close()
	again := s.member(t, 2)
	defer running(t, again)()
	has(t, again, "before")
}
