package servers

import (
	"bytes"
	"os"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// testDataDamaged changes a bit of what a server has on its disk while it is stopped: it comes back with the data of
// the other servers, and keeps its own aside.
func (j *joining) testDataDamaged(t *testing.T) {
	const word, wrong = "as-it-was-acknowledged", "as-it-was-acknowledgee"
	last := j.cluster.Servers[2]
	j.first.Kubectl(t, "create", "configmap", "marked", "--from-literal=word="+word)
	before := members(t, j.first)
	last.Stop(t)
	database := last.Path(cluster.DataDir + "/server/etcd/member/snap/db")
	data, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(word)) {
		t.Fatal("the database does not contain what was written")
	}
	if err := os.WriteFile(database, bytes.ReplaceAll(data, []byte(word), []byte(wrong)), 0o600); err != nil {
		t.Fatal(err)
	}
	last.Start(t)
	voting(t, last)
	if got := last.Kubectl(t, "get", "configmap", "marked", "-o", "jsonpath={.data.word}"); got != word {
		t.Errorf("it has %q", got)
	}
	aside, err := os.ReadFile(last.Path(cluster.DataDir + "/server/etcd/damaged/snap/db"))
	if err != nil || !bytes.Contains(aside, []byte(wrong)) {
		t.Errorf("what it had is not aside: %v", err)
	}
	for _, m := range members(t, j.first) {
		for _, was := range before {
			if m.ID == was.ID && was.Name == last.Name {
				t.Errorf("it votes under the identity of before, %s", m.ID)
			}
		}
	}
}
