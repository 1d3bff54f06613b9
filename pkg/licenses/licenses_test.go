package licenses

import (
	"debug/buildinfo"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// TestEveryModuleIsListed compares with what the linker put into dist/lite.
func TestEveryModuleIsListed(t *testing.T) {
	if _, err := fs.Stat(data, file); err != nil {
		t.Skip("no licences were collected: run `make build`")
	}
	info, err := buildinfo.ReadFile("../../dist/lite")
	if os.IsNotExist(err) {
		t.Skip("no dist/lite: run `make build`")
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, c := range all {
		if c.SPDX == "" || c.Version == "" || len(c.In) == 0 || c.Source == "" || len(c.Text()) < 100 {
			t.Errorf("%+v is not complete", c)
		}
		versions[c.Name] = c.Version
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		if got := versions[m.Path]; got != m.Version {
			t.Errorf("%s %s is in the binary, the licences have %q", m.Path, m.Version, got)
		}
	}
	for _, name := range []string{"go", "iptables", "nftables", "libnftables", "libnftnl", "libmnl", "jansson", "gmp", "libseccomp", "glibc", "musl", "github.com/opencontainers/runc", "github.com/seccomp/libseccomp-golang", "github.com/containernetworking/plugins"} {
		if versions[name] == "" {
			t.Errorf("%s is not listed", name)
		}
	}
	for name, text := range map[string]string{"iptables": "GNU GENERAL PUBLIC LICENSE", "glibc": "GNU LESSER GENERAL PUBLIC LICENSE", "runc": "Apache License"} {
		c, err := Find(all, name)
		if err != nil || !strings.Contains(c.Text(), text) {
			t.Errorf("%s has not the text of %s (%v)", name, text, err)
		}
	}
}

func TestFind(t *testing.T) {
	all := []Component{{Name: "go"}, {Name: "a.io/go"}, {Name: "a.io/x"}, {Name: "b.io/x"}, {Name: "b.io/y"}}
	for name, want := range map[string]string{"go": "go", "y": "b.io/y", "a.io/x": "a.io/x"} {
		if c, err := Find(all, name); err != nil || c.Name != want {
			t.Errorf("%s: got %s, %v", name, c.Name, err)
		}
	}
	for name, want := range map[string]string{"x": "a.io/x or b.io/x", "z": "lite licenses"} {
		if _, err := Find(all, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestDamageIsSaid(t *testing.T) {
	if _, err := read([]byte("no archive")); err == nil || !strings.Contains(err.Error(), "unpack the licences") {
		t.Errorf("got %v", err)
	}
}
