package config

import (
	"errors"
	"strings"
	"testing"

	"lite.io/lite/pkg/cluster"
)

// secret is a password that may be nowhere in what is shown.
const secretPassword = "hunter2"

func TestDatastoreKinds(t *testing.T) {
	for endpoint, kind := range map[string]string{
		"":                            cluster.Etcd,
		"sqlite://":                   cluster.SQLite,
		"sqlite:///srv/db?_timeout=1": cluster.SQLite,
		"postgres://u:" + secretPassword + "@db.example:5432/k8s?sslmode=require": cluster.PostgreSQL,
		"postgresql://": cluster.PostgreSQL,
		"mysql://u:" + secretPassword + "@tcp(db.example:3306)/k8s": cluster.MySQL,
		"mysql://":                       cluster.MySQL,
		"http://192.0.2.1:2379":          cluster.ExternalEtcd,
		"https://a:2379, https://b:2379": cluster.ExternalEtcd,
	} {
		c, err := loadAs(t, Server, []string{"--datastore-endpoint=" + endpoint}, nil, fakeHost(nil))
		if err != nil {
			t.Errorf("%s: %v", endpoint, err)
			continue
		}
		if got := c.Propose().Datastore; got != kind {
			t.Errorf("%s is of the kind %q, want %q", endpoint, got, kind)
		}
		var shown strings.Builder
		if err := c.Print(&shown, cluster.Facts{}); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(shown.String(), secretPassword) || endpoint != "" && !strings.Contains(shown.String(), "# datastore-endpoint: not shown # flag --datastore-endpoint") {
			t.Errorf("%s is printed as\n%s", endpoint, shown.String())
		}
		if want := strings.Contains(endpoint, secretPassword); c.ShowsPassword() != want {
			t.Errorf("%s: the command line shows a password: %v", endpoint, !want)
		}
	}
}

// TestWrongDatastore: each error says what is wrong, and none shows the password.
func TestWrongDatastore(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--datastore-endpoint=" + secretPassword, `datastore-endpoint "not shown" (flag --datastore-endpoint): is not a URL; use one of sqlite://`},
		{"--datastore-endpoint=nats://u:" + secretPassword + "@db", `has a scheme that no datastore has`},
		{"--datastore-endpoint=oracle://u:" + secretPassword + "@db", `"not shown" (flag --datastore-endpoint): has a scheme that no datastore has`},
		{"--datastore-endpoint=postgres://u:" + secretPassword + "#/@db:5432/k8s", `"postgres://…" (flag --datastore-endpoint): is not a URL; replace special characters`},
		{"--datastore-endpoint=postgres://u:" + secretPassword + "%zz@db:5432/k8s", `replace special characters`},
		{"--datastore-endpoint=mysql://u:" + secretPassword + "@tcp(db)/x\n", `contains control characters`},
		{"--datastore-endpoint=https://", `names no host`},
		{"--datastore-endpoint=https://root:" + secretPassword + "@a:2379", `authenticates to an etcd by certificate alone; set datastore-certfile`},
		{"--datastore-endpoint=https://a:2379/v3?p=" + secretPassword, `contains more than scheme, host and port`},
		{"--datastore-endpoint=https://a:2379,http://b:2379", `mixes schemes`},
		{"--datastore-endpoint=sqlite://db/state.db", `is not an absolute path`},
		{"--datastore-endpoint=sqlite:// --datastore-cafile=/ca.crt", `datastore-cafile "/ca.crt" (flag --datastore-cafile): is for a datastore on the network`},
		{"--datastore-certfile=/a.crt", `datastore-certfile "/a.crt" (flag --datastore-certfile): has no key; set datastore-keyfile`},
		{"--datastore-keyfile=/a.key", `has no certificate; set datastore-certfile`},
		{"--datastore-endpoint=sqlite:// --etcd-arg=quota-backend-bytes=100000000", `etcd-arg "quota-backend-bytes=100000000" (flag --etcd-arg): is for the embedded etcd`},
		{"--datastore-endpoint=sqlite:// --etcd-expose-metrics", `etcd-expose-metrics "true"`},
		{"--datastore-endpoint=sqlite:// --kube-apiserver-arg=etcd-servers=http://127.0.0.1:1", `contradicts datastore-endpoint`},
	} {
		_, err := loadAs(t, Server, strings.Split(c.args, " "), nil, fakeHost(nil))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secretPassword) {
			t.Errorf("%s: %v", c.args, err)
		}
	}
	_, err := loadAs(t, Agent, nil, []string{"LITE_DATASTORE_ENDPOINT=postgres://u:" + secretPassword + "@db/k8s"}, fakeHost(nil))
	if err == nil || !strings.Contains(err.Error(), "is for servers only") || strings.Contains(err.Error(), secretPassword) {
		t.Errorf("on an agent: %v", err)
	}
	file := map[string]string{"/etc/lite/config.yaml": "datastore-endpoint: [postgres://u:" + secretPassword + "@db/k8s]\n"}
	if _, err = loadAs(t, Server, nil, nil, fakeHost(file)); err == nil || strings.Contains(err.Error(), secretPassword) {
		t.Errorf("as a list: %v", err)
	}
}

// TestAnotherDatastore: the kind of a store that is in use cannot change, and nobody is told its password.
func TestAnotherDatastore(t *testing.T) {
	load := func(endpoint string) *Config {
		c, err := loadAs(t, Server, []string{"--datastore-endpoint=" + endpoint}, nil, fakeHost(nil))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, c := range []struct{ was, is, want string }{
		{"", "sqlite://", `datastore-endpoint "sqlite" (flag --datastore-endpoint), but the cluster has "etcd"`},
		{"sqlite://", "postgres://u:" + secretPassword + "@db/k8s", `datastore-endpoint "postgres" (flag --datastore-endpoint), but the cluster has "sqlite"`},
		{"mysql://u:p@tcp(db)/k8s", "", `datastore-endpoint "etcd" (flag --datastore-endpoint), but the cluster has "mysql"`},
		{"postgres://u:" + secretPassword + "@db/k8s", "postgresql://u:new@other/k8s", ""},
	} {
		err := load(c.is).ContradictsOwn(load(c.was).Propose())
		if c.want == "" && err != nil {
			t.Errorf("from %q to %q: %v", c.was, c.is, err)
			continue
		}
		var contradiction *Contradiction
		if c.want != "" && (!errors.As(err, &contradiction) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secretPassword)) {
			t.Errorf("from %q to %q: %v", c.was, c.is, err)
		}
	}
	older := load("").Propose()
	older.Datastore = ""
	if err := load("sqlite://").ContradictsOwn(older); err == nil {
		t.Error("after a version that had etcd alone, another store is taken")
	}
}
