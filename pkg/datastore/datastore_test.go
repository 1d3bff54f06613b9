package datastore

import (
	"strings"
	"testing"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

func TestNew(t *testing.T) {
	dir := layout.Data(t.TempDir()).Server()
	c := Config{Kind: cluster.Etcd, NodeName: "node-a", Dir: dir, PKI: pki.Dir(dir.PKI())}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if s.Component == nil || s.Component.Name() != "etcd" || s.Used || s.Shared == nil || len(s.Endpoint.URLs) != 1 || !strings.HasPrefix(s.Endpoint.CertFile, dir.PKI()) {
		t.Errorf("got %+v", s)
	}
	for _, kind := range []string{"", "nats", "ETCD"} {
		c.Kind = kind
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), "does not have; use ") {
			t.Errorf("%q: %v", kind, err)
		}
	}
	c.Kind, c.EtcdArgs = cluster.Etcd, []string{"no-such=1"}
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "no-such") {
		t.Errorf("a wrong argument: %v", err)
	}
}

// TestExternal: what runs, where the API server goes, and whether there has to be an election.
func TestExternal(t *testing.T) {
	dir := layout.Data(t.TempDir()).Server()
	for _, c := range []struct {
		kind   string
		x      External
		url    string
		shared bool
	}{
		{cluster.SQLite, External{Endpoint: "sqlite://", Socket: "/run/x.sock"}, "unix:///run/x.sock", false},
		{cluster.PostgreSQL, External{Endpoint: "postgres://u:p@db/k8s", Socket: "/run/x.sock"}, "unix:///run/x.sock", true},
		{cluster.MySQL, External{Endpoint: "mysql://u:p@tcp(db)/k8s", Socket: "/run/x.sock"}, "unix:///run/x.sock", true},
		{cluster.ExternalEtcd, External{Endpoint: "https://a:2379,https://b:2379", CAFile: "/ca", CertFile: "/c", KeyFile: "/k"}, "https://a:2379", true},
	} {
		s, err := New(Config{Kind: c.kind, NodeName: "a", Dir: dir, PKI: pki.Dir(dir.PKI()), External: c.x})
		if err != nil {
			t.Errorf("%s: %v", c.kind, err)
			continue
		}
		if _, err := New(Config{Kind: c.kind, Dir: dir}); err == nil || !strings.Contains(err.Error(), "; set datastore-endpoint as on the other servers") {
			t.Errorf("%s without an address: %v", c.kind, err)
		}
		if s.Component.Name() != "datastore" || s.Endpoint.URLs[0] != c.url || (s.Shared != nil) != c.shared || s.Events == nil || s.Member != nil || s.Used {
			t.Errorf("%s: %+v", c.kind, s)
		}
		if e := s.Endpoint; c.kind == cluster.ExternalEtcd && (len(e.URLs) != 2 || e.CAFile != "/ca" || e.CertFile != "/c" || e.KeyFile != "/k") {
			t.Errorf("%s: %+v", c.kind, e)
		}
		if err := s.Component.Ready(t.Context()); err == nil || strings.Contains(err.Error(), "u:p@") {
			t.Errorf("%s is ready before it runs, or shows its password: %v", c.kind, err)
		}
	}
}
