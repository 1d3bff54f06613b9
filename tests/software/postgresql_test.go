package software

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

const databaseService = `
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---`

// postgresql is the pod as users write it when they have no operator. It makes its files
// once, with checksums. Without the policy the kubelet would give the group its rights to
// them at each start of the pod, and PostgreSQL refuses that.
const postgresql = `
securityContext: {runAsUser: 999, runAsGroup: 999, fsGroup: 999, fsGroupChangePolicy: OnRootMismatch}
containers:
- name: db
  image: lite.test/postgresql:15
  command:
  - sh
  - -ec
  - |
    [ -e /data/made ] || { rm -rf /data/db; initdb -D /data/db -U postgres -E UTF8 --no-locale --data-checksums; touch /data/made; }
    exec postgres -D /data/db -c unix_socket_directories=/tmp -c max_wal_size=64MB -c checkpoint_timeout=30s
  env: [{name: PGHOST, value: /tmp}, {name: PGUSER, value: postgres}]
  readinessProbe: {exec: {command: [pg_isready]}, periodSeconds: 1}
  volumeMounts: [{name: data, mountPath: /data}]
`

const (
	writers = 4
	// batch is how many rows have to be acknowledged before the next blow.
	batch = 300
)

// testPostgreSQL takes the node from under a database that is written to, again and
// again: all that it has acknowledged is there, and its files are sound.
func testPostgreSQL(t *testing.T, node *cluster.Node) {
	importImages(t, node, made(t, "postgresql"))
	ns := node.Namespace(t)
	ns.Apply(t, databaseService+cluster.Database(1, postgresql))
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := node.Command(context.Background(), "lite", "kubectl", "--namespace", ns.Name, "logs", "db-0", "--tail=20").CombinedOutput()
			t.Logf("the database says:\n%s", out)
		}
	})
	ns.WaitRollout(t, "statefulset/db")
	sql(t, ns, "CREATE TABLE rows (id bigint PRIMARY KEY, content text NOT NULL)")
	w := load(t, ns)

	for _, blow := range []struct {
		name string
		deal func()
	}{
		{"kill -9 of lite", func() { node.Kill(t) }},
		{"power cut", func() { node.Reboot(t) }},
		{"kill -9 of the database", func() { node.Output(t, "sh", "-c", "kill -9 $(pgrep -o -x postgres)") }},
		{"power cut", func() { node.Reboot(t) }},
		{"power cut", func() { node.Reboot(t) }},
	} {
		w.await(t, batch)
		w.during(blow.deal)
		if !node.Running() {
			node.Start(t)
		}
		w.await(t, batch)
		w.check(t, ns, blow.name)
	}
	w.stop()
	w.check(t, ns, "the last rows")
	if out := ns.Exec(t, "db-0", "pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--rootdescend"); out != "" {
		t.Errorf("the files are damaged: %s", out)
	}
	if out := sql(t, ns, "SELECT sum(coalesce(checksum_failures, 0)) FROM pg_stat_database"); out != "0" {
		t.Errorf("checksums of %s pages were wrong", out)
	}
}

// sql runs a statement and returns what psql prints of its result.
func sql(t *testing.T, ns *cluster.Namespace, statement string) string {
	t.Helper()
	return strings.TrimSpace(ns.Exec(t, "db-0", "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement))
}

// workload is clients that write rows as fast as these are acknowledged.
type workload struct {
	ns   *cluster.Namespace
	stop func()

	host sync.RWMutex // nothing can be started on a host that is just being rebooted

	mu           sync.Mutex
	acknowledged map[int]bool
	last         error
}

func load(t *testing.T, ns *cluster.Namespace) *workload {
	ctx, cancel := context.WithCancel(t.Context())
	w := &workload{ns: ns, acknowledged: map[int]bool{}}
	var clients sync.WaitGroup
	w.stop = func() { cancel(); clients.Wait() }
	t.Cleanup(w.stop)
	for first := range writers {
		clients.Go(func() {
			for next := first; ctx.Err() == nil; {
				n, err := w.write(ctx, next)
				next = n
				w.mu.Lock()
				w.last = err
				w.mu.Unlock()
				select { // until the database is back
				case <-time.After(200 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	return w
}

// write is one connection: it writes rows from a number on until it breaks, and
// returns the first number that was not used.
func (w *workload) write(ctx context.Context, next int) (int, error) {
	c := w.ns.Node.Command(ctx, "lite", "kubectl", "--namespace", w.ns.Name, "exec", "-i", "db-0", "--", "psql", "-XqAt", "-v", "ON_ERROR_STOP=1")
	in, err := c.StdinPipe()
	if err != nil {
		return next, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return next, err
	}
	var stderr strings.Builder
	c.Stderr = &stderr
	w.host.RLock()
	err = c.Start()
	w.host.RUnlock()
	if err != nil {
		return next, err
	}
	lines := bufio.NewScanner(out)
	for {
		if _, err = fmt.Fprintf(in, "INSERT INTO rows VALUES (%d, repeat(md5('%[1]d'), 20)) RETURNING id;\n", next); err != nil {
			break
		}
		if !lines.Scan() || lines.Text() != strconv.Itoa(next) {
			next += writers // it may be there all the same
			break
		}
		w.mu.Lock()
		w.acknowledged[next] = true
		w.mu.Unlock()
		next += writers
	}
	in.Close()
	_, _ = io.Copy(io.Discard, out)
	if err := c.Wait(); err != nil {
		return next, fmt.Errorf("%w: %s", err, stderr.String())
	}
	return next, err
}

// during does something while clients write, but no new one comes.
func (w *workload) during(f func()) {
	w.host.Lock()
	defer w.host.Unlock()
	f()
}

// await waits until more rows have been acknowledged.
func (w *workload) await(t *testing.T, more int) {
	t.Helper()
	count := func() (int, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.acknowledged), w.last
	}
	before, _ := count()
	cluster.Eventually(t, 2*soon, func() error {
		if n, err := count(); n < before+more {
			return fmt.Errorf("%d rows, want %d more than %d; a client has ended with: %v", n, more, before, err)
		}
		return nil
	})
}

// check wants each row that was acknowledged, with its content.
func (w *workload) check(t *testing.T, ns *cluster.Namespace, after string) {
	t.Helper()
	w.mu.Lock()
	acknowledged := make([]int, 0, len(w.acknowledged))
	for id := range w.acknowledged {
		acknowledged = append(acknowledged, id)
	}
	w.mu.Unlock()
	there := map[string]bool{}
	wrong := 0
	for line := range strings.Lines(sql(t, ns, "SELECT id, content = repeat(md5(id::text), 20) FROM rows")) {
		id, right, _ := strings.Cut(strings.TrimSpace(line), "|")
		if there[id] = true; right != "t" {
			wrong++
		}
	}
	lost := 0
	for _, id := range acknowledged {
		if !there[strconv.Itoa(id)] {
			lost++
		}
	}
	if lost > 0 || wrong > 0 {
		t.Errorf("after %s: of %d rows that were acknowledged %d are gone; %d have another content", after, len(acknowledged), lost, wrong)
	}
	t.Logf("after %s: %d rows acknowledged, %d there", after, len(acknowledged), len(there))
}
