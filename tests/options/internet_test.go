package options

import (
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// TestInternetProxy starts lite with a proxy for the way out, as networks of companies
// want it, which leads nowhere here. What is within the cluster does not go through it,
// though nobody has said NO_PROXY.
func TestInternetProxy(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		n.Env = append(n.Env, name+"=http://"+cluster.Gateway+":1")
	}
	n.Start(t)
	ns := n.Namespace(t)
	ns.Apply(t, cluster.Web(1))
	ns.WaitRollout(t, "deployment/web")
	ns.Kubectl(t, "logs", "deployment/web")
	ns.Kubectl(t, "exec", "deployment/web", "--", "true")
	eventually(t, func() error {
		got, err := n.KubectlErr(t, "get", "--raw", "/api/v1/namespaces/"+ns.Name+"/services/web:80/proxy/hostname")
		if err == nil && !strings.HasPrefix(got, "web-") {
			t.Errorf("the Service answers %q", got)
		}
		return err
	})
	eventually(t, func() error { _, err := n.KubectlErr(t, "top", "node"); return err })
	n.Stop(t)
}
