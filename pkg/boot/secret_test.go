package boot

import (
	"slices"
	"testing"
)

func TestInEnvironment(t *testing.T) {
	for _, c := range []struct{ args, without []string }{
		{[]string{"lite", "server", "--datastore-endpoint=mysql://a:b@tcp(c)/d", "-t", "x"}, []string{"lite", "server", "-t", "x"}},
		{[]string{"lite", "server", "--datastore-endpoint", "mysql://a:b@tcp(c)/d"}, []string{"lite", "server"}},
		{[]string{"lite", "--datastore-endpoint=1", "server", "--datastore-endpoint=2", "--datastore-cafile=/ca"}, []string{"lite", "server", "--datastore-cafile=/ca"}},
	} {
		args, environment := inEnvironment(c.args, []string{"A=1", "E=before"}, "--datastore-endpoint", "E", "2")
		if !slices.Equal(args, c.without) || !slices.Equal(environment, []string{"A=1", "E=2"}) {
			t.Errorf("%q: %q, %q", c.args, args, environment)
		}
	}
}
