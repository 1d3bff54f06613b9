package kubeproxy

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares got with a file of testdata, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs, run go test with -update if that is right; got\n%s", file, got)
	}
}

func sample() Config {
	return Config{NodeName: "node-a", Kubeconfig: "/var/lib/lite/agent/kubelet.conf", ClusterCIDR: "10.42.0.0/16,fd42::/56"}
}

func full() Config {
	c := sample()
	c.KeepConntrack = true
	c.ExtraArgs = []string{"proxy-mode=iptables", "v=2"}
	return c
}

func TestArgs(t *testing.T) {
	golden(t, "args", strings.Join(args(sample(), "nftables"), "\n")+"\n")
	golden(t, "args-full", strings.Join(args(full(), "nftables"), "\n")+"\n")
}

func TestModeIsNftablesWhereItsToolIs(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if got := mode(); got != "iptables" {
		t.Errorf("without nft: got %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "nft"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := mode(); got != "nftables" {
		t.Errorf("with nft: got %s", got)
	}
}

func TestUpstreamAcceptsWhatWeSayAndTheUsersWin(t *testing.T) {
	for name, c := range map[string]Config{"sample": sample(), "full": full()} {
		p, err := New(c)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := p.options.Complete(p.flags); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := p.options.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if p.Name() != "kube-proxy" {
			t.Errorf("got %s", p.Name())
		}
	}
	p, err := New(full())
	if err != nil {
		t.Fatal(err)
	}
	if got := p.flags.Lookup("proxy-mode").Value.String(); got != "iptables" {
		t.Errorf("the user's proxy-mode is lost to %s", got)
	}
}

func TestUnknownArgumentNamesTheFlag(t *testing.T) {
	c := sample()
	c.ExtraArgs = []string{"proxy-mod=x"}
	if _, err := New(c); err == nil || err.Error() != "kube-proxy-arg: unknown flag: --proxy-mod" {
		t.Errorf("got %v", err)
	}
}
