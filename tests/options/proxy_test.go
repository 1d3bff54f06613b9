package options

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// TestProxyModes changes how Services are carried from start to start: they
// answer in either way, from pods that live, and the other way's rules are gone.
func TestProxyModes(t *testing.T) {
	t.Parallel()
	outside := cluster.NewNetwork(t)
	n := cluster.NewNode(t, cluster.On(outside))
	iptables := regexp.MustCompile(`KUBE-(SERVICES|NODEPORTS|SEP-\w+|SVC-\w+)`)
	nftables := regexp.MustCompile(`table \w+ kube-proxy`)
	var ns *cluster.Namespace
	for round, test := range []struct {
		args         []string
		there, other *regexp.Regexp
	}{
		{[]string{"--kube-proxy-arg=proxy-mode=iptables"}, iptables, nftables},
		{nil, nftables, iptables},
		{[]string{"--kube-proxy-arg=proxy-mode=iptables"}, iptables, nftables},
	} {
		n.Start(t, test.args...)
		if ns == nil {
			ns = n.Namespace(t)
			ns.Apply(t, cluster.Web(2))
		} else {
			// What the other way knew of is dead.
			ns.Kubectl(t, "rollout", "restart", "deployment/web")
		}
		ns.WaitRollout(t, "deployment/web")
		answers(t, n, ns.Field(t, "service/web", ".spec.clusterIP")+":80")
		nodePort := n.IP + ":" + ns.Field(t, "service/web", ".spec.ports[0].nodePort")
		answers(t, n, nodePort)
		answers(t, outside, nodePort)
		rules := n.Output(t, "nft", "list", "ruleset")
		if !test.there.MatchString(rules) {
			t.Errorf("round %d: no rule matches %s:\n%s", round, test.there, rules)
		}
		if found := test.other.FindAllString(rules, -1); len(found) > 0 {
			t.Errorf("round %d: rules of the other mode are left: %v", round, found)
		}
		if round < 2 {
			n.Stop(t)
		}
	}
}

// answers wants an address to answer, soon, twenty times in a row: kube-proxy
// learns a moment after a pod has ended that it has.
func answers(t *testing.T, from cluster.Dialer, address string) {
	t.Helper()
	eventually(t, func() error {
		for n := range 20 {
			got, err := cluster.Get(from, "http://"+address+"/hostname")
			if err == nil && !strings.HasPrefix(got, "web-") {
				err = fmt.Errorf("%s answers %q", address, got)
			}
			if err != nil {
				return fmt.Errorf("request %d in a row: %w", n+1, err)
			}
		}
		return nil
	})
}
