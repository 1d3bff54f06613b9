package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	corev1 "k8s.io/api/core/v1"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/status"
)

// Instance is the lite that runs on this machine, as it was started.
type Instance struct {
	Status status.Node
	Config *config.Config
	Binary string // its program, links followed
	// Manager is the init system that keeps it running, nil if something else does, such as
	// a person at a terminal.
	Manager service.Manager

	args    []string // after the role
	env     []string
	process *os.Process
	log     *logTail
}

// Running finds the lite that runs on this machine.
func Running(ctx context.Context) (*Instance, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("upgrade: only root may replace lite; run it as root")
	}
	s, err := status.Get(ctx, layout.Default().Run.Socket())
	if err != nil {
		return nil, err
	}
	n := &Instance{Status: s}
	proc := fmt.Sprintf("/proc/%d/", s.PID)
	if n.process, err = os.FindProcess(s.PID); err != nil {
		return nil, fmt.Errorf("inspect lite (pid %d): %w", s.PID, err)
	}
	if n.Binary, err = os.Readlink(proc + "exe"); err != nil {
		return nil, fmt.Errorf("find the program of lite (pid %d): %w", s.PID, err)
	}
	words, err := nulls(proc + "cmdline")
	if err != nil {
		return nil, fmt.Errorf("read how lite (pid %d) was started: %w", s.PID, err)
	}
	if n.env, err = nulls(proc + "environ"); err != nil {
		return nil, fmt.Errorf("read how lite (pid %d) was started: %w", s.PID, err)
	}
	role := config.Role(s.Role)
	if len(words) < 2 || words[1] != string(role) {
		return nil, fmt.Errorf("lite (pid %d) was started as %q, which is not `lite %s`", s.PID, words, role)
	}
	n.args = words[2:]
	if n.Config, err = load(role, n.args, n.env); err != nil {
		return nil, fmt.Errorf("the configuration has changed since lite was started, and is now invalid: %w", err)
	}
	manager, err := service.Find()
	if err != nil && !errors.Is(err, service.ErrNone) {
		return nil, err
	}
	if err == nil {
		active, err := manager.Active(ctx)
		if err != nil {
			return nil, err
		}
		if active {
			n.Manager = manager
		}
	}
	n.log = openLog(n)
	return n, nil
}

func load(role config.Role, args, env []string) (*config.Config, error) {
	flags := config.Flags(role)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	return config.Load(role, flags, env)
}

// nulls reads a file of /proc whose words are ended by zero bytes.
func nulls(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00"), nil
}

// kubeconfig is that of this node's own components.
func (n *Instance) kubeconfig() string { return kubeconfigOf(n.Config) }

func kubeconfigOf(cfg *config.Config) string {
	if cfg.Role == config.Server {
		return cfg.WriteKubeconfig
	}
	return cfg.Layout().Data.Agent().Kubeconfig()
}

// stop stops lite and keeps every other from starting, until the result is closed.
func (n *Instance) stop(ctx context.Context) (*service.Hold, error) {
	return stop(ctx, n.Config.DataDir, n.Manager)
}

func stop(ctx context.Context, dataDir string, manager service.Manager) (*service.Hold, error) {
	if manager != nil {
		if err := manager.Stop(ctx); err != nil {
			return nil, fmt.Errorf("stop lite: %w", err)
		}
	}
	hold, process, err := service.TryHold(dataDir)
	if err != nil {
		return nil, err
	}
	if hold != nil {
		return hold, nil
	}
	if process == nil {
		return nil, fmt.Errorf("data-dir %s is gone", dataDir)
	}
	return process.Stop(ctx, dataDir)
}

// start starts lite again. An init system is asked in the background: systemd answers only
// when the node is ready, which the gate finds out itself. Without one, the process that
// was stopped executes the program once nobody holds the data directory (Relaunch).
func (n *Instance) start(ctx context.Context) {
	if n.Manager != nil {
		go func() { _ = n.Manager.Start(ctx) }()
	}
}

