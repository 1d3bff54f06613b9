package log

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	standard "log"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/sirupsen/logrus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"

	sources "lite.io/lite/tests/upstream"
)

// buffer is a log that can be read while it is written.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// take is what was written since the last time, without the times.
func (b *buffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	var lines []string
	for line := range strings.Lines(b.text.String()) {
		if strings.HasPrefix(line, "time=") {
			_, line, _ = strings.Cut(line, " ")
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

// bridge leads the loggers of the process into a buffer, until the test ends.
func bridge(t *testing.T, level slog.Level, format string) (out *buffer, settled func()) {
	t.Helper()
	slogWas, hooks, logrusLevel, logrusOut := slog.Default(), logrus.StandardLogger().ReplaceHooks(logrus.LevelHooks{}), logrus.GetLevel(), logrus.StandardLogger().Out
	t.Cleanup(func() {
		slog.SetDefault(slogWas)
		klog.ClearLogger()
		logrus.StandardLogger().ReplaceHooks(hooks)
		logrus.SetLevel(logrusLevel)
		logrus.SetOutput(logrusOut)
	})
	t.Cleanup(func() { ShowUpstream(false) })
	ShowUpstream(false)
	out = &buffer{}
	Bridge(New(out, level, format))
	return out, func() { ShowUpstream(true) }
}

func TestUpstreamIsQuietUntilTheNodeHasSettled(t *testing.T) {
	for name, test := range map[string]struct {
		say             func()
		before, settled string // at Info
		debug           string // at Debug, before
	}{
		"our own info": {
			say:    func() { slog.Info("hello", "a", 1) },
			before: "level=INFO msg=hello a=1\n", settled: "level=INFO msg=hello a=1\n", debug: "level=INFO msg=hello a=1\n",
		},
		"our own error": {
			say:    func() { slog.Error("bad") },
			before: "level=ERROR msg=bad\n", settled: "level=ERROR msg=bad\n", debug: "level=ERROR msg=bad\n",
		},
		"klog info": {
			say:   func() { klog.InfoS("hello", "a", 1) },
			debug: "level=DEBUG msg=hello a=1\n",
		},
		"klog error": {
			say:     func() { klog.ErrorS(errors.New("no"), "bad") },
			settled: "level=WARN msg=bad err=no\n", debug: "level=DEBUG msg=bad err=no\n",
		},
		"klog error of several lines": {
			say:     func() { klog.ErrorS(nil, "bad\ngoroutine 1:\n\tmain") },
			settled: "level=WARN msg=\"bad …\"\n", debug: "level=DEBUG msg=\"bad\\ngoroutine 1:\\n\\tmain\"\n",
		},
		"klog with a name and values": {
			say:     func() { klog.LoggerWithValues(klog.Background(), "a", 1).Error(nil, "bad") },
			settled: "level=WARN msg=bad a=1\n", debug: "level=DEBUG msg=bad a=1\n",
		},
		"logrus info": {
			say:   func() { logrus.Info("hello") },
			debug: "level=DEBUG msg=hello from=containerd\n",
		},
		"logrus warning": {
			say:     func() { logrus.WithField("a", 1).Warn("hm") },
			settled: "level=WARN msg=hm from=containerd a=1\n", debug: "level=DEBUG msg=hm from=containerd a=1\n",
		},
		"logrus error": {
			say:     func() { logrus.Error("bad") },
			settled: "level=WARN msg=bad from=containerd\n", debug: "level=DEBUG msg=bad from=containerd\n",
		},
		"zap info": {
			say:   func() { Zap("etcd", func(f Fatal) { panic(f) }).Info("hello", zap.Int("a", 1)) },
			debug: "level=DEBUG msg=hello from=etcd a=1\n",
		},
		"zap with fields": {
			say:   func() { Zap("etcd", func(f Fatal) { panic(f) }).With(zap.Int("a", 1)).Info("hello") },
			debug: "level=DEBUG msg=hello from=etcd a=1\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, settled := bridge(t, slog.LevelInfo, "text")
			test.say()
			if got := out.take(); got != test.before {
				t.Errorf("before: got %q, want %q", got, test.before)
			}
			settled()
			test.say()
			if got := out.take(); got != test.settled {
				t.Errorf("settled: got %q, want %q", got, test.settled)
			}
			out, _ = bridge(t, slog.LevelDebug, "text")
			logrus.SetLevel(logrus.InfoLevel)
			test.say()
			if got := out.take(); got != test.debug {
				t.Errorf("at debug: got %q, want %q", got, test.debug)
			}
		})
	}
}

// What the kubelet says before it ends the process is never hidden.
func TestLastWordsAreShown(t *testing.T) {
	out, _ := bridge(t, slog.LevelInfo, "text")
	klog.ErrorS(errors.New("too many open files"), "Failed to start cAdvisor")
	klog.ErrorS(errors.New("no such thing"), "Something else")
	if got := out.take(); !strings.HasPrefix(got, `level=ERROR msg="Failed to start cAdvisor" err="too many open files"`) || strings.Contains(got, "else") {
		t.Errorf("got %q", got)
	}
}

var (
	exits = regexp.MustCompile(`\bos\.Exit\(`)
	said  = regexp.MustCompile(`\.(?:Error|ErrorS)\([^,]+, "([^"]+)"`)
)

// The words are upstream's, and change with it.
func TestLastWordsAreAllThatTheKubeletHas(t *testing.T) {
	found := map[string]bool{}
	sources.Files(t, filepath.Join(sources.Sources(t, "k8s.io/kubernetes"), "pkg/kubelet"), func(path, content string) {
		for _, exit := range exits.FindAllStringIndex(content, -1) {
			before := said.FindAllStringSubmatch(content[:exit[0]], -1)
			if len(before) == 0 {
				t.Errorf("%s ends the process without a word", path)
				continue
			}
			words := before[len(before)-1][1]
			if found[words] = true; !lastWords[words] {
				t.Errorf("%s ends the process after it has said %q, which lite would hide", path, words)
			}
		}
	})
	for words := range lastWords {
		if !found[words] {
			t.Errorf("the kubelet no longer says %q before it ends the process", words)
		}
	}
}

// The verbosity of klog is not ours to raise.
func TestKlogsVerboseLinesStayAway(t *testing.T) {
	out, settled := bridge(t, slog.LevelDebug, "text")
	settled()
	klog.V(4).InfoS("chatter")
	if got := out.take(); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestEveryRecordIsOneLine(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		out, settled := bridge(t, slog.LevelDebug, format)
		settled()
		slog.Error("a\nb", "err", errors.New("c\nd"))
		klog.ErrorS(errors.New("c\nd"), "a\nb")
		klog.InfoS("a\nb")
		logrus.WithField("x", "c\nd").Error("a\nb")
		Zap("etcd", func(f Fatal) { panic(f) }).Warn("a\nb", zap.String("x", "c\nd"))
		if got := out.take(); strings.Count(got, "\n") != 5 {
			t.Errorf("%s: got %d lines:\n%s", format, strings.Count(got, "\n"), got)
		}
	}
}

func TestJSONIsJSON(t *testing.T) {
	var out bytes.Buffer
	New(&out, slog.LevelInfo, "json").Info("hello", "a", "b\n")
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	if got["msg"] != "hello" || got["level"] != "INFO" || got["a"] != "b\n" || got["time"] == nil {
		t.Errorf("got %v", got)
	}
}

func TestLevelIsAThreshold(t *testing.T) {
	for level, want := range map[slog.Level]int{slog.LevelDebug: 4, slog.LevelInfo: 3, slog.LevelWarn: 2, slog.LevelError: 1} {
		var out bytes.Buffer
		l := New(&out, level, "text")
		l.Debug("a")
		l.Info("a")
		l.Warn("a")
		l.Error("a")
		if got := strings.Count(out.String(), "\n"); got != want {
			t.Errorf("%s: got %d lines, want %d", level, got, want)
		}
	}
}

// etcd ends the process by a fatal line; here that is a panic which a caller
// can recover, with the cause.
func TestFatalOfZapIsAPanicWithTheReason(t *testing.T) {
	for name, test := range map[string]struct {
		say  func(*zap.Logger)
		want string
	}{
		"fatal":            {func(l *zap.Logger) { l.Fatal("cannot open", zap.Error(errors.New("no room"))) }, "cannot open: no room"},
		"panic":            {func(l *zap.Logger) { l.Panic("cannot open", zap.Error(errors.New("no room"))) }, "cannot open: no room"},
		"without a reason": {func(l *zap.Logger) { l.Fatal("cannot open", zap.String("path", "/x")) }, "cannot open"},
	} {
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelError + 4} {
			t.Run(name+" "+level.String(), func(t *testing.T) {
				bridge(t, level, "text")
				defer func() {
					err, ok := recover().(error)
					if fatal := (Fatal{}); !ok || !errors.As(err, &fatal) || err.Error() != test.want {
						t.Errorf("panicked with %v, want %q", err, test.want)
					}
				}()
				test.say(Zap("etcd", func(f Fatal) { panic(f) }))
				t.Error("did not panic")
			})
		}
	}
}

func TestZapAsksOnlyForWhatIsShown(t *testing.T) {
	bridge(t, slog.LevelInfo, "text")
	core := Zap("etcd", func(f Fatal) { panic(f) }).Core()
	for level, want := range map[zapcore.Level]bool{zapcore.DebugLevel: false, zapcore.InfoLevel: false, zapcore.ErrorLevel: loud.Load()} {
		if got := core.Enabled(level); got != want {
			t.Errorf("%s: got %t", level, got)
		}
	}
	if err := core.Sync(); err != nil {
		t.Error(err)
	}
}

func TestNamedLoggersOfUpstreamStayUpstream(t *testing.T) {
	out, settled := bridge(t, slog.LevelInfo, "text")
	grouped := slog.New(klogHandler(t)).WithGroup("g")
	grouped.Error("bad", "a", 1)
	klog.Background().WithName("part").Error(nil, "bad")
	if got := out.take(); got != "" {
		t.Errorf("before: got %q", got)
	}
	settled()
	grouped.Error("bad", "a", 1)
	if got, want := out.take(), "level=WARN msg=bad g.a=1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	klog.Background().WithName("part").Error(nil, "bad")
	if got := out.take(); !strings.HasPrefix(got, "level=WARN msg=bad") {
		t.Errorf("got %q", got)
	}
}

// klogHandler is the slog handler that klog writes to.
func klogHandler(t *testing.T) slog.Handler {
	t.Helper()
	return logr.ToSlogHandler(klog.Background())
}

// CoreDNS writes into the standard log, as others may.
func TestStandardLog(t *testing.T) {
	flags, to := standard.Flags(), standard.Writer()
	t.Cleanup(func() {
		standard.SetFlags(flags)
		standard.SetOutput(to)
	})
	out, settled := bridge(t, slog.LevelInfo, "text")
	for line, want := range map[string][2]string{ // while the node starts, and later
		"[INFO] plugin/kubernetes: waiting":                            {"", ""},
		"[INFO] Reloading":                                             {"", ""},
		"[WARNING] plugin/hosts: no such file":                         {"", "level=WARN msg=\"plugin/hosts: no such file\" from=coredns\n"},
		"[ERROR] plugin/errors: 2 a. A: timeout":                       {"", "level=WARN msg=\"plugin/errors: 2 a. A: timeout\" from=coredns\n"},
		`[INFO] 10.42.0.2:5 - 1 "A IN a. udp 20 false 512" NOERROR 0s`: {"query", "query"},
		"somebody else's":                                              {"level=INFO msg=\"somebody else's\"\n", "level=INFO msg=\"somebody else's\"\n"},
	} {
		for i := range 2 {
			if i == 0 {
				ShowUpstream(false)
			} else {
				settled()
			}
			standard.Print(line)
			got := out.take()
			if want[i] == "query" {
				if !strings.Contains(got, "level=INFO") || !strings.Contains(got, "A IN a.") || !strings.Contains(got, "from=coredns") {
					t.Errorf("%s: got %q", line, got)
				}
			} else if got != want[i] {
				t.Errorf("%s: got %q, want %q", line, got, want[i])
			}
		}
	}
}

// What happens every day is no warning; the same message for another reason is one.
func TestTheUsualIsNoWarning(t *testing.T) {
	out, settled := bridge(t, slog.LevelInfo, "text")
	settled()
	patch := func(state, cause string) error {
		return fmt.Errorf("failed to patch status %q for pod \"x\"/\"web-1\": %s", "{\"status\":{"+state+"}}", cause)
	}
	forbidden := errors.New(`pods "web-1" is forbidden: User "system:node:a" cannot get resource "pods" in API group "" in the namespace "x": no relationship found between node 'a' and this object`)
	for _, test := range []struct {
		message string
		err     error
		shown   bool
	}{
		{"Error on socket receive", errors.New("read tcp 127.0.0.1:6443->127.0.0.1:51234: use of closed network connection"), false},
		{"Housekeeping took longer than expected", errors.New("housekeeping took too long"), false},
		{"Failed to get status for pod", forbidden, false},
		{"Failed to get status for pod", errors.New("Unauthorized"), true},
		{"Failed to watch", errors.New(`failed to list *v1.ConfigMap: configmaps "a" is forbidden: no relationship found between node 'a' and this object`), false},
		{"Failed to watch", errors.New("failed to list *v1.PartialObjectMetadata: the server could not find the requested resource"), false},
		{"Failed to watch", errors.New("failed to list *v1.Pod: Unauthorized"), true},
		{"Failed to watch", nil, true},
		{"failed to read memory cgroup config for the pod", errors.New("open /sys/fs/cgroup/memory/x: no such file or directory"), false},
		{"failed to read memory cgroup limits for the pod", errors.New("permission denied"), true},
		{"Error syncing pod, skipping", errors.New(`failed to "StartContainer" for "main" with CrashLoopBackOff: "back-off 10s"`), false},
		{"Error syncing pod, skipping", errors.New("no space left on device"), true},
		{"collecting metrics for 494981e2", errors.New("cgroups: cgroup deleted"), false},
		{"collecting metrics for 494981e2", errors.New("permission denied"), true},
		{"collecting metrics for 494981e2", errors.New("ttrpc: closed"), false},
		{`ContainerStatus for "494981e2" failed`, errors.New("rpc error: code = NotFound desc = not found"), false},
		{`ContainerStatus for "494981e2" failed`, errors.New("rpc error: code = DeadlineExceeded"), true},
		{"Unhandled Error", errors.New(`sync "x/web" failed with read version: 8299 is not as new as written version: 8316 for group resource replicasets.apps`), false},
		{"Unhandled Error", errors.New("quota exceeded"), true},
		{"failed to read the cgroup", errors.New("no such file or directory"), true},

		// Pods go.
		{"Failed to update status for pod", patch(`"message":"x"`, `pods "web-1" not found`), false},
		{"Failed to update status for pod", patch(`"message":"pods \"web-1\" not found"`, "context deadline exceeded"), true},
		{"Failed to update status for pod", patch(`"message":"x"`, `services "web" not found`), true},
		{"Error updating pod", errors.New(`pods "web-1" not found`), false},
		{"Error updating pod", errors.New("Unauthorized"), true},
		{"ExecSync cmd from runtime service failed", errors.New("rpc error: code = Unknown desc = failed to exec in container: container is in CONTAINER_EXITED state"), false},
		{`ExecSync for "494981e2" failed`, errors.New("failed to exec in container: failed to load task: no running task found: not found"), false},
		{`ExecSync for "494981e2" failed`, errors.New("OCI runtime exec failed: exec failed: unable to start container process: open /dev/null: permission denied"), true},
		{`PodSandboxStatus for "494981e2" failed`, errors.New("rpc error: code = NotFound desc = an error occurred when try to find sandbox: not found"), false},
		{"get container info failed", errors.New(`container "494981e2" in namespace "k8s.io": not found`), false},
		{`Failed to pipe stdout of container "494981e2"`, errors.New("reading from a closed fifo"), false},
		{`Failed to pipe stdout of container "494981e2"`, errors.New("no space left on device"), true},
		{"Failed to get status for pod", errors.New("connection refused"), true},

		{`Shim ttrpc connection closed when stopping container "494981e2", retry after 100ms`, errors.New("failed to kill container: ttrpc: closed"), false},
		{`RemoveContainer for "494981e2" failed`, errors.New("container is already in removing state"), false},
		{`RemoveContainer for "494981e2" failed`, errors.New("no space left on device"), true},
		{"Failed to create existing container: /kubepods/besteffort/pod1/494981e2: not found: rpc error: code = NotFound desc = task 494981e2 not found", nil, false},
		{"Failed to create existing container: /kubepods/besteffort/pod1/494981e2: failed to identify the read-write layer ID", nil, true},
		{"Partial failure issuing cadvisor.ContainerInfoV2", errors.New(`partial failures: ["/kubepods/x": RecentStats: unable to find data in memory cache]`), false},
		{"Unhandled Error", errors.New(`PV pvc-1 failed with : persistentvolumes "pvc-1" not found`), false},
		{"Unhandled Error", errors.New(`PV pvc-1 failed with : the disk is gone`), true},
		{"Unhandled Error", errors.New(`init container a start failed in pod web-1: ErrImagePull: connection refused`), false},

		// Namespaces go.
		{"Server rejected event (will not retry!)", errors.New(`events.events.k8s.io "x.18" is forbidden: unable to create new content in namespace x because it is being terminated`), false},
		{"Server rejected event (will not retry!)", errors.New(`namespaces "x" not found`), false},
		{"Server rejected event (will not retry!)", errors.New(`events is forbidden: User "system:node:a" cannot create resource "events"`), true},
		{"Plugin Failed", errors.New(`pods "web-1" is forbidden: unable to create new content in namespace x because it is being terminated`), false},
		{"Plugin Failed", errors.New("no such volume"), true},
		{`Operation for "{volumeName:kubernetes.io/projected/1-kube-api-access-x podName:1 nodeName:}" failed. No retries permitted until 2026-11-29 (durationBeforeRetry 1s). Error: MountVolume.SetUp failed for volume "kube-api-access-x": failed to fetch token: serviceaccounts "default" is forbidden: unable to create new content in namespace x because it is being terminated`, nil, false},
		{`Operation for "{volumeName:kubernetes.io/secret/1-x podName:1 nodeName:}" failed. No retries permitted until 2026-11-29 (durationBeforeRetry 1s). Error: MountVolume.SetUp failed for volume "x": secret "x" not found`, nil, true},
		{"Deletion of namespace failed", errors.New("failed to delete pods for namespace: x, err: unexpected items still remain in namespace: x for gvr: /v1, Resource=pods"), false},
		{"Deletion of namespace failed", errors.New("conversion webhook for example.com/v1 failed"), true},

		// Whoever was a moment too early looks again.
		{"Error syncing StatefulSet, requeuing", errors.New("read version: 1 is not as new as written version: 2 for group resource statefulsets.apps"), false},
		{"Error syncing PodDisruptionBudget, requeuing", errors.New(`Operation cannot be fulfilled on poddisruptionbudgets.policy "x": the object has been modified; please apply your changes to the latest version and try again`), false},
		{"Unhandled Error", errors.New(`sync "x/web-1" failed with replicasets.apps "web-1" not found`), false},
		{"Unhandled Error", errors.New(`failed calling webhook "a.b.c": failed to call webhook: service "web" not found`), true},
		{"Unhandled Error", errors.New(`admission webhook "a.b.c" denied the request: no`), false},

		// One line of several is enough.
		{"Failed to pull image", errors.New("connection refused"), true},
		{"PullImage from image service failed", errors.New("connection refused"), false},
		{`PullImage "web:1" failed`, errors.New("connection refused"), false},
		{"Error syncing pod, skipping", errors.New(`failed to "StartContainer" for "web" with ErrImagePull: "connection refused"`), false},
		{"Error syncing pod, skipping", errors.New(`failed to "StartContainer" for "web" with RunContainerError: "no such program"`), true},
		{"StartContainer from runtime service failed", errors.New("no such program"), false},
		{"Error syncing pod, skipping", errors.New(`failed to "CreatePodSandbox" for "web" with CreatePodSandboxError: "no network"`), true},
		{"CreatePodSandbox for pod failed", errors.New("no network"), false},
	} {
		klog.ErrorS(test.err, test.message, "pod", "x/web-1")
		if got := out.take(); (got != "") != test.shown {
			t.Errorf("%s, %v: got %q, want it shown: %v", test.message, test.err, got, test.shown)
		}
		logrus.WithError(test.err).Error(test.message)
		if got := out.take(); (got != "") != test.shown {
			t.Errorf("%s, %v, by containerd: got %q, want it shown: %v", test.message, test.err, got, test.shown)
		}
		klog.LoggerWithValues(klog.Background(), "logger", "UnhandledError").Error(test.err, test.message)
		if got := out.take(); (got != "") != test.shown {
			t.Errorf("%s, %v, by a logger with values: got %q, want it shown: %v", test.message, test.err, got, test.shown)
		}
	}
}

// Whoever connects and goes is no news, and says nothing of what is served.
func TestHandshakesThatEndAreNoNews(t *testing.T) {
	out, _ := bridge(t, slog.LevelInfo, "text")
	standard.Print("http: TLS handshake error from 10.99.0.1:34114: EOF")
	if got := out.take(); got != "" {
		t.Errorf("got %q", got)
	}
	standard.Print("http: Accept error: too many open files; retrying in 5ms")
	if got := out.take(); !strings.Contains(got, "too many open files") {
		t.Errorf("got %q", got)
	}
}

// A disk that is full would fill the log of lite with a line for each request.
// And a server that is cut off from the others, one for each of its watches.
func TestFloodsAreToldOnceAMinute(t *testing.T) {
	out, settled := bridge(t, slog.LevelInfo, "text")
	settled()
	handler := upstream{slog.Default().Handler(), newFloods()}.WithAttrs([]slog.Attr{slog.String("part", "a")})
	began := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		after   time.Duration
		message string
		told    bool
	}{
		{0, "Error in audit plugin 'log' affecting 1 audit events: write /var/log/lite/audit.log: no space left on device\nImpacted events:\nwho and what\n", true},
		{time.Second, "Error in audit plugin 'log' affecting 1 audit events: other", false},
		{30 * time.Second, "Something else", true},
		{31 * time.Second, "watch chan error: etcdserver: no leader", true},
		{31 * time.Second, "watch chan error: etcdserver: no leader", false},
		{32 * time.Second, "watch chan error: context canceled", false},
		{59 * time.Second, "Error in audit plugin 'log' affecting 2 audit events: other", false},
		{60 * time.Second, "Error in audit plugin 'log' affecting 3 audit events: again", true},
		{61 * time.Second, "Error in audit plugin 'log' affecting 4 audit events: again", false},
		{91 * time.Second, "watch chan error: etcdserver: no leader", true},
	} {
		if err := handler.Handle(t.Context(), slog.NewRecord(began.Add(test.after), slog.LevelError, test.message, 0)); err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(test.message, "\n")
		if got := out.take(); (got != "") != test.told || test.told && !strings.Contains(got, first) || strings.Contains(got, "who and what") {
			t.Errorf("after %v: %q", test.after, got)
		}
	}
}
