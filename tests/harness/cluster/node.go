package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/status"
)

const (
	// DataDir is where lite keeps its data.
	DataDir = "/var/lib/lite"
	// Kubeconfig is the administrator's.
	Kubeconfig = "/etc/lite/kubeconfig.yaml"

	binary    = "/usr/local/bin/lite"
	imagesDir = DataDir + "/agent/images"

	// readyTimeout is far above what a start takes; the machine may be busy.
	readyTimeout = 2 * time.Minute
	// stopTimeout is above the 25 s that lite gives itself.
	stopTimeout = 30 * time.Second
	// commandTimeout bounds every single command.
	commandTimeout = 2 * time.Minute
)

// Node is a host on which lite is installed, with the test images in its data
// directory. It runs lite between Start and Stop, not before.
type Node struct {
	*Host

	// Role is what lite is started as: server, unless said otherwise before.
	Role string
	// Env is added to the environment that lite is started with, as NAME=value.
	Env []string
	// Umask is what lite is started with, in octal; "" = the test's own.
	Umask string
	// Clock is added to the time that lite reads, but not to that of what it starts
	// or becomes. Processors other than x86-64 cannot do that.
	Clock time.Duration

	mu     sync.Mutex
	lite   *process
	client kubernetes.Interface
	config *rest.Config
}

// process is a running lite.
type process struct {
	*Cmd
	exited chan struct{} // closed once it has been waited for
}

// NewNode makes a host and installs lite on it, which is not started. It ends
// with the test; if the test has failed by then, the log of lite is kept.
func NewNode(t testing.TB, options ...HostOption) *Node {
	t.Helper()
	options = append(options, Install(Binary(t), binary))
	n := &Node{Host: NewHost(t, options...), Role: "server"}
	t.Cleanup(func() {
		n.Kill(t)
		if t.Failed() {
			n.keepLog(t)
		}
	})
	installImages(t, n)
	return n
}

// Binary returns where on the machine the lite is that is tested: LITE_BINARY, else
// dist/lite of the repository.
func Binary(t testing.TB) string {
	t.Helper()
	path := os.Getenv("LITE_BINARY")
	if path == "" {
		path = filepath.Join(repository(), "dist", "lite")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	return path
}

// ImageTarball returns where on the machine a test image is: agnhost or busybox.
func ImageTarball(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(repository(), "dist", "test-images", name+".tar")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	return path
}

// installImages puts the test images where lite imports them from.
func installImages(t testing.TB, n *Node) {
	t.Helper()
	if err := os.MkdirAll(n.Path(DataDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.Path(imagesDir), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(n.Dir, "lib", "lite", "agent", "images") // not Path: a link does not cross a mount
	if n.disk != nil {
		dir = n.Path(imagesDir)
	}
	for _, name := range []string{"agnhost", "busybox"} {
		if err := linkOrCopy(ImageTarball(t, name), filepath.Join(dir, name+".tar")); err != nil {
			t.Fatal(err)
		}
	}
}

func linkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// Start starts lite in its role and waits until the node is ready.
func (n *Node) Start(t testing.TB, args ...string) {
	t.Helper()
	n.Launch(t, args...)
	n.WaitReady(t)
}

// Launch starts lite in its role and returns at once.
func (n *Node) Launch(t testing.TB, args ...string) {
	t.Helper()
	if n.running() != nil {
		t.Fatal("lite runs already")
	}
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// It may outlive the subtest that starts it, so not that one's context.
	line := append([]string{"lite", n.Role}, args...)
	if n.Umask != "" {
		line = append([]string{"sh", "-c", "umask " + n.Umask + `; exec "$0" "$@"`}, line...)
	}
	p := &process{Cmd: n.Command(context.Background(), line[0], line[1:]...), exited: make(chan struct{})}
	p.Env = append(p.Env, n.Env...)
	p.clock = n.Clock
	p.Stdout, p.Stderr = log, log
	if err := p.Start(); err != nil {
		t.Fatalf("start lite: %v", err)
	}
	go func() {
		defer close(p.exited)
		_ = p.Wait()
	}()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lite, n.client, n.config = p, nil, nil
}

// WaitReady waits until the API server and the node are ready, and `lite
// status` says that all else is. If lite exits instead, the test fails at once.
func (n *Node) WaitReady(t testing.TB) {
	t.Helper()
	p := n.running()
	if p == nil {
		t.Fatal("lite was not started")
	}
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	start := time.Now()
	for {
		err := n.Ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-p.exited:
			t.Fatalf("lite exited before it was ready: %v\n%s", p.ProcessState, tail(n.Log(), 60))
		case <-ctx.Done():
			t.Fatalf("not ready after %s: %v\n%s", time.Since(start).Round(time.Second), err, tail(n.Log(), 60))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Ready is what WaitReady waits for; the error says what is not ready.
func (n *Node) Ready(ctx context.Context) error {
	if n.Role != "server" {
		return n.partsReady(ctx)
	}
	client, err := n.connectAPI()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if answer, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		if apierrors.IsUnauthorized(err) {
			n.forgetAPI() // the kubeconfig was of the start before
		}
		return fmt.Errorf("/readyz: %w: %s", err, answer)
	}
	node, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			return fmt.Errorf("node: %s", condition.Message)
		}
	}
	if len(node.Status.Conditions) == 0 {
		return errors.New("node: the kubelet has not reported yet")
	}
	return n.partsReady(ctx)
}

// partsReady asks what `lite status` asks, which knows the node's Ready condition too.
// It asks many times while a start wants the processor, so it starts the program, which
// costs 60 ms of it, only once all is ready: then that has to say so too.
func (n *Node) partsReady(ctx context.Context) error {
	now, err := status.Get(ctx, n.Path(layout.Default().Run.Socket()))
	if err != nil {
		return err
	}
	for _, c := range now.Components {
		if c.State != component.Ready {
			return fmt.Errorf("%s: %s: %s", c.Name, c.State, c.Reason)
		}
	}
	if answer, err := n.Command(ctx, "lite", "status").CombinedOutput(); err != nil {
		return fmt.Errorf("lite status: %w: %s", err, answer)
	}
	return nil
}

// Stop sends SIGTERM and waits for the end, which must come within 30 s and
// with exit code 0. It returns how long that took.
func (n *Node) Stop(t testing.TB) time.Duration {
	t.Helper()
	p := n.running()
	if p == nil {
		t.Fatal("lite does not run")
	}
	start := time.Now()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("stop lite: %v", err)
	}
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		t.Fatalf("lite runs %s after SIGTERM\n%s", stopTimeout, tail(n.Log(), 60))
	}
	took := time.Since(start)
	if code := p.ProcessState.ExitCode(); code != 0 {
		t.Errorf("lite stopped with %v, not exit code 0\n%s", p.ProcessState, tail(n.Log(), 60))
	}
	return took
}

