package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"lite.io/lite/pkg/agent/images"
)

// meter shows a person how far long work is: on a terminal as one line that is
// redrawn, elsewhere as a line every ten seconds.
type meter struct {
	out   *os.File
	title string
	live  bool
	every time.Duration
	shown time.Time
	drawn bool
}

func newMeter(out *os.File, title string) *meter {
	m := &meter{out: out, title: title, live: term.IsTerminal(int(out.Fd())), every: 10 * time.Second, shown: time.Now()}
	if m.live {
		m.every = 200 * time.Millisecond
	}
	return m
}

// show is told what is done, and how much of it. Of is 0 if that is not known.
func (m *meter) show(doing string, done, of int64) {
	if time.Since(m.shown) < m.every {
		return
	}
	m.shown = time.Now()
	text := fmt.Sprintf("%s: %s, %s", m.title, doing, images.Bytes(done))
	if of > 0 {
		text += fmt.Sprintf(" of %s (%d %%)", images.Bytes(of), done*100/of)
	}
	if m.live {
		fmt.Fprint(m.out, "\r\x1b[K"+text)
		m.drawn = true
		return
	}
	fmt.Fprintln(m.out, text)
}

// end takes the line off the terminal.
func (m *meter) end() {
	if m.drawn {
		fmt.Fprint(m.out, "\r\x1b[K")
		m.drawn = false
	}
}

// writer shows how much is written to w.
func (m *meter) writer(w io.Writer) io.Writer { return &shownWriter{w, m, 0} }

type shownWriter struct {
	io.Writer
	meter   *meter
	written int64
}

func (w *shownWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.written += int64(n)
	w.meter.show("writing", w.written, 0)
	return n, err
}
