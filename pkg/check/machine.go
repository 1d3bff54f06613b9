package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/helpers"
	"lite.io/lite/pkg/host/netfilter"
	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/server"
	"lite.io/lite/pkg/status"
)

// Machine is the machine as the checks see it. Tests build one from files below another
// root and functions with prepared answers.
type Machine struct {
	Root   string // where its files are
	Layout layout.Layout
	UID    int
	Arch   string // as Go names it
	CPUs   int
	Now    func() time.Time

	// Run runs a program with its standard input and returns its output; the error has its
	// error output. Find is its path.
	Run  func(ctx context.Context, stdin, program string, args ...string) (string, error)
	Find func(program string) (string, error)

	Statfs     func(path string) (unix.Statfs_t, error)
	Uname      func() (unix.Utsname, error)
	Interfaces func() ([]probe.Interface, error)
	// Tables is the names of those of nftables.
	Tables func() ([]string, error)
	// Detours is routes that come before those of the main table.
	Detours func() ([]Detour, error)
	Dial    func(ctx context.Context, address string) error
	// Unsynchronised is why the kernel does not trust its clock.
	Unsynchronised func() (string, error)
	// Random is whether the kernel's random number generator is ready.
	Random func() bool
	// OpenFiles is how many files a process of root may have open.
	OpenFiles func() (uint64, error)
	// Kernel tries what the kernel can do for pods, in a separate network namespace.
	Kernel func(ctx context.Context, backend string) map[string]error
	// Overlay tries overlayfs in a directory; Sync how long writes take there.
	Overlay func(dir string) error
	Sync    func(ctx context.Context, dir string) ([]time.Duration, error)
	// Status asks a running lite.
	Status func(context.Context) (status.Node, error)

	// What a start asks as well.
	Claim                  func(dataDir, version string) error
	Fits, Room, Watches    func(*config.Config) error
	Files, Ports, Networks func(*config.Config) error
	// Cluster is what the cluster of a server shares.
	Cluster func(*config.Config) (cluster.Facts, error)
	// Tools is which iptables and nft a node would run.
	Tools func(context.Context, *config.Config) netfilter.Tools
}

// This is the machine that lite runs on.
func This() *Machine {
	l := layout.Default()
	return &Machine{
		Root: "/", Layout: l, UID: os.Geteuid(), Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Now: time.Now,
		Run: run, Find: find,
		Statfs:     func(path string) (s unix.Statfs_t, err error) { return s, unix.Statfs(path, &s) },
		Uname:      func() (u unix.Utsname, err error) { return u, unix.Uname(&u) },
		Interfaces: probe.Interfaces,
		Tables:     netfilter.Tables, Detours: detours,
		Dial: dial, Unsynchronised: unsynchronised, Random: random, OpenFiles: maxFiles,
		Kernel: tryKernel, Overlay: containerd.TryOverlay, Sync: timeWrites,
		Status: func(ctx context.Context) (status.Node, error) { return status.Get(ctx, l.Run.Socket()) },
		Claim:  server.CheckClaim, Fits: Role, Watches: checkWatches,
		Room:  func(c *config.Config) error { return probe.CheckDisk(c.DataDir) },
		Files: (*config.Config).CheckFiles,
		Ports: (*config.Config).CheckPorts, Networks: (*config.Config).CheckNetworks,
		Cluster: server.Facts,
		Tools:   chooseTools,
	}
}

func chooseTools(ctx context.Context, c *config.Config) netfilter.Tools {
	helpers, err := helpers.At(c.DataDir)
	if err != nil {
		none := netfilter.Tool{Source: netfilter.None, Reason: err.Error()}
		return netfilter.Tools{NFT: none, IPTables: none}
	}
	return netfilter.Choose(ctx, helpers, c.PreferBundledBin)
}

func newEnv(ctx context.Context, m *Machine, s Subject) *Env {
	e := &Env{Machine: m, Subject: s}
	e.Running = e.findRunning(ctx)
	e.Facts, e.Assumed = e.findFacts()
	return e
}

// findRunning asks the lite that runs here, or finds its process where it may not be asked.
func (e *Env) findRunning(ctx context.Context) Running {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	n, err := e.Status(ctx)
	if err == nil {
		return Running{PID: n.PID, Node: &n}
	}
	for _, p := range e.processes() {
		if p.name == "lite" && len(p.args) > 1 && (p.args[1] == "server" || p.args[1] == "agent") {
			return Running{PID: p.pid, Err: err}
		}
	}
	return Running{}
}

