package server

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

// A server leaves as the member that it is, not as whoever has its name by now; and the only one is free to go.
func TestLeave(t *testing.T) {
	var members []etcd.Member
	var removed []string
	api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		which := strings.TrimPrefix(r.URL.Path, layout.MembersPath+"/")
		switch {
		case r.Method != http.MethodDelete:
			_ = json.NewEncoder(w).Encode(members)
		case len(members) == 1:
			w.WriteHeader(http.StatusConflict)
		case !slices.ContainsFunc(members, func(m etcd.Member) bool { return m.Name == which || m.ID == which }):
			w.WriteHeader(http.StatusNotFound)
		default:
			removed = append(removed, which)
			_, _ = w.Write([]byte("{}"))
		}
	}))
	cfg := startOther(t, api)
	for name, c := range map[string]struct {
		members []etcd.Member
		removed []string
	}{
		"one of several":              {[]etcd.Member{{Name: "node-a", ID: "abc"}, {Name: "node-b", ID: "b"}}, []string{"abc"}},
		"another has its name by now": {[]etcd.Member{{Name: "node-a", ID: "d"}, {Name: "node-b", ID: "b"}}, nil},
		"a learner without a name":    {[]etcd.Member{{ID: "abc", Learner: true}, {Name: "node-b", ID: "b"}}, []string{"abc"}},
		"the only one":                {[]etcd.Member{{Name: "node-a", ID: "abc"}}, nil},
	} {
		members, removed = c.members, nil
		if err := Leave(t.Context(), cfg); err != nil || !slices.Equal(removed, c.removed) {
			t.Errorf("%s: %q was removed, %v", name, removed, err)
		}
	}
}

// startOther starts what the API of a server answers, and makes a configuration by which that is where this
// server's own is, with the data of member abc.
func startOther(t *testing.T, api *httptest.Server) *config.Config {
	t.Helper()
	at := netip.MustParseAddrPort(api.Listener.Addr().String())
	cfg := configured(t, filepath.Join(t.TempDir(), "data"))
	cfg.AdvertiseAddress, cfg.HTTPSListenPort = at.Addr(), int(at.Port())
	if _, err := pki.Ensure(pkiDir(cfg), identity(cfg, cfg.Propose()), time.Now()); err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.LoadX509KeyPair(pkiDir(cfg).Cert(pki.APIServer), pkiDir(cfg).Key(pki.APIServer))
	if err != nil {
		t.Fatal(err)
	}
	api.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	api.StartTLS()
	t.Cleanup(api.Close)

	dir := mkdir(t, cfg.Layout().Data.Server())
	if err := (membership{Complete: true}).write(dir); err != nil {
		t.Fatal(err)
	}
	metadata, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: new(uint64(0xabc)), ClusterID: new(uint64(1))})
	if err != nil {
		t.Fatal(err)
	}
	log, err := wal.Create(zap.NewNop(), filepath.Join(dir.Etcd(), "member", "wal"), metadata)
	if err != nil {
		t.Fatal(err)
	}
	log.Close()
	return cfg
}

// The server that says that this one was removed is the one that can admit it: the next start is not told again where that is.
func TestRejoinRemembersWhoSaidSo(t *testing.T) {
	members := []etcd.Member{{Name: "node-a", ID: "abc"}}
	api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(members)
	}))
	cfg := startOther(t, api)
	dir := cfg.Layout().Data.Server()
	gone := "https://127.0.0.1:1"
	was := membership{Complete: true, Alone: true, Reset: true, Servers: []string{gone}}
	if err := was.write(dir); err != nil {
		t.Fatal(err)
	}
	cfg.ServerURL = api.URL
	if _, err := Rejoin(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "is a member of the datastore") {
		t.Errorf("a member: %v", err)
	}
	if m, err := readMembership(dir); err != nil || !m.Alone || len(m.Servers) != 1 {
		t.Errorf("refused, and it remembers %+v, %v", m, err)
	}
	members[0].ID = "b"
	if _, err := Rejoin(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if m, err := readMembership(dir); err != nil || !slices.Equal(m.Servers, []string{api.URL, gone}) || m.Alone || m.Reset || !m.Complete {
		t.Errorf("it remembers %+v, %v", m, err)
	}
	if etcd.Used(dir.Etcd()) {
		t.Error("its data are still there")
	}
}
