package component

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
)

// Notes is several notes in one line, without those that are empty.
func Notes(all ...string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(all), func(note string) bool { return note == "" }), "; ")
}

// Line is errors as a note, which has one line; "" if there are none.
func Line(errs ...error) string {
	err := errors.Join(errs...)
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// Trouble is what is in the way of a component for now.
type Trouble struct{ text atomic.Pointer[string] }

// Become replaces it; without errors it is over. It is logged, with a message, when it
// is another than before.
func (t *Trouble) Become(message string, errs ...error) {
	text := Line(errs...)
	if text != "" && text != t.Note() {
		slog.Warn(message, "why", text)
	}
	t.text.Store(&text)
}

// Note is the trouble in one line, "" if there is none.
func (t *Trouble) Note() string {
	if text := t.text.Load(); text != nil {
		return *text
	}
	return ""
}
