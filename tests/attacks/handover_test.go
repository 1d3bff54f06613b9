package attacks

import (
	"net/http"
	"strings"
	"testing"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/tests/harness/cluster"
)

// testHandover has everybody ask for the keys that servers share, and for a place among them, who must not have either.
func (s *suite) testHandover(t *testing.T) {
	const ask = `{"nodeName": "thief"}`
	token := func(role string) string {
		text := strings.TrimSpace(s.server.Output(t, "lite", "token", "create", "--ttl", "10m", "--role", role))
		id, _, _ := strings.Cut(strings.TrimPrefix(text, "lite://"), ".")
		return id
	}
	agents, servers := token("agent"), token("server")
	byToken := func(id, role string) []string {
		return []string{"--as=" + layout.TokenUser + id, "--as-group=" + layout.TokenGroup(role), "--as-group=system:bootstrappers", "--as-group=system:authenticated"}
	}
	try := func(as []string, stdin string, args ...string) (string, error) {
		cmd := s.server.Command(t.Context(), "lite", append(append([]string{"kubectl"}, as...), args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	node := []string{"--as=system:node:" + s.agent.Name, "--as-group=system:nodes", "--as-group=system:authenticated"}
	member := `{"name": "thief", "peerURL": "https://10.99.0.254:2380", "server": "https://10.99.0.254:6443"}`
	for name, c := range map[string]struct {
		as    []string
		stdin string
		args  []string
		want  string
	}{
		"agents' token":              {byToken(agents, "agent"), ask, []string{"create", "--raw", layout.HandoverPath, "-f", "-"}, "forbidden"},
		"node":                       {node, ask, []string{"create", "--raw", layout.HandoverPath, "-f", "-"}, "forbidden"},
		"administrator":              {nil, ask, []string{"create", "--raw", layout.HandoverPath, "-f", "-"}, "only a token that was created with --role server"},
		"a group that it has not":    {byToken(agents, "server"), `{"nodeName": "../../etc"}`, []string{"create", "--raw", layout.HandoverPath, "-f", "-"}, "nodeName"},
		"a token that there is not":  {byToken("zzzzzz", "server"), ask, []string{"create", "--raw", layout.HandoverPath, "-f", "-"}, ""},
		"what is no request":         {byToken(servers, "server"), `{"nodeName": 1}`, []string{"create", "--raw", layout.HandoverPath, "-f", "-"}, "JSON"},
		"more than a request":        {byToken(servers, "server"), `{"nodeName": "` + strings.Repeat("a", 1<<20) + `"}`, []string{"create", "--raw", layout.HandoverPath, "-f", "-"}, "too large"},
		"a living node's name":       {byToken(servers, "server"), `{"nodeName": "` + s.server.Name + `"}`, []string{"create", "--raw", layout.HandoverPath, "-f", "-"}, "is held by another node"},
		"members, by a token":        {byToken(servers, "server"), "", []string{"get", "--raw", layout.MembersPath}, "forbidden"},
		"members, by a node":         {node, "", []string{"get", "--raw", layout.MembersPath}, "forbidden"},
		"a place, by a token":        {byToken(servers, "server"), member, []string{"create", "--raw", layout.MembersPath, "-f", "-"}, "forbidden"},
		"a place, by a node":         {node, member, []string{"create", "--raw", layout.MembersPath, "-f", "-"}, "forbidden"},
		"a place, by an admin":       {nil, member, []string{"create", "--raw", layout.MembersPath, "-f", "-"}, "only servers of the cluster"},
		"to remove one, by an admin": {nil, "", []string{"delete", "--raw", layout.MembersPath + "/" + s.server.Name}, "only servers of the cluster"},
	} {
		if out, err := try(c.as, c.stdin, c.args...); err == nil || !strings.Contains(out, c.want) || strings.Contains(out, "sealed") {
			t.Errorf("%s: %v, %.300s", name, err, out)
		}
	}
	out, err := try(byToken(servers, "server"), ask, "create", "--raw", layout.HandoverPath, "-f", "-")
	if err != nil || !strings.Contains(out, "sealed") || strings.Contains(out, "PRIVATE") {
		t.Errorf("a token for servers: %v, %.100s", err, out)
	}
	if got := s.server.Kubectl(t, "get", "--raw", layout.MembersPath); strings.Contains(got, "thief") {
		t.Errorf("the members are %s", got)
	}
	stranger := cluster.NewHost(t, cluster.On(s.server.Network()))
	if code := status(t.Context(), stranger, "https://"+s.server.IP+":6443"+layout.MembersPath); code != http.StatusUnauthorized {
		t.Errorf("a stranger who asks for the members gets %d", code)
	}
}
