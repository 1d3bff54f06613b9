package bench

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/tests/harness/cluster"
)

// flags is what the command line says.
var flags struct {
	runs                  int
	settle, window, later time.Duration
}

const (
	// dist is where the build puts what it makes.
	dist = "../../../dist"
	// limit bounds every single step; it is far above what any should take.
	limit = 2 * time.Minute
	// podsSettle is how long ten pods have run before their CPU is counted.
	podsSettle = 30 * time.Second
)

func TestMain(m *testing.M) {
	flag.IntVar(&flags.runs, "runs", 3, "how often to measure; the table has the medians")
	flag.DurationVar(&flags.settle, "settle", 75*time.Second, "from the start until the node counts as idle")
	flag.DurationVar(&flags.window, "window", 60*time.Second, "how long to count CPU and writes")
	flag.DurationVar(&flags.later, "later", 0, "from the start until memory is read once more; 0: not")
	cluster.Main(m)
}

// BenchmarkLite measures everything, however often it is told to.
func BenchmarkLite(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: the hosts are made of namespaces, mounts and cgroups")
	}
	b.Setenv("LITE_BINARY", copyBinary(b))
	r := newReport()
	measureSize(b, r)
	for n := range flags.runs {
		progress("run %d of %d", n+1, flags.runs)
		ok := b.Run("run", func(b *testing.B) {
			b.ReportMetric(0, "ns/op") // it says nothing
			measure(b, r)
			measureAgent(b, r)
		})
		if !ok {
			break // the report says that it is incomplete
		}
	}
	if err := r.write(os.Stdout, filepath.Join(dist, "bench.json"), !b.Failed()); err != nil {
		b.Error(err)
	}
}

// measure is one run on one new host.
func measure(b *testing.B, r *report) {
	node := cluster.NewNode(b)
	// An image of 44 MB that nobody runs is no part of an empty data directory.
	removeLargeImage(b, node)

	progress("cold start")
	began := time.Now()
	cold := start(b, node, "first")
	r.add(coldAPI, cold.api.Seconds())
	r.add(coldNode, cold.node.Seconds())
	r.add(coldStatus, cold.status.Seconds())
	r.add(coldPod, cold.pod.Seconds())
	r.version = cold.version

	c := connect(b, node)
	c.awaitFigures(b)
	r.add(figures, time.Since(began).Seconds())
	c.deletePod(b, "first")
	p := processOf(b, node)
	progress("idle, until %s after the start, then for %s", flags.settle, flags.window)
	sleep(b, time.Until(began.Add(flags.settle)))
	m := p.memory(b)
	r.add(rssAnon, m.anon)
	r.add(rssFile, m.file)
	r.add(rss, m.rss)
	r.add(pss, m.pss)
	idle := p.use(b, flags.window)
	r.add(idleCPU, idle.cpu)
	r.add(othersCPU, idle.others)
	r.add(idleWrites, idle.written)
	if flags.later > 0 {
		sleep(b, time.Until(began.Add(flags.later)))
		r.add(rssAnonLater, p.memory(b).anon)
	}

	progress("ten pods")
	c.scale(b, 10)
	sleep(b, podsSettle)
	shims := p.shims(b)
	if len(shims) != 10 {
		b.Errorf("%d shims run, want 10", len(shims))
	}
	for _, shim := range shims {
		m := shim.memory(b)
		r.addPart(shimRSS, m.rss, len(shims))
		r.addPart(shimPSS, m.pss, len(shims))
	}
	r.add(podsCPU, p.use(b, flags.window).cpu)

	progress("stop and restart")
	r.add(stopped, node.Stop(b).Seconds())
	sleep(b, time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	again := start(b, node, "second")
	r.add(againAPI, again.api.Seconds())
	r.add(againNode, again.node.Seconds())
	r.add(againStatus, again.status.Seconds())
	r.add(againPod, again.pod.Seconds())

	progress("a volume, thirty pods, then creates")
	c = connect(b, node)
	c.deletePod(b, "second")
	c.scale(b, 0)
	r.add(claimed, c.claim(b, "data").Seconds())
	c.deletePod(b, "data")
	r.add(thirtyPods, c.scale(b, 30).Seconds())
	c.scale(b, 0)
	r.add(addressed, c.expose(b).Seconds())
	rate, p99 := createMany(b, node)
	r.add(createRate, rate)
	r.add(createP99, float64(p99.Microseconds())/1000)
	r.add(decisions, decide(b, node))
}

// copyBinary copies what is to be measured to where no build replaces it, on
// disk: what is mapped from a tmpfs counts as another kind of memory.
func copyBinary(b *testing.B) string {
	source, err := os.Open(cluster.Binary(b))
	if err != nil {
		b.Fatal(err)
	}
	defer source.Close()
	dir, err := os.MkdirTemp(dist, "bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	to, err := filepath.Abs(filepath.Join(dir, "lite"))
	if err != nil {
		b.Fatal(err)
	}
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		b.Fatal(err)
	}
	if _, err = io.Copy(target, source); err == nil {
		err = target.Sync() // not while something is measured
	}
	if closed := target.Close(); err == nil {
		err = closed
	}
	if err != nil {
		b.Fatal(err)
	}
	return to
}

// sleep waits, but not longer than the benchmark lives.
func sleep(b *testing.B, d time.Duration) { kube.Sleep(b.Context(), d) }

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}
