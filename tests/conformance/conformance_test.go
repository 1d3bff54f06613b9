package conformance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/version"

	"lite.io/lite/tests/conformance/images"
	"lite.io/lite/tests/conformance/report"
	"lite.io/lite/tests/harness/cluster"
	"lite.io/lite/tests/upstream"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// bench is a cluster, and beside it a host on which the tests run: their processes
// must not be among the node's.
type bench struct {
	cache   string // what scripts/test/conformance has built
	out     string // where results go
	cluster *cluster.Cluster
	runner  *cluster.Host
	procs   int
}

// TestConformance runs the specs that are asked for and writes down how they ended.
// It fails if one does.
func TestConformance(t *testing.T) {
	cache := os.Getenv("LITE_CONFORMANCE")
	if cache == "" {
		t.Skip("takes an hour and more: `make conformance` runs it")
	}
	name, chosen, ok := choose(os.Getenv)
	if !ok {
		t.Fatalf("GROUP=%s is none; there are %s", name, strings.Join(slices.Sorted(maps.Keys(groups)), ", "))
	}
	b := newBench(t, cache, name)
	phases := b.phases(t, chosen)
	b.makeCluster(t, groups[name].dualStack)
	began := time.Now()
	var s report.Summary
	log, err := os.Create(filepath.Join(b.out, "e2e.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for _, p := range phases {
		s.Left = append(s.Left, p.left...)
		if p.specs == 0 {
			continue
		}
		t.Logf("%s: %d specs, %d processes", p.name, p.specs, p.procs)
		s.Runs = append(s.Runs, b.run(t, p.name, p.procs, p.of, log))
	}
	s.Title = "Kubernetes' end-to-end tests: " + cmp.Or(name, "a part")
	if name == "conformance" {
		s.Title = "Kubernetes' conformance tests"
	}
	s.Facts = b.facts(t, chosen, began)
	b.write(t, name, s)
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}

// phase is specs that run together.
type phase struct {
	name  string
	procs int
	of    selection
	specs int           // how many
	left  []report.Left // others that were asked for and cannot run
}

// phases are the specs that may run beside others, and those that must not.
func (b *bench) phases(t *testing.T, chosen selection) []phase {
	t.Helper()
	all := []phase{{name: "parallel", procs: b.procs, of: chosen.parallel()}, {name: "serial", procs: 1, of: chosen.serial()}}
	sum, lacks := 0, lacks()
	for i, p := range all {
		specs := b.list(t, p.of)
		all[i].of, all[i].left, specs = p.of.possible(specs, lacks)
		all[i].specs = len(specs)
		sum += len(specs)
	}
	if sum == 0 {
		t.Fatal("no spec is chosen; FOCUS is a regular expression, and FEATURES lets in what needs some")
	}
	return all
}

// newBench prepares what needs no cluster.
func newBench(t *testing.T, cache, name string) *bench {
	t.Helper()
	b := &bench{cache: cache, procs: 3 * runtime.NumCPU(), out: filepath.Join("..", "..", "dist", "conformance", cmp.Or(name, "focus"))}
	if text := os.Getenv("PROCS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("PROCS=%s is no number of processes", text)
		}
		b.procs = n
	}
	if err := errors.Join(os.RemoveAll(b.out), os.MkdirAll(b.out, 0o755)); err != nil {
		t.Fatal(err)
	}
	return b
}

// testHandler is the runtime that the specs of RuntimeClass look for.
const testHandler = `version = 4
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.test-handler]
  runtime_type = "io.containerd.runc.v2"
`

// nodeConfig is the configuration of both nodes. They share the machine's disk with each other and with all that is on
// it: it is not theirs to keep a tenth of it free.
const nodeConfig = `kubelet-arg: ["eviction-hard=memory.available<100Mi,nodefs.available<1Gi,imagefs.available<1Gi", image-gc-high-threshold=100]
`

