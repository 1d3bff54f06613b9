package cli

import (
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// TestAuditPolicy has audit policies that the API server would not take.
func TestAuditPolicy(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	for name, content := range map[string]string{
		"not YAML":      "rules: [\n",
		"unknown level": "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Everything\n",
		"other kind":    "apiVersion: v1\nkind: ConfigMap\n",
		"no rules":      "apiVersion: audit.k8s.io/v1\nkind: Policy\n",
		"empty":         "",
	} {
		t.Run(name, func(t *testing.T) {
			const file = "/etc/policy.yaml"
			n.WriteFile(t, file, content)
			attempt{
				args: []string{"--audit-log-path=/var/log/lite/audit.log", "--audit-policy-file=" + file},
				want: []string{"audit-policy-file", file},
			}.check(t, n)
		})
	}
	for name, a := range map[string]attempt{
		"no such policy":  {args: []string{"--audit-log-path=/var/log/audit.log", "--audit-policy-file=/no/policy"}, want: []string{"audit-policy-file", "/no/policy"}},
		"policy, no log":  {args: []string{"--audit-policy-file=/etc/hosts", "--audit-log-path=none"}, want: []string{"audit-policy-file", "audit-log-path"}},
		"policy alone":    {args: []string{"--audit-policy-file=/etc/hosts"}, want: []string{"audit-policy-file", "/etc/hosts"}},
		"log a word":      {args: []string{"--audit-log-path=off"}, want: []string{"audit-log-path", "absolute path"}},
		"log a directory": {args: []string{"--audit-log-path=/var/log"}, want: []string{"audit-log-path", "/var/log", "directory"}},
	} {
		t.Run(name, func(t *testing.T) { a.check(t, n) })
	}
}
