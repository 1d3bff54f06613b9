package config

import (
	"reflect"
	"strings"
	"testing"
)

const installFile = "/etc/lite/config.yaml.d/50-install.yaml"

// What is written is read back as the same settings, and nothing else is written.
func TestDropIn(t *testing.T) {
	files := map[string]string{
		"/etc/lite/config.yaml": "disable: [dns]\ncluster-domain: file.test\n",
		installFile:             "node-name: earlier\nno-such-key: 1\n",
	}
	flags := Flags(Server)
	if err := flags.Parse([]string{"--tls-san=a.test", "--tls-san=b.test", "--write-kubeconfig-mode=0644", "--kubelet-arg=feature-gates=A=true,B=true", "--disable="}); err != nil {
		t.Fatal(err)
	}
	env := []string{"LITE_TOKEN=abcdef.0123456789abcdef", "LITE_NODE_LABEL=a=true,b=0x1", "LITE_TLS_SAN=overridden.test", "LITE_LOG_LEVEL="}
	content, c, err := dropIn(Server, flags, env, installFile, fakeHost(files))
	if err != nil {
		t.Fatal(err)
	}
	want := `disable: []
kubelet-arg: ['feature-gates=A=true,B=true']
node-label: [a=true, b=0x1]
tls-san: [a.test, b.test]
token: abcdef.0123456789abcdef
write-kubeconfig-mode: "0644"
`
	var said []string
	for line := range strings.Lines(string(content)) {
		if !strings.HasPrefix(line, "#") {
			said = append(said, line)
		}
	}
	if got := strings.Join(said, ""); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if !strings.HasPrefix(string(content), "# role: server\n") {
		t.Error("it does not begin with the role, which the installer reads")
	}

	files[installFile] = string(content)
	again, err := loadAs(t, Server, nil, nil, fakeHost(files))
	if err != nil {
		t.Fatal(err)
	}
	c.sources, again.sources = nil, nil
	if !reflect.DeepEqual(c, again) {
		t.Errorf("what was written is loaded as another configuration:\n%+v\n%+v", c, again)
	}
}

func TestDropInRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		args, env []string
		want      string
	}{
		"another configuration file": {[]string{"--config=/etc/passwd"}, nil, "cannot be set for a service"},
		"a typing error":             {nil, []string{"LITE_TOKNE=secret"}, "did you mean LITE_TOKEN?"},
		"a wrong value":              {[]string{"--node-ip=x"}, nil, "is not an IP address"},
	} {
		t.Run(name, func(t *testing.T) {
			flags := Flags(Server)
			if err := flags.Parse(c.args); err != nil {
				t.Fatal(err)
			}
			_, _, err := dropIn(Server, flags, c.env, installFile, fakeHost(nil))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	_, _, err := dropIn(Agent, Flags(Agent), []string{"LITE_TLS_SAN=a.test"}, installFile, fakeHost(nil))
	if err == nil || !strings.Contains(err.Error(), "is for servers only") {
		t.Errorf("what is for others: %v", err)
	}
}
