package status

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/component"
	"lite.io/lite/tests/golden"
)

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                               "0s",
		999 * time.Millisecond:          "0s",
		59 * time.Second:                "59s",
		time.Minute:                     "1m0s",
		59*time.Minute + 59*time.Second: "59m59s",
		time.Hour:                       "1h0m",
		23*time.Hour + 59*time.Minute:   "23h59m",
		24 * time.Hour:                  "1d0h",
		50*time.Hour + 30*time.Minute:   "2d2h",
		1000 * 24 * time.Hour:           "1000d0h",
	} {
		if got := Age(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}

func TestStatusTable(t *testing.T) {
	now := time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	n := Node{Role: "server", Name: "node-a", Version: "v0.1.0", PID: 42, Since: now.Add(-90 * time.Minute), Components: []Component{
		{Name: "etcd", State: component.Ready, Since: now.Add(-90 * time.Minute), Took: 0.1234},
		{Name: "apiserver", State: component.Failed, Since: now.Add(-5 * time.Second), Took: 2, Reason: "one\ntwo"},
		{Name: "controller-manager", State: component.Waiting, Since: now},
	}}
	var out bytes.Buffer
	if err := n.WriteText(&out, now); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "status", out.String())
}

func TestStatusShowsCertificates(t *testing.T) {
	now := time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	n := Node{Role: "agent", Certificates: []Certificate{
		{Path: "/pki/ca.crt", State: "ended", Until: now.Add(-time.Second), Remedy: "make it again"},
		{Path: "/pki/apiserver.crt", State: "ends soon", Until: now.AddDate(0, 0, 29), Remedy: "restart lite"},
	}, Servers: []Server{{Address: "192.0.2.1:6443", State: "healthy", Since: now}}}
	var out bytes.Buffer
	if err := n.WriteText(&out, now); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "status-certificates", out.String())
}

// lite status said which server is in use, but not since when.
func TestStatusSaysSinceWhenAServerIsInUse(t *testing.T) {
	now := time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	n := Node{Role: "agent", Servers: []Server{
		{Address: "192.0.2.1:6443", State: "healthy", Since: now.Add(-2 * time.Hour), InUse: true, UsedSince: now.Add(-5 * time.Second)},
		{Address: "192.0.2.2:6443", State: "healthy", Since: now},
	}}
	var out bytes.Buffer
	if err := n.WriteText(&out, now); err != nil || !strings.Contains(out.String(), "yes, 5s") || strings.Count(out.String(), "yes") != 1 {
		t.Errorf("got %v\n%s", err, &out)
	}
}

func TestStatusShowsMembers(t *testing.T) {
	now := time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	behind, none := uint64(12), uint64(0)
	n := Node{Role: "server", Quorum: "the loss of one more server stops the cluster", Members: []Member{
		{Name: "node-a", Role: "leader", Reachable: true, Behind: &none},
		{Name: "node-b", Role: "voter", Reachable: true, Behind: &behind},
		{Name: "node-c", Role: "voter", Reason: "it does\nnot answer"},
	}}
	var out bytes.Buffer
	if err := n.WriteText(&out, now); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "status-members", out.String())
}
