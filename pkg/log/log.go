// Package log makes slog the one log of the process: the loggers of
// Kubernetes (klog), etcd and gRPC (zap), containerd (logrus) and CoreDNS (the standard log)
// are led into it.
//
// Upstream writes hundreds of lines at its own Info level while a node starts,
// and errors that only say that another part is not there yet. Our Info is for
// people: upstream's Info becomes Debug, and its warnings and errors stay
// Debug except while the node works undisturbed (ShowUpstream). Those of what
// happens every day stay there permanently (usual).
package log

import (
	"context"
	"errors"
	"fmt"
	"io"
	standard "log"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-logr/logr"
	"github.com/sirupsen/logrus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
)

// New makes a logger that writes lines of the given format, "text" or "json".
func New(w io.Writer, level slog.Level, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// loud is whether upstream's warnings and errors are shown as warnings. The
// loggers that are bridged belong to the process, and so does this.
var loud atomic.Bool

// ShowUpstream reports whether what upstream warns of is worth showing: not while
// a node starts or stops, when its parts only miss each other.
func ShowUpstream(show bool) { loud.Store(show) }

// Bridge makes l the default logger and leads klog and logrus, both global,
// into it. It is called once, before any component is made.
func Bridge(l *slog.Logger) {
	slog.SetDefault(l)
	up := upstream{l.Handler(), newFloods()}

	klog.SetLoggerWithOptions(logr.FromSlogHandler(up), klog.ContextualLogger(true))

	// The standard log, which slog has made its own by now, at Info.
	standard.SetFlags(0)
	standard.SetOutput(standardWriter{l, slog.New(up).With("from", "coredns")})

	logrus.SetOutput(io.Discard)
	logrus.AddHook(logrusHook{slog.New(up)})
	logrus.SetReportCaller(true)
	logrus.StandardLogger().ExitFunc = endGoroutine
	klog.OsExit = endGoroutine
	if !l.Enabled(context.Background(), slog.LevelDebug) {
		logrus.SetLevel(logrus.WarnLevel)
	}
}

// upstream lowers the levels of what upstream logs.
type upstream struct {
	slog.Handler
	floods floods
}

// floods is when each kind of message that comes in floods was last shown, in seconds.
type floods map[string]*atomic.Int64

// newFloods has the beginnings of those messages.
func newFloods() floods {
	return floods{
		// The API server writes this for each request (1.37).
		"Error in audit plugin ": new(atomic.Int64),
		// And this for each of its watches of etcd, several times a second, for as long as
		// a member has lost the others (1.37): 600 lines a second.
		"watch chan error: ": new(atomic.Int64),
	}
}

// level is the level a record of upstream's is shown at.
func (upstream) level(l slog.Level) slog.Level {
	if l >= slog.LevelWarn && loud.Load() {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (h upstream) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelError || h.Handler.Enabled(ctx, h.level(l))
}

// lastWords is what the kubelet says before it ends the process by os.Exit, where
// nobody can come between (1.37): it is shown whenever it is said.
var lastWords = map[string]bool{
	"Failed to register CRI auth plugins":                 true,
	"Failed to create listener for podResources endpoint": true,
	"Failed to create listener for pods API endpoint":     true,
	"Failed to serve":                       true,
	"Failed to start cAdvisor":              true,
	"Kubelet failed to get node info":       true,
	"Failed to start ContainerManager":      true,
	"Failed to initialize internal modules": true,
	"Failed to listen and serve":            true,
	"No valid client certificate is found and the server is responsive, exiting.":                true,
	"The currently active client certificate has expired and the server is responsive, exiting.": true,
}

// Handle keeps a record on one line: stack traces and object dumps belong to
// Debug.
func (h upstream) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		remember(r)
	}
	r.Level = h.level(r.Level)
	if isUsual(r) || h.repeats(r) {
		r.Level = slog.LevelDebug
	}
	if lastWords[r.Message] {
		r.Level = slog.LevelError
	}
	// logr hands errors on without asking whether they are wanted.
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	if first, _, many := strings.Cut(r.Message, "\n"); many && r.Level > slog.LevelDebug {
		r.Message = first + " …"
	}
	return h.Handler.Handle(ctx, r)
}

// repeats reports whether a record is one of a flood that was shown within the last minute.
func (h upstream) repeats(r slog.Record) bool {
	if r.Level < slog.LevelWarn {
		return false
	}
	for beginning, shown := range h.floods {
		if strings.HasPrefix(r.Message, beginning) {
			now, last := r.Time.Unix(), shown.Load()
			return now-last < 60 || !shown.CompareAndSwap(last, now)
		}
	}
	return false
}

// remember keeps the message of an error and its cause.
func remember(r slog.Record) {
	reason, _, _ := strings.Cut(r.Message, "\n")
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" || a.Key == "error" {
			reason += ": " + a.Value.String()
		}
		return true
	})
	lastError.Store(&reason)
}

func (h upstream) WithAttrs(a []slog.Attr) slog.Handler {
	return upstream{h.Handler.WithAttrs(a), h.floods}
}

