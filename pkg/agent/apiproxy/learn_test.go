package apiproxy

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	discovery "k8s.io/api/discovery/v1"
)

func TestLearntServersOutliveTheSeed(t *testing.T) {
	c := newCluster(t)
	seed, two, three := c.server(t, "seed"), c.server(t, "two"), c.server(t, "three")
	c.list(two.address)
	b := c.start(t, Config{Seed: []string{seed.address}})
	eventually(t, "the seed is healthy", func() bool { return b.Ready(t.Context()) == nil })
	if got := c.ask(t, b); got != "seed" {
		t.Errorf("%s answered before the node had joined", got)
	}

	c.join(t, b)
	eventually(t, "two is used", func() bool { return inUse(b).Address == two.address })
	if got := c.ask(t, b); got != "two" {
		t.Errorf("%s answered, want the learnt one", got)
	}
	seed.stop()
	c.list(two.address, three.address)
	eventually(t, "a change is learnt without the seed", func() bool { return find(t, b, three.address).State == Healthy })
	if got := c.ask(t, b); got != "two" {
		t.Errorf("%s answered", got)
	}
	b.end()

	// All but the file is new.
	info, err := os.Stat(b.config.File)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	again := c.start(t, Config{Seed: []string{seed.address}, File: b.config.File})
	if got := c.ask(t, again); got != "two" && got != "three" {
		t.Errorf("%s answered", got)
	}
	eventually(t, "it is ready", func() bool { return again.Ready(t.Context()) == nil })
}

func TestTheSeedIsTheLastResort(t *testing.T) {
	c := newCluster(t)
	seed, two := c.server(t, "seed"), c.server(t, "two")
	config := c.remembered(t, two)
	config.Seed = []string{seed.address}
	b := c.start(t, config)
	eventually(t, "two is used", func() bool { return inUse(b).Address == two.address && inUse(b).State == Healthy })
	two.stop()
	if got := c.ask(t, b); got != "seed" {
		t.Errorf("%s answered", got)
	}
}

func TestADamagedFileLeavesTheSeed(t *testing.T) {
	c := newCluster(t)
	one := c.server(t, "one")
	for _, content := range []string{"", "\x00", `{"servers":["127`, `{}`, `[]`, `{"servers":["127.0.0.1:1","nowhere"]}`} {
		file := filepath.Join(t.TempDir(), "servers.json")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		b := c.start(t, Config{Seed: []string{one.address}, File: file})
		if got := c.ask(t, b); got != "one" || len(b.Servers()) != 1 {
			t.Errorf("%q: got %s, %+v", content, got, b.Servers())
		}
		b.end()
	}
}

func TestConnectionsLeaveAServerThatIsRemoved(t *testing.T) {
	c := newCluster(t)
	one, two := c.server(t, "one"), c.server(t, "two")
	c.list(one.address, two.address)
	b := c.start(t, Config{Seed: []string{one.address}})
	c.join(t, b)
	eventually(t, "both are healthy", func() bool { return len(c.in(b, Healthy)) == 2 })
	conn := dial(t, b)
	eventually(t, "it is connected", func() bool { return connections(b) > 1 })
	used := inUse(b).Address
	other := one.address
	if used == other {
		other = two.address
	}

	c.list(other)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the connection closed", err)
	}
	eventually(t, "the other is used", func() bool { return inUse(b).Address == other })
	if got := c.ask(t, b); c.servers[got].address != other {
		t.Errorf("%s answered", got)
	}
}

func TestTheLastServersAreKept(t *testing.T) {
	b, err := New(Config{Listen: "127.0.0.1:6444", Seed: []string{"seed:1"}, File: filepath.Join(t.TempDir(), "new", "servers.json")})
	if err != nil {
		t.Fatal(err)
	}
	b.update(map[string][]string{"x": {"b:1", "a:1"}, "y": {"a:1", "127.0.0.1:6444"}})
	want := []string{"a:1", "b:1"}
	if got := b.learnt(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	b.update(map[string][]string{"x": nil})
	b.update(nil)
	if got := b.learnt(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got, err := b.read(); err != nil || !slices.Equal(got, want) {
		t.Errorf("remembered are %q, %v", got, err)
	}
}

func TestAddresses(t *testing.T) {
	no := false
	s := slice("10.0.0.1:6443")
	s.Endpoints = append(s.Endpoints,
		discovery.Endpoint{Addresses: []string{"fd00::1"}},
		discovery.Endpoint{Addresses: []string{"10.0.0.9"}, Conditions: discovery.EndpointConditions{Ready: &no}})
	name, port := "metrics", int32(9)
	s.Ports = append(s.Ports, discovery.EndpointPort{Name: &name, Port: &port}, discovery.EndpointPort{})
	if got := addresses(&s); !slices.Equal(got, []string{"10.0.0.1:6443", "[fd00::1]:6443"}) {
		t.Errorf("got %q", got)
	}
}