// makeCluster makes the cluster, and beside it a registry that has all images.
func (b *bench) makeCluster(t *testing.T, dualStack bool) {
	t.Helper()
	layout := b.images(t)
	handler, hosts, err := images.Registry(layout)
	if err != nil {
		t.Fatal(err)
	}
	var mirrors strings.Builder
	mirrors.WriteString("mirrors:\n")
	for _, host := range hosts {
		fmt.Fprintf(&mirrors, "  %q:\n    endpoint: [\"http://%s:5000\"]\n", host, cluster.Gateway)
	}
	b.cluster = cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		n.MountWhole(t)
		config := nodeConfig
		if dualStack {
			n.AddIPv6(t)
			n.Output(t, "ip", "-6", "route", "add", "default", "via", "fd99::fe") // where nodes look for Services from
			config += "node-ip: " + n.IP + "," + n.IPv6() + "\n"
			if n.Role == "server" {
				config += cluster.DualStack
			}
		}
		n.WriteFile(t, cluster.DataDir+"/agent/containerd/config.toml.d/50-handler.toml", testHandler)
		n.WriteFile(t, "/etc/lite/registries.yaml", mirrors.String())
		n.WriteFile(t, "/etc/lite/config.yaml", config)
		// What the mirror does not have is asked for there. The kubelet pulls one image after
		// the other, and a name that does not resolve is tried for half a minute.
		n.WriteFile(t, "/etc/hosts", n.ReadFile(t, "/etc/hosts")+"127.0.0.1 registry-1.docker.io\n")
	}))
	listener, err := b.cluster.Network.Listen("tcp", cluster.Gateway+":5000")
	if err != nil {
		t.Fatal(err)
	}
	registry := &http.Server{Handler: handler}
	go registry.Serve(listener)
	t.Cleanup(func() { registry.Close() })
	b.runner = cluster.NewHost(t, cluster.On(b.cluster.Network), cluster.Install(cluster.Binary(t), "/usr/local/bin/lite"))
	b.prepareRunner(t)
}

