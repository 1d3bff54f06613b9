package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/tests/golden"
)

func TestReference(t *testing.T) {
	golden.Check(t, "reference-server", Reference(Server))
	golden.Check(t, "reference-agent", Reference(Agent))
}

func TestFlags(t *testing.T) {
	golden.Check(t, "help-server", Flags(Server).FlagUsages())
	if Flags(Agent).Lookup("cluster-cidr") != nil {
		t.Error("an agent has a flag that is for servers")
	}
}

// Usage goes to pflag, which takes backquotes out, and into Markdown tables,
// which | ends.
func TestOptions(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range options {
		if seen[o.name] || strings.ContainsAny(o.usage+o.def+o.found+o.empty, "`|") || o.usage == "" || o.arg == "" {
			t.Errorf("option %s is not as it should be", o.name)
		}
		seen[o.name] = true
	}
}

func TestPrint(t *testing.T) {
	h := fakeHost(map[string]string{
		"/etc/lite/config.yaml":          "disable: [dns]\ntls-san: api.test\n",
		"/etc/lite/config.yaml.d/a.yaml": "disable+: metrics\nwrite-kubeconfig-mode: 0644\n",
		"/var/lib/lite/node-name":        "first\n",
	})
	env := []string{"LITE_NODE_LABEL=a=true,b=0x1", "LITE_KUBELET_ARG=feature-gates=A=true,B=true\nv=2"}
	args := []string{"--data-dir=/var/lib/lite/", "--node-taint=a=b:NoExecute", "--cluster-domain=null"}
	c, err := loadAs(t, Server, args, env, h)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := c.Print(&out, cluster.Facts{}); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "print", out.String())

	again, err := loadAs(t, Server, nil, nil, fakeHost(map[string]string{"/etc/lite/config.yaml": out.String()}))
	if err != nil {
		t.Fatalf("what was printed cannot be loaded: %v", err)
	}
	c.sources, again.sources = nil, nil
	if !reflect.DeepEqual(c, again) {
		t.Errorf("what was printed is loaded as another configuration:\n%+v\n%+v", c, again)
	}
}

func TestPrintAgent(t *testing.T) {
	c, err := loadAs(t, Agent, nil, nil, fakeHost(nil))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := c.Print(&out, cluster.Facts{}); err != nil || strings.Contains(out.String(), "cluster-cidr") {
		t.Errorf("got %s, %v", out.String(), err)
	}
	if err := c.Print(broken{}, cluster.Facts{}); err == nil {
		t.Error("no error")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }
