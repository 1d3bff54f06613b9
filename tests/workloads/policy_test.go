package workloads

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lite.io/lite/tests/harness/cluster"
)

// A service account may do what its role says, and nothing else.
func (s suite) testRBAC(t *testing.T, ns *cluster.Namespace) {
	ns.Kubectl(t, "create", "serviceaccount", "reader")
	ns.Kubectl(t, "create", "role", "read-pods", "--verb=get,list", "--resource=pods")
	ns.Kubectl(t, "create", "rolebinding", "reader", "--role=read-pods", "--serviceaccount="+ns.Name+":reader")
	config := rest.AnonymousClientConfig(ns.Node.Config(t))
	config.BearerToken = strings.TrimSpace(ns.Kubectl(t, "create", "token", "reader"))
	reader, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // the authorizer learns of the role a moment later
		_, err := reader.CoreV1().Pods(ns.Name).List(t.Context(), metav1.ListOptions{})
		return err
	})
	for what, try := range map[string]func() error{
		"list secrets": func() error {
			_, err := reader.CoreV1().Secrets(ns.Name).List(t.Context(), metav1.ListOptions{})
			return err
		},
		"list pods of another namespace": func() error {
			_, err := reader.CoreV1().Pods("kube-system").List(t.Context(), metav1.ListOptions{})
			return err
		},
		"delete a pod": func() error {
			return reader.CoreV1().Pods(ns.Name).Delete(t.Context(), "any", metav1.DeleteOptions{})
		},
	} {
		if err := try(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want it forbidden", what, err)
		}
	}
}

// Whoever does not say who he is may ask after the server's health, no more.
func (s suite) testAnonymousAccess(t *testing.T, ns *cluster.Namespace) {
	anonymous, err := kubernetes.NewForConfig(rest.AnonymousClientConfig(ns.Node.Config(t)))
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) error {
		return anonymous.Discovery().RESTClient().Get().AbsPath(path).Do(t.Context()).Error()
	}
	for _, path := range []string{"/healthz", "/livez", "/readyz"} {
		if err := get(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{"/api", "/apis", "/metrics", "/version", "/api/v1/namespaces"} {
		if err := get(path); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: %v, want it unauthorized", path, err)
		}
	}
}

func (s suite) testResourceQuota(t *testing.T, ns *cluster.Namespace) {
	ns.Kubectl(t, "create", "quota", "few", "--hard=pods=1,configmaps=2")
	eventually(t, func() error { // what is not counted yet is not limited
		if used := ns.Field(t, "resourcequota/few", ".status.used.pods"); used != "0" {
			return fmt.Errorf("used pods: %q", used)
		}
		return nil
	})
	ns.Apply(t, pod("first", "sleep 3600"))
	if out, err := ns.ApplyErr(t, pod("second", "sleep 3600")); err == nil || !strings.Contains(out, "exceeded quota: few") {
		t.Errorf("a second pod: %v %s", err, out)
	}
	ns.WaitFor(t, "condition=Ready", "pod/first")
}

func (s suite) testLimitRange(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, `
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec:
  limits:
  - type: Container
    default: {memory: 100Mi}
    defaultRequest: {memory: 50Mi}
    max: {memory: 200Mi}
`)
	ns.Apply(t, pod("modest", "sleep 3600"))
	if got := ns.Field(t, "pod/modest", ".spec.containers[0].resources.limits.memory"); got != "100Mi" {
		t.Errorf("memory limit is %q, want the default 100Mi", got)
	}
	greedy := pod("greedy", "sleep 3600") + "    resources: {limits: {memory: 1Gi}}\n"
	if out, err := ns.ApplyErr(t, greedy); err == nil || !strings.Contains(out, "maximum memory usage per Container is 200Mi") {
		t.Errorf("a pod above the maximum: %v %s", err, out)
	}
	// The limit is one of the kernel's, not only of the API's.
	ns.WaitFor(t, "condition=Ready", "pod/modest")
	got := strings.TrimSpace(ns.Exec(t, "modest", "sh", "-c",
		"cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"))
	if got != "104857600" {
		t.Errorf("the cgroup's memory limit is %q, want 104857600", got)
	}
}

// A namespace that enforces the restricted standard refuses what is below it.
func (s suite) testPodSecurity(t *testing.T, ns *cluster.Namespace) {
	ns.Node.Kubectl(t, "label", "namespace", ns.Name, "pod-security.kubernetes.io/enforce=restricted")
	eventually(t, func() error {
		out, err := ns.ApplyErr(t, pod("plain", "sleep 3600"))
		if err == nil || !strings.Contains(out, "violates PodSecurity") {
			return fmt.Errorf("a pod that is not restricted: %v %s", err, out)
		}
		return nil
	})
	ns.Apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: restricted}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 65534, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sleep, "3600"]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`)
	ns.WaitFor(t, "condition=Ready", "pod/restricted")
	status := ns.Exec(t, "restricted", "grep", "-E", "^(Uid|CapEff|NoNewPrivs|Seccomp):", "/proc/self/status")
	if got := strings.Fields(status); !strings.HasPrefix(strings.Join(got, " "), "Uid: 65534 65534 65534 65534") ||
		!strings.HasSuffix(strings.Join(got, " "), "CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2") {
		t.Errorf("the process is not restricted:\n%s", status)
	}
}

func (s suite) testCustomResource(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.lite.test}
spec:
  group: lite.test
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat, shortNames: [bo]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Sails, type: integer, jsonPath: .spec.sails}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [sails]
            properties: {sails: {type: integer, minimum: 1}}
            x-kubernetes-validations: [{rule: "self.sails < 10", message: too many sails}]
          status: {type: object, properties: {afloat: {type: boolean}}}
`)
	ns.WaitFor(t, "condition=Established", "crd/boats.lite.test")
	boat := func(sails string) string {
		return "apiVersion: lite.test/v1\nkind: Boat\nmetadata: {name: boat}\nspec: {sails: " + sails + "}\n"
	}
	eventually(t, func() error { // discovery follows
		out, err := ns.ApplyErr(t, boat("3"))
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	for sails, want := range map[string]string{"0": "should be greater than or equal to 1", "11": "too many sails", "many": "integer"} {
		if out, err := ns.ApplyErr(t, boat(sails)); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s sails: %v %s", sails, err, out)
		}
	}
	ns.Kubectl(t, "patch", "boat/boat", "--subresource=status", "--type=merge", "-p", `{"status":{"afloat":true}}`)
	if got := ns.Field(t, "bo/boat", ".status.afloat"); got != "true" {
		t.Errorf("status.afloat is %q", got)
	}
	if got := ns.Kubectl(t, "get", "boats"); !strings.Contains(got, "SAILS") {
		t.Errorf("get boats:\n%s", got)
	}
}

// An aggregated API whose server accepts connections but never answers holds up
// neither discovery nor anything of the cluster's own.
func (s suite) testAggregatedAPIDown(t *testing.T, ns *cluster.Namespace) {
	silent, err := ns.Node.Listen("tcp", ns.Node.IP+":9443")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // nobody accepts: the kernel does, and that is all
	ns.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: silent}
spec: {ports: [{port: 443, targetPort: 9443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: silent, labels: {kubernetes.io/service-name: silent}}
addressType: IPv4
endpoints: [{addresses: [%s], conditions: {ready: true}}]
ports: [{name: "", port: 9443}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.silent.lite.test}
spec:
  group: silent.lite.test
  version: v1
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 1000
  versionPriority: 10
  service: {name: silent, namespace: %s, port: 443}
`, ns.Node.IP, ns.Name))
	defer ns.Node.Kubectl(t, "delete", "apiservice", "v1.silent.lite.test")
	ns.WaitFor(t, "condition=Available=false", "apiservice/v1.silent.lite.test")

	start := time.Now()
	// It may say that a group is missing, and fail; it may not wait for it.
	out, _ := ns.KubectlErr(t, "api-resources")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("kubectl api-resources took %s", took)
	}
	for _, want := range []string{"deployments", "pods", "storageclasses"} {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl api-resources does not mention %s:\n%s", want, out)
		}
	}
	ns.Apply(t, pod("alive", "sleep 3600"))
	ns.WaitFor(t, "condition=Ready", "pod/alive")
}

// A Secret's value cannot be read from the files of the datastore.
func (s suite) testSecretEncryption(t *testing.T, ns *cluster.Namespace) {
	const secret, public = "sesame-open-yourself", "everybody-may-read-this"
	ns.Kubectl(t, "create", "secret", "generic", "cave", "--from-literal=word="+secret)
	ns.Kubectl(t, "create", "configmap", "plain", "--from-literal=word="+public)

	// What is written comes to the log at once, and to the database in a moment.
	found := map[string]bool{}
	eventually(t, func() error {
		content := datastoreBytes(t, ns.Node)
		for _, text := range []string{secret, public, "/secrets/" + ns.Name + "/cave", "k8s:enc:"} {
			found[text] = found[text] || bytes.Contains(content, []byte(text))
		}
		if !found[public] || !found["/secrets/"+ns.Name+"/cave"] {
			return fmt.Errorf("the objects are not in the files of the datastore, or this test looks in the wrong ones")
		}
		return nil
	})
	if found[secret] {
		t.Error("the Secret's value is in the files of the datastore")
	}
	if !found["k8s:enc:"] {
		t.Error("nothing in the files of the datastore is encrypted")
	}
	if got := ns.Field(t, "secret/cave", ".data.word"); got == "" {
		t.Error("the Secret has no value")
	}
}

// datastoreBytes returns the content of all files of the datastore.
func datastoreBytes(t testing.TB, n *cluster.Node) []byte {
	t.Helper()
	var all []byte
	err := filepath.WalkDir(n.Path(cluster.DataDir+"/server"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || !strings.Contains(path, "/member/") {
			return err
		}
		content, err := os.ReadFile(path)
		all = append(all, content...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
