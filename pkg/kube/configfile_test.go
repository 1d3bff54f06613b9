package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	kubelet "k8s.io/kubelet/config/v1beta1"
)

// strict decodes the kubelet's configuration, as an example.
func strict(t *testing.T) runtime.Decoder {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := kubelet.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}

const head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

func readText(t *testing.T, text string) (ConfigFile, string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := ReadConfigFile("kubelet", "config", path, strict(t), "KubeletConfiguration")
	return f, path, err
}

func TestConfigFilesThatAreWrong(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"unknown field":   {head + "maxPodz: 1\n", `unknown field "maxPodz"`},
		"unknown, deep":   {head + "authentication: {anonymus: {}}\n", `unknown field "authentication.anonymus"`},
		"twice":           {head + "maxPods: 1\nmaxPods: 2\n", `key "maxPods" already set`},
		"another type":    {head + "maxPods: many\n", "maxPods"},
		"another kind":    {strings.Replace(head, "KubeletConfiguration", "CredentialProviderConfig", 1) + "providers: []\n", "is of kind CredentialProviderConfig"},
		"another version": {strings.Replace(head, "v1beta1", "v1", 1), "no kind"},
		"no kind":         {"maxPods: 1\n", "Kind"},
		"not YAML":        {"\tmaxPods", "yaml"},
		"a list":          {"- a\n", "cannot unmarshal"},
		"empty":           {"", "is empty"},
		"only comments":   {"# a\n---\n", "is empty"},
		"two documents":   {head + "---\n" + head, "line 3: a second YAML document begins"},
	} {
		_, path, err := readText(t, test.text)
		if err == nil || !strings.HasPrefix(err.Error(), `kubelet-arg "config=`+path+`": `) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{fifo: "is not a regular file", filepath.Dir(fifo): "is not a regular file", "/no/such": "no such file"} {
		if _, err := ReadConfigFile("kubelet", "config", path, strict(t), "KubeletConfiguration"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func TestConfigFileOverOurs(t *testing.T) {
	owned := []Owned{{"cgroupDriver", "systemd", "remove it"}, {"authentication.x509.clientCAFile", "/ca", "remove it"}, {"rotateCertificates", true, "remove it"}, {"port", 10250, "remove it"}}
	const base = `{"cgroupDriver":"systemd","authentication":{"x509":{"clientCAFile":"/ca"}},"maxPods":1,"evictionHard":{"a":"1"}}`
	for name, test := range map[string]struct{ text, want, wrong string }{
		"what is said":        {"maxPods: 42\nevictionHard: {b: '2'}", `"maxPods":42`, ""},
		"maps are merged":     {"evictionHard: {b: '2'}", `"evictionHard":{"a":"1","b":"2"}`, ""},
		"null is a default":   {"evictionHard: null", `"maxPods":1}`, ""},
		"the same as ours":    {"cgroupDriver: systemd\nport: 10250\nrotateCertificates: true", `"cgroupDriver":"systemd"`, ""},
		"empty says nothing":  {"cgroupDriver: ''\nport: 0\nauthentication: {x509: {}}", `"cgroupDriver":"systemd"`, ""},
		"other than ours":     {"cgroupDriver: cgroupfs", "", `cgroupDriver: lite decides this field, and cgroupfs is not "systemd"; remove it`},
		"other, deep":         {"authentication: {x509: {clientCAFile: /mine}}", "", "authentication.x509.clientCAFile: lite decides"},
		"a truth that is not": {"rotateCertificates: false", "", "rotateCertificates: lite decides"},
		"a number":            {"port: 10251", "", "port: lite decides"},
		"two":                 {"port: 1\ncgroupDriver: cgroupfs", "", "port: lite decides"},
	} {
		f, _, err := readText(t, head+test.text+"\n")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := f.Claim(owned); err != nil || test.wrong != "" {
			if err == nil || test.wrong == "" || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%s: got %v, want %s", name, err, test.wrong)
			}
			continue
		}
		if merged, err := f.Over([]byte(base)); err != nil || !strings.Contains(string(merged), test.want) {
			t.Errorf("%s: got %s, %v, want %s", name, merged, err, test.want)
		}
	}
}