// Kill ends lite with SIGKILL, if it runs, and waits until it is gone. What it
// has started, such as pods, runs on.
func (n *Node) Kill(t testing.TB) {
	t.Helper()
	p := n.running()
	if p == nil {
		return
	}
	_ = p.Process.Kill()
	<-p.exited
}

// Reboot is [Host.Reboot]: lite and all pods end at once. Start comes next.
func (n *Node) Reboot(t testing.TB) {
	t.Helper()
	p := n.running()
	n.Host.Reboot(t)
	if p != nil {
		<-p.exited
	}
}

// Running reports whether lite runs.
func (n *Node) Running() bool { return n.running() != nil }

// running returns the process of lite, nil if there is none.
func (n *Node) running() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lite == nil {
		return nil
	}
	select {
	case <-n.lite.exited:
		return nil
	default:
		return n.lite
	}
}

// MachinePID returns the process ID of lite as this machine sees it, which no two nodes
// share.
func (n *Node) MachinePID(t testing.TB) int {
	t.Helper()
	p := n.running()
	if p == nil {
		t.Fatal("lite does not run")
	}
	return p.Process.Pid
}

// PID returns the process ID of lite as the host sees it.
func (n *Node) PID(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.MachinePID(t)))
	if err != nil {
		t.Fatal(err)
	}
	var outer, inner int
	_, line, _ := strings.Cut(string(status), "NSpid:")
	if _, err := fmt.Sscan(line, &outer, &inner); err != nil {
		t.Fatalf("NSpid of lite: %v", err)
	}
	return inner
}

// Log returns what lite has printed since the node was made.
func (n *Node) Log() string {
	content, _ := os.ReadFile(n.logFile())
	return string(content)
}

func (n *Node) logFile() string { return filepath.Join(n.Dir, "lite.log") }

// keepLog saves the log of lite from being removed with the host.
func (n *Node) keepLog(t testing.TB) {
	if n.Log() == "" {
		return
	}
	name := strings.ReplaceAll(t.Name(), "/", "-") + "-" + n.Name + ".log"
	path := filepath.Join(workDir(), "failed", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Error(err)
		return
	}
	if err := os.WriteFile(path, []byte(n.Log()), 0o644); err != nil {
		t.Error(err)
	}
	t.Logf("the log of lite is kept in %s; it ends:\n%s", path, tail(n.Log(), 30))
}

// Client returns a client of the node's API server with the administrator's
// rights. It connects from within the host. The node must have been ready.
func (n *Node) Client(t testing.TB) kubernetes.Interface {
	t.Helper()
	client, err := n.connectAPI()
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Config returns the configuration of such a client.
func (n *Node) Config(t testing.TB) *rest.Config {
	t.Helper()
	n.Client(t)
	n.mu.Lock()
	defer n.mu.Unlock()
	return rest.CopyConfig(n.config)
}

func (n *Node) forgetAPI() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.client, n.config = nil, nil
}

// connectAPI reads the kubeconfig that lite has written, once per start.
func (n *Node) connectAPI() (kubernetes.Interface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client != nil {
		return n.client, nil
	}
	kubeconfig, err := os.ReadFile(n.Path(Kubeconfig))
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.Dial = n.DialContext
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	n.config, n.client = config, client
	return client, nil
}

// Kubectl runs `lite kubectl` on the node and returns what it prints; if it
// fails, so does the test.
func (n *Node) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return n.KubectlStdin(t, "", args...)
}

// KubectlStdin is Kubectl with a text to read.
func (n *Node) KubectlStdin(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	stdout, stderr, err := n.kubectl(t, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// KubectlErr is Kubectl for commands that may fail; it returns what they print,
// errors included.
func (n *Node) KubectlErr(t testing.TB, args ...string) (string, error) {
	t.Helper()
	stdout, stderr, err := n.kubectl(t, "", args...)
	return stdout + stderr, err
}

func (n *Node) kubectl(t testing.TB, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	var out, errs bytes.Buffer
	c := n.Command(ctx, "lite", append([]string{"kubectl"}, args...)...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	err = c.Run()
	return out.String(), errs.String(), err
}

// lastWords runs kubectl when the context of the test has ended already.
func (n *Node) lastWords(args ...string) (string, error) {
	if n.running() == nil {
		return "", errors.New("lite does not run")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := n.Command(ctx, "lite", append([]string{"kubectl"}, args...)...).CombinedOutput()
	return string(out), err
}