// findFacts takes what a server goes by, and what an agent knows from the file that
// it keeps. A machine that is in no cluster is checked for a standard one.
func (e *Env) findFacts() (f cluster.Facts, assumed bool) {
	switch {
	case e.Config == nil:
	case e.Role == config.Server:
		f, _ = e.Cluster(e.Config) // a contradiction is reported for the data directory
	default:
		f = agent.Known(e.Config, e.read)
	}
	if !f.Known() {
		return config.StandardFacts(), true
	}
	return f, false
}

func (m *Machine) path(name string) string { return filepath.Join(m.Root, name) }

func (m *Machine) read(name string) ([]byte, error) { return file.ReadRegular(m.path(name)) }

// text is a file of one line, "" if it cannot be read.
func (m *Machine) text(name string) string {
	data, _ := m.read(name)
	return strings.TrimSpace(string(data))
}

func (m *Machine) exists(name string) bool {
	_, err := os.Lstat(m.path(name))
	return err == nil
}

// glob is path.Match's, on files of the machine.
func (m *Machine) glob(pattern string) []string {
	found, _ := filepath.Glob(m.path(pattern))
	for i, f := range found {
		found[i] = "/" + strings.TrimPrefix(strings.TrimPrefix(f, m.Root), "/")
	}
	return found
}

// nearest is the directory, or the one above it that exists.
func (m *Machine) nearest(dir string) string {
	for !m.exists(dir) && dir != "/" {
		dir = path.Dir(dir)
	}
	return dir
}

// process is one that runs.
type process struct {
	pid  int
	name string
	args []string
}

// processes is those of this machine, and not of containers on it.
func (m *Machine) processes() []process {
	entries, _ := os.ReadDir(m.path("/proc"))
	depth := m.depth("self")
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || m.depth(e.Name()) > depth {
			continue
		}
		dir := "/proc/" + e.Name()
		cmdline, _ := m.read(dir + "/cmdline")
		all = append(all, process{pid, m.text(dir + "/comm"), strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")})
	}
	return all
}

// depth is in how many PID namespaces a process is, counted from here; everybody may
// see that.
func (m *Machine) depth(pid string) int {
	for l := range strings.Lines(m.text("/proc/" + pid + "/status")) {
		if ids, ok := strings.CutPrefix(l, "NSpid:"); ok {
			return len(strings.Fields(ids))
		}
	}
	return 1
}

// runs is the process of a program. An interpreter has the script as an argument.
func (m *Machine) runs(program string) (process, bool) {
	for _, p := range m.processes() {
		// The kernel keeps 15 characters of a name.
		if p.name == program[:min(len(program), 15)] {
			return p, true
		}
		if len(p.args) > 1 && strings.HasPrefix(p.name, "python") &&
			slices.ContainsFunc(p.args[1:], func(a string) bool { return path.Base(a) == program }) {
			return p, true
		}
	}
	return process{}, false
}

// runTimeout is for programs that ask a service which does not answer.
const runTimeout = 20 * time.Second

func run(ctx context.Context, stdin, program string, args ...string) (string, error) {
	where, err := find(program)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, where, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		output := line(complaint.String() + " " + out.String())
		if ctx.Err() != nil {
			output = fmt.Sprintf("no answer within %s", runTimeout)
		}
		return out.String(), fmt.Errorf("%s: %w: %s", program, err, output)
	}
	return out.String(), nil
}

// find looks where root's programs are too, which a user's PATH may leave out.
func find(program string) (string, error) {
	where, err := exec.LookPath(program)
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if err == nil {
			break
		}
		where, err = exec.LookPath(filepath.Join(dir, program))
	}
	return where, err
}

func dial(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// unsynchronised asks the kernel (adjtimex(2)).
func unsynchronised() (string, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return "", fmt.Errorf("get the state of the clock: %w", err)
	}
	if state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		return "no time service synchronizes it", nil
	}
	return "", nil
}

func random() bool {
	_, err := unix.Getrandom(make([]byte, 1), unix.GRND_NONBLOCK)
	return !errors.Is(err, unix.EAGAIN)
}

// maxFiles is the hard limit: Go raises the soft one to it.
func maxFiles() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("get the limit of open files: %w", err)
	}
	return l.Max, nil
}

// denied: the file may be there, and only root can see it.
func denied(err error) bool { return errors.Is(err, fs.ErrPermission) }