// images makes the layout of images, which takes seconds.
func (b *bench) images(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(b.cache, "images")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, err := images.Build(dir, images.Sources{
		Base: filepath.Join(b.cache, "base.tar"), Programs: filepath.Join(b.cache, "bin"),
		Upstream: filepath.Join(upstream.Sources(t, "k8s.io/kubernetes"), "test", "images"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Where things are on the host of the tests.
const (
	kubeconfig = "/etc/kubeconfig"
	kubectl    = "/usr/local/bin/kubectl"
	results    = "/var/log/conformance" // on the machine's disk
)

func (b *bench) prepareRunner(t *testing.T) {
	t.Helper()
	server := b.cluster.Server()
	config, err := clientcmd.Load([]byte(server.ReadFile(t, cluster.Kubeconfig)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range config.Clusters {
		c.Server = "https://" + server.IP + ":6443"
	}
	text, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	b.runner.WriteFile(t, kubeconfig, string(text))
	// The program itself, not a link or a script: a spec takes the file into a pod.
	b.runner.Output(t, "cp", "/usr/local/bin/lite", kubectl)
	if err := os.MkdirAll(b.runner.Path(results), 0o755); err != nil {
		t.Fatal(err)
	}
}

// list is the names of the specs that are chosen.
func (b *bench) list(t *testing.T, s selection) []string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(b.out, "list"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	out, runErr := exec.CommandContext(t.Context(), filepath.Join(b.cache, "bin", "ginkgo"), b.arguments(dir, 1, s, "--dry-run")...).CombinedOutput()
	run, err := report.Read(filepath.Join(dir, "junit_01.xml"))
	if err != nil {
		t.Fatalf("the specs cannot be listed: %v, %v:\n%s", runErr, err, out[max(0, len(out)-4000):])
	}
	return run.Specs()
}

// run runs specs, shows how they end, and returns what ginkgo has written of them.
func (b *bench) run(t *testing.T, phase string, procs int, s selection, log io.Writer) report.Suites {
	t.Helper()
	dir := results + "/" + phase
	var tail bytes.Buffer
	c := b.runner.Command(context.WithoutCancel(t.Context()), filepath.Join(b.cache, "bin", "ginkgo"), b.arguments(dir, procs, s)...)
	out := io.MultiWriter(log, &progress{}, &tail)
	c.Stdout, c.Stderr = out, out
	runErr := c.Run()
	// Specs that fail make it fail too; they are in the results, if there are any.
	suites, err := report.Read(b.runner.Path(dir + "/junit_01.xml"))
	if err != nil {
		text := tail.String()
		t.Fatalf("the tests have not run: %v, %v:\n%s", runErr, err, text[max(0, len(text)-4000):])
	}
	return suites
}

// arguments are those of ginkgo, and behind them upstream's.
func (b *bench) arguments(dir string, procs int, s selection, more ...string) []string {
	args := append([]string{"-v", "--no-color", "--timeout=24h", "--poll-progress-after=10m", "--procs=" + strconv.Itoa(procs)}, more...)
	args = append(args, s.flags()...)
	return append(args, filepath.Join(b.cache, "bin", "e2e.test"), "--",
		"--provider=skeleton", "--num-nodes=2", "--kubeconfig="+kubeconfig, "--kubectl-path="+kubectl, "--report-dir="+dir,
		"--disable-log-dump", "--cluster-ip-range=10.43.0.0/16")
}

// progress shows by two lines how each spec ends, and no more. Of specs that run in
// parallel the name follows, of others it has been before.
type progress struct {
	rest  []byte
	name  string
	ended bool
}

func (p *progress) Write(data []byte) (int, error) {
	p.rest = append(p.rest, data...)
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			return len(data), nil
		}
		p.line(string(line))
		p.rest = rest
	}
}

func (p *progress) line(text string) {
	if strings.HasPrefix(text, "[sig-") {
		p.name = text
	}
	ends := strings.HasPrefix(text, "• [")
	switch {
	case p.ended:
		text = p.name
	case !ends && !strings.HasPrefix(text, "Ran ") && !strings.HasPrefix(text, "Will run"):
		return
	}
	p.ended = ends
	fmt.Printf("%s %s\n", time.Now().Format(time.TimeOnly), text)
}

// facts is how the run was made.
func (b *bench) facts(t *testing.T, s selection, began time.Time) [][2]string {
	t.Helper()
	facts := [][2]string{{"When", began.UTC().Format("2006-01-02 15:04 UTC") + ", for " + time.Since(began).Round(time.Second).String()}}
	for line := range strings.Lines(b.runner.Output(t, "/usr/local/bin/lite", "version")) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && slices.Contains([]string{"lite", "kubernetes", "Kubernetes"}, strings.TrimSuffix(key, ":")) {
			facts = append(facts, [2]string{strings.TrimSuffix(key, ":"), strings.TrimSpace(value)})
		}
	}
	return append(facts,
		[2]string{"Cluster", "one server and one agent"},
		[2]string{"Machine", fmt.Sprintf("%d processors, %s", runtime.NumCPU(), runtime.GOARCH)},
		[2]string{"Processes", fmt.Sprintf("%d, then 1 for `[Serial]`", b.procs)},
		[2]string{"Chosen by", "`" + strings.ReplaceAll(strings.Join(s.flags(), "` `"), "|", "\\|") + "`"},
	)
}

// write writes the results: all of them to dist, and the short ones of what has a
// name into the documents.
func (b *bench) write(t *testing.T, name string, s report.Summary) {
	t.Helper()
	page := s.Markdown()
	err := errors.Join(
		report.Merge(s.Runs...).Write(filepath.Join(b.out, "junit_01.xml")),
		os.WriteFile(filepath.Join(b.out, "results.md"), page, 0o644),
	)
	if name != "" && os.Getenv("SKIP") == "" {
		err = errors.Join(err, os.WriteFile(filepath.Join(documents(t), name+".md"), page, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("results are in %s", b.out)
}

// documents is the directory of the results that are kept.
func documents(t *testing.T) string {
	t.Helper()
	dir := filepath.Join("..", "..", "docs", "conformance", version.DefaultKubeBinaryVersion)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
