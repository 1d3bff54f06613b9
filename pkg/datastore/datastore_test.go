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
	for _, kind := range []string{"", "sqlite", "ETCD"} {
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
