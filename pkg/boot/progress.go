package boot

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/log"
)

// progress shows a person how a node starts: on a terminal as a list of its
// parts that is redrawn in place, elsewhere as lines in the log.
type progress struct {
	out  *os.File
	live bool         // redraw in place
	tell func(string) // is told in one line what the start waits for

	mu      sync.Mutex
	order   []string
	parts   map[string]component.Status
	drawn   int  // lines of the list on the screen
	last    bool // this is the list that stays
	done    bool
	readyCh chan struct{}
}

func newProgress(out *os.File, format string, tell func(string)) *progress {
	return &progress{
		out:     out,
		tell:    tell,
		live:    format == "text" && term.IsTerminal(int(out.Fd())),
		parts:   map[string]component.Status{},
		readyCh: make(chan struct{}),
	}
}

// logLevel leaves the screen to the list until something is wrong.
func (p *progress) logLevel(asked slog.Level) slog.Level {
	if p.live && asked == slog.LevelInfo {
		return slog.LevelWarn
	}
	return asked
}

// Write writes a line of the log, above the list while there is one.
func (p *progress) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	n, err := p.out.Write(line)
	p.draw()
	return n, err
}

// begin learns which parts there are.
func (p *progress) begin(g *component.Group) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range g.Known() {
		p.order = append(p.order, s.Name)
		p.parts[s.Name] = s
	}
	if p.live {
		go p.tick()
	}
}

// tick keeps the seconds of the list going.
func (p *progress) tick() {
	for {
		time.Sleep(100 * time.Millisecond)
		p.mu.Lock()
		if p.done {
			p.mu.Unlock()
			return
		}
		p.erase()
		p.draw()
		p.mu.Unlock()
	}
}

// changed is told every change of a part.
func (p *progress) changed(s component.Status) {
	switch s.State {
	case component.Ready:
		slog.Info("Ready", "component", s.Name, "took", s.Took.Round(time.Millisecond))
	case component.Stopped:
		if s.Started {
			slog.Info("Stopped", "component", s.Name)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts[s.Name] = s
	var missing []string
	for _, name := range p.order {
		if p.parts[name].State != component.Ready {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) > 0 && (s.State == component.Stopping || s.State == component.Stopped):
		return
	case len(missing) > 0:
		p.tell("Starting, waiting for " + strings.Join(missing, ", "))
		return
	}
	select {
	case <-p.readyCh:
	default:
		close(p.readyCh)
	}
}

// awaitReady waits until every part is ready.
func (p *progress) awaitReady(ctx context.Context) bool {
	select {
	case <-p.readyCh:
		return true
	case <-ctx.Done():
		return false
	}
}

// ready closes the list with what to do next. Only a person is shown next: it
// may hold the token, which is for no log.
func (p *progress) ready(cfg *config.Config, took time.Duration, next string) {
	p.tell("Node " + cfg.NodeName + " is ready")
	slog.Info("Node ready", "node", cfg.NodeName, "took", took.Round(10*time.Millisecond))
	if !p.live {
		return
	}
	p.finish()
	fmt.Fprintf(p.out, "Node %s is ready after %.1f s.\n%s\n", cfg.NodeName, took.Seconds(), next)
}

func (p *progress) stopping() {
	slog.Info("Stopping; pods keep running")
	p.tell("Stopping; pods keep running")
	if p.live {
		p.finish()
		fmt.Fprintln(p.out, "Stopping; pods keep running.")
	}
}

// end shows how it ended, once: a failure names its component.
func (p *progress) end(err error) {
	p.finish()
	switch {
	case err == nil:
		slog.Info("Stopped")
	case p.live:
		fmt.Fprintln(p.out, "lite: "+log.OneLine(err))
	default:
		slog.Error("Stopped because of a failure", "err", log.OneLine(err))
	}
}

// again shows why the node starts anew.
func (p *progress) again(why error) {
	p.finish()
	if p.live {
		fmt.Fprintln(p.out, "Restarting lite: "+why.Error()+".")
	} else {
		slog.Warn("Restarting lite", "because", why)
	}
}

// finish leaves the list on the screen for good.
func (p *progress) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return
	}
	p.erase()
	p.last = true
	p.draw()
	p.done, p.drawn = true, 0
}

// erase takes the list off the screen.
func (p *progress) erase() {
	if p.drawn > 0 {
		fmt.Fprintf(p.out, "\x1b[%dA\x1b[J", p.drawn)
		p.drawn = 0
	}
}

func (p *progress) draw() {
	if !p.live || p.done || len(p.order) == 0 {
		return
	}
	width, height, err := term.GetSize(int(p.out.Fd()))
	if err != nil || width < 20 {
		width, height = 80, 24
	}
	// What has scrolled off the screen cannot be erased: then it is drawn once.
	if height <= len(p.order) && !p.last {
		return
	}
	var b strings.Builder
	for _, name := range p.order {
		b.WriteString(row(p.parts[name], width))
		b.WriteByte('\n')
	}
	fmt.Fprint(p.out, b.String())
	p.drawn = len(p.order)
}

// row is one line of the list, at most width wide.
func row(s component.Status, width int) string {
	mark, seconds, note := " ", "", ""
	switch s.State {
	case component.Ready:
		mark, seconds = "✓", fmt.Sprintf("%.1f s", s.Took.Seconds())
	case component.Starting:
		mark, seconds = "…", fmt.Sprintf("%.1f s", time.Since(s.Since).Seconds())
	case component.Failed:
		mark = "✗"
	}
	if s.Err != nil {
		note = strings.ReplaceAll(s.Err.Error(), "\n", " ")
	}
	line := []rune(strings.TrimRight(fmt.Sprintf("%s %-20s %-9s %7s  %s", mark, s.Name, s.State, seconds, note), " "))
	if len(line) >= width {
		line = append(line[:width-2], '…')
	}
	return string(line)
}
