package config

import (
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/cluster"
)

// A drop-in overrides the file before it in what it sets and in nothing else, and `config print` shows both as a
// configuration that reads as the same.
func FuzzDropIns(f *testing.F) {
	for _, seed := range [][2]string{
		{"", ""}, {"data-dir: /x\nnode-label: [a=b]\n", "node-label+: [c=d]\n"}, {"disable: [dns]\n", "disable+: cni\n"},
		{"data-dir: ./x\nkubelet-arg: |\n  a=b\n  c=d\n", "data-dir: /y\n"}, {"node-ip: 192.0.2.10\ncluster-cidr: 10.40.0.0/16\n", "cluster-cidr: 10.44.0.0/16,fd00::/56\nservice-cidr: 10.45.0.0/16,fd01::/112\nnode-ip: [192.0.2.10, 2001:db8::10]"},
		{"write-kubeconfig-mode: 0644 # mode\n", "tls-san: [a, 'b c', \"d\\n\"]\n"}, {"token: secret\nserver: https://192.0.2.1:6443\n", "node-taint: [a=b:NoSchedule]\n"},
		{"kube-apiserver-arg: ['a=b # c', \"d=\\t\"]\n", "kube-apiserver-arg+: ['- x', '!y', '*z', '&w']\n"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, file, dropIn string) {
		const dropInPath = "/etc/lite/config.yaml.d/50-x.yaml"
		with := func(role Role, file, dropIn string) (*Config, error) {
			return load(role, Flags(role), nil, fakeHost(map[string]string{"/etc/lite/config.yaml": file, dropInPath: dropIn}))
		}
		for _, role := range []Role{Server, Agent} {
			c, err := with(role, file, dropIn)
			if err != nil {
				continue // FuzzRead checks errors
			}
			printsAsItIs(t, role, c)
			alone, errAlone := with(role, file, "")
			other, errOther := with(role, "", dropIn)
			for _, o := range optionsOf(role) {
				switch source := c.sources[o.name]; {
				case o.name == "config" || o.secret:
				case strings.HasPrefix(source, dropInPath) && errOther == nil && c.text(o.name) != other.text(o.name):
					t.Errorf("%s is %q, and the drop-in says %q", o.name, c.text(o.name), other.text(o.name))
				case strings.HasPrefix(source, "/etc/lite/config.yaml:") && !strings.Contains(source, dropInPath) && errAlone == nil && c.text(o.name) != alone.text(o.name):
					t.Errorf("%s is %q, and the file says %q", o.name, c.text(o.name), alone.text(o.name))
				}
			}
		}
	})
}

// printsAsItIs loads what Print shows.
func printsAsItIs(t *testing.T, role Role, c *Config) {
	var shown strings.Builder
	if err := c.Print(&shown, cluster.Facts{}); err != nil {
		t.Fatal(err)
	}
	again, err := load(role, Flags(role), nil, fakeHost(map[string]string{"/etc/lite/config.yaml": shown.String()}))
	if err != nil {
		t.Fatalf("what is printed is refused: %v\n%s", err, shown.String())
	}
	for _, o := range optionsOf(role) {
		if o.name != "config" && !o.secret && !slices.Equal(o.get(c), o.get(again)) {
			t.Errorf("%s is %q, is printed, and is %q:\n%s", o.name, o.get(c), o.get(again), shown.String())
		}
	}
}