func (h upstream) WithGroup(name string) slog.Handler {
	return upstream{h.Handler.WithGroup(name), h.floods}
}

var (
	// fatal gets what upstream would have ended the process for.
	fatal = make(chan error, 1)
	// lastError is what upstream complained of last: its reason when it ends.
	lastError atomic.Pointer[string]
)

// GaveUp is where the reason arrives when a part of upstream wants to end the
// process, which here is not its own. That happens also to parts that are told to
// stop while they start.
func GaveUp() <-chan error { return fatal }

// endGoroutine takes the place of os.Exit for klog and logrus.
func endGoroutine(int) {
	err := errors.New("a component gave up")
	if reason := lastError.Load(); reason != nil {
		err = errors.New(*reason)
	}
	if inTransaction() {
		panic(Fatal{Message: err.Error()})
	}
	select {
	case fatal <- err:
	default: // one reason is enough
	}
	runtime.Goexit()
}

// inTransaction reports whether it is kine that ends the process, because a transaction cannot be ended (0.17): when a
// database goes away, that is as it has to be, and whoever called kine makes an error of the panic.
func inTransaction() bool {
	var callers [16]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers[:])])
	for frame, more := frames.Next(); more; frame, more = frames.Next() {
		if strings.HasPrefix(frame.Function, "github.com/k3s-io/kine/pkg/drivers/generic.(*Tx).Must") {
			return true
		}
	}
	return false
}

// standardWriter gets the lines of the standard log. CoreDNS (1.15) writes them
// with the level before; those of queries, which somebody has asked for, name no
// plugin.
type standardWriter struct{ other, coredns *slog.Logger }

func (w standardWriter) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level, message, ok := strings.Cut(strings.TrimPrefix(text, "["), "] ")
	switch {
	case strings.HasPrefix(text, handshake):
		w.other.Debug(text)
	case !ok || !strings.HasPrefix(text, "["):
		w.other.Info(text)
	case level == "ERROR" || level == "PANIC" || level == "FATAL":
		w.coredns.Error(message)
	case level == "WARNING":
		w.coredns.Warn(message)
	case level == "INFO" && !strings.HasPrefix(message, "plugin/") && strings.Contains(message, `" `):
		w.other.Info(message, "from", "coredns")
	default:
		w.coredns.Debug(message)
	}
	return len(line), nil
}

// logrusHook passes on the lines of containerd, and of kine.
type logrusHook struct{ to *slog.Logger }

func (logrusHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h logrusHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	switch {
	case e.Level <= logrus.ErrorLevel:
		level = slog.LevelError
	case e.Level == logrus.WarnLevel:
		level = slog.LevelWarn
	}
	from := "containerd"
	if e.Caller != nil && strings.HasPrefix(e.Caller.Function, "github.com/k3s-io/kine/") {
		from = "kine"
	}
	attrs := []slog.Attr{slog.String("from", from)}
	for _, k := range slices.Sorted(maps.Keys(e.Data)) {
		attrs = append(attrs, slog.Any(k, e.Data[k]))
	}
	h.to.LogAttrs(context.Background(), level, e.Message, attrs...)
	return nil
}

// Zap makes a zap logger that writes into the default slog logger. Fatal, by
// which etcd would end the process, and Panic call fatal instead, in the
// goroutine that cannot go on; fatal must not return.
func Zap(name string, fatal func(Fatal)) *zap.Logger {
	core := zapCore{slog.New(upstream{Handler: slog.Default().Handler()}).With("from", name), fatal}
	return zap.New(core, zap.WithFatalHook(zapcore.WriteThenPanic))
}

type zapCore struct {
	to    *slog.Logger
	fatal func(Fatal)
}

func zapLevel(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

func (c zapCore) Enabled(l zapcore.Level) bool {
	return c.to.Enabled(context.Background(), zapLevel(l))
}

func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	return zapCore{slog.New(c.to.Handler().WithAttrs(zapAttrs(fields))), c.fatal}
}

func (c zapCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	// A fatal entry is written even if the level is off: its text is the
	// reason that the caller will report.
	if c.Enabled(e.Level) || e.Level >= zapcore.DPanicLevel {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	attrs := zapAttrs(fields)
	if e.Level >= zapcore.PanicLevel {
		// zap panics with the message alone; the reason is in a field.
		c.to.LogAttrs(context.Background(), slog.LevelDebug, e.Message, attrs...)
		c.fatal(Fatal{e.Message, attrs})
	}
	c.to.LogAttrs(context.Background(), zapLevel(e.Level), e.Message, attrs...)
	return nil
}

func (zapCore) Sync() error { return nil }

// Fatal is why a part of upstream that logs by zap wants to end the process.
type Fatal struct {
	Message string
	Attrs   []slog.Attr
}

func (f Fatal) Error() string {
	for _, a := range f.Attrs {
		if a.Key == "error" {
			return fmt.Sprintf("%s: %s", f.Message, a.Value)
		}
	}
	return f.Message
}

func zapAttrs(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for _, k := range slices.Sorted(maps.Keys(enc.Fields)) {
		attrs = append(attrs, slog.Any(k, enc.Fields[k]))
	}
	return attrs
}