// checkConfig has another program check whether it can be started as this one was.
func (n *Instance) checkConfig(ctx context.Context, program string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	args := []string{"config", "check"}
	if n.Config.Role == config.Agent {
		args = append(args, "agent")
	}
	cmd := exec.CommandContext(ctx, program, append(args, n.args...)...)
	cmd.Env, cmd.WaitDelay = n.env, time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("the new version rejects the configuration: %s (%w); change that first", strings.TrimPrefix(strings.TrimSpace(string(out)), "lite: "), err)
	}
	return nil
}

// members lists the other nodes of the cluster.
func (n *Instance) members(ctx context.Context) ([]member, error) {
	client, err := kube.NewClient(n.kubeconfig(), "upgrade").Clientset()
	if err != nil {
		return nil, err
	}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the nodes: %w", err)
	}
	var members []member
	for _, node := range list.Items {
		if node.Name == n.Config.NodeName {
			continue
		}
		_, server := node.Labels[kube.ServerLabel]
		m := member{Name: node.Name, Server: server, Kubelet: node.Status.NodeInfo.KubeletVersion}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady {
				m.Ready = c.Status == corev1.ConditionTrue
			}
		}
		members = append(members, m)
	}
	return members, nil
}

// apiServers asks each server that an agent knows for its version. silent are
// those that did not answer, with the reason.
func (n *Instance) apiServers(ctx context.Context) (servers []apiServer, silent []string, err error) {
	base, err := kube.ClientConfig(n.kubeconfig(), "upgrade")
	if err != nil {
		return nil, nil, err
	}
	base.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil } // it is for what is outside
	base.Timeout = 10 * time.Second
	for _, s := range n.Status.Servers {
		base.Host = "https://" + s.Address
		client, err := kubernetes.NewForConfig(base)
		if err != nil {
			return nil, nil, err
		}
		v, err := client.Discovery().ServerVersion()
		if err != nil {
			silent = append(silent, s.Address+" ("+err.Error()+")")
			continue
		}
		servers = append(servers, apiServer{Address: s.Address, Version: v.GitVersion})
	}
	return servers, silent, nil
}

// logTail is what lite has written to its log since a moment.
type logTail struct {
	file  *os.File // nil: it is the journal of systemd
	from  int64
	since time.Time
}

// openLog finds lite's log: a file that stays when the process ends, or the journal.
func openLog(n *Instance) *logTail {
	tail := &logTail{since: time.Now()}
	if n.Manager != nil && n.Manager.Name() == "systemd" {
		return tail
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/fd/2", n.Status.PID))
	if err != nil {
		return nil
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil
	} else {
		tail.from = info.Size()
	}
	tail.file = f
	return tail
}

// begin forgets what was logged up to now.
func (l *logTail) begin() {
	if l == nil {
		return
	}
	l.since = time.Now()
	if l.file != nil {
		if info, err := l.file.Stat(); err == nil {
			l.from = info.Size()
		}
	}
}

const (
	tailBytes = 64 << 10
	tailLines = 10
)

// lines are the last ones, none if they cannot be had.
func (l *logTail) lines() []string {
	if l == nil {
		return nil
	}
	var text []byte
	if l.file == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		// Not --unit, which includes what systemd logs about it, a line or two for each
		// shim.
		text, _ = exec.CommandContext(ctx, "journalctl", "--no-pager", "--output=cat", "_SYSTEMD_UNIT="+layout.Service+".service",
			fmt.Sprintf("--lines=%d", tailLines), fmt.Sprintf("--since=@%d", l.since.Unix())).Output()
	} else if info, err := l.file.Stat(); err == nil {
		from := max(l.from, info.Size()-tailBytes)
		text, _ = io.ReadAll(io.NewSectionReader(l.file, from, tailBytes))
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil
	}
	all := strings.Split(string(text), "\n")
	return all[max(0, len(all)-tailLines):]
}
