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

// Problem is what currently keeps a component from doing all of its work.
type Problem struct{ text atomic.Pointer[string] }

// Set replaces the problem; without errors, there is none. A problem that differs from
// the one before is logged, with message.
func (t *Problem) Set(message string, errs ...error) {
	text := Line(errs...)
	if text != "" && text != t.Note() {
		slog.Warn(message, "why", text)
	}
	t.text.Store(&text)
}

// Note is the problem in one line, "" if there is none.
func (t *Problem) Note() string {
	if text := t.text.Load(); text != nil {
		return *text
	}
	return ""
}
