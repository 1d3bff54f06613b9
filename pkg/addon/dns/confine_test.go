package dns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who writes the ConfigMaps has the cluster's DNS, which is root, open a file of the
// machine: the parser's complaint quoted the authority's key.
func TestCorefileReadsNoFileOfTheMachine(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "ca.key")
	if err := os.WriteFile(secret, []byte("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE0000 scalar\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LITE_TOKEN", "MHcCAQEE")
	in := func(directives string) string {
		return ".:53 {\n" + strings.ReplaceAll(directives, "SECRET", secret) + "\n}\n"
	}
	for name, c := range map[string]struct{ corefile, custom, want string }{
		"import":                 {corefile: in("import SECRET"), want: "Corefile:2: import may not open " + secret},
		"import of a directory":  {corefile: in("import " + filepath.Dir(secret) + "/*"), want: "import may not open"},
		"import upwards":         {corefile: in("import ../../../../../../../.." + secret), want: "import may not open"},
		"import through /etc":    {corefile: in("import /etc/coredns/../../.." + secret), want: "import may not open"},
		"import with a wildcard": {corefile: in("import /etc/coredns/*/../../../.." + secret), want: "import may not open"},
		"import, quoted":         {corefile: in(`"import" "SECRET"`), want: "import may not open"},
		"import as a zone":       {corefile: "import " + secret + "\n", want: "import may not open"},
		"import in a snippet":    {corefile: "(a) {\nimport " + secret + "\n}\n" + in("import a"), want: "import may not open"},
		"import in an addition":  {corefile: in("import custom/*.override"), custom: "import " + secret, want: "custom/x.override:1: import may not open"},
		"import of a variable":   {corefile: in("import {$HOME}/x"), want: "may not use environment variables"},
		"variable as a zone":     {corefile: "{$LITE_TOKEN}:53 {\n}\n", want: "may not use environment variables"},
		"variable, otherwise":    {corefile: "{%LITE_TOKEN%}:53 {\n}\n", want: "may not use environment variables"},
		"variable in a word":     {corefile: in("forward . a{$LITE_TOKEN}b"), want: "may not use environment variables"},
		"hosts":                  {corefile: in("hosts SECRET"), want: "hosts may not open " + secret},
		"hosts, relative":        {corefile: in("hosts x"), want: "hosts may not open x"},
		"forward":                {corefile: in("forward . SECRET"), want: "forward may not open " + secret},
		"forward after another":  {corefile: in("forward . 192.0.2.1 SECRET {\n}"), want: "forward may not open"},
		"forward to a socket":    {corefile: in("forward . unix:///run/lite/lite.sock"), want: "forward may not open unix:"},
		"forward, tls":           {corefile: in("forward . 192.0.2.1 {\ntls SECRET SECRET\n}"), want: "forward may not open"},
		"kubernetes, tls":        {corefile: in("kubernetes cluster.local {\ntls SECRET SECRET SECRET\n}"), want: "kubernetes may not open"},
		"kubernetes, kubeconfig": {corefile: in("kubernetes cluster.local {\nkubeconfig SECRET admin\n}"), want: "kubernetes may not open"},
		"loadbalance":            {corefile: in("loadbalance weighted SECRET"), want: "loadbalance may not open"},
		"prometheus":             {corefile: in("prometheus :9153 {\ntls SECRET\n}"), want: "prometheus may not open"},
		"the second of two":      {corefile: in("forward a.test 192.0.2.1\nforward b.test SECRET"), want: "forward may not open"},
	} {
		_, err := rewritten(t, files{corefileName: c.corefile, "custom/x.override": c.custom}, rewriter{listen: addrs("10.42.0.1")})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "MHcCAQEE") {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestCorefileReadsItsOwnFiles(t *testing.T) {
	for _, corefile := range []string{
		".:53 {\nhosts /etc/coredns/NodeHosts {\nfallthrough\n}\n}\n",
		".:53 {\nhosts {\n192.0.2.1 a.test\n}\n}\n",
		".:53 {\nhosts /etc/hosts a.test\n}\n",
		".:53 {\nimport /etc/coredns/custom/*.override\nimport custom/*.override\nerrors\n}\n",
		"(a) {\nerrors\n}\n.:53 {\nimport a\n}\n",
		".:53 {\nforward . /etc/resolv.conf 192.0.2.1 192.0.2.1:53 tls://192.0.2.1 [2001:db8::1]:53 2001:db8::1 dns://192.0.2.1:53 fe80::1%eth0 {\ntls /etc/coredns/NodeHosts\ntls_servername a.test\n}\n}\n",
		".:53 {\nloadbalance round_robin\nloadbalance weighted /etc/coredns/NodeHosts\n}\n",
	} {
		if _, err := rewritten(t, files{corefileName: corefile, "NodeHosts": "192.0.2.9 node\n"}, rewriter{listen: addrs("10.42.0.1"), upstream: addrs("192.0.2.1")}); err != nil {
			t.Errorf("%s: %v", corefile, err)
		}
	}
}
