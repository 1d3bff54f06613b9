package component

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// A note is one line, however many things are told in it.
func TestNotesAreOneLine(t *testing.T) {
	for want, got := range map[string]string{
		"":          Notes("", "") + Notes() + Line() + Line(nil, nil),
		"one":       Notes("", "one", ""),
		"one; two":  Notes("one", "", "two"),
		"a; b":      Line(errors.New("a"), nil, errors.New("b")),
		"c; d; e":   Line(errors.Join(errors.New("c"), errors.New("d\ne"))),
		"f (2); g;": Notes("f (2)", "g;"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestProblemIsLoggedWhenItChanges(t *testing.T) {
	var log bytes.Buffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	var problem Problem
	for _, step := range []struct {
		errs   []error
		note   string
		logged int // in all
	}{
		{nil, "", 0},
		{[]error{errors.New("a"), errors.New("b")}, "a; b", 1},
		{[]error{errors.New("a"), errors.New("b")}, "a; b", 1},
		{[]error{errors.New("b")}, "b", 2},
		{[]error{nil}, "", 2},
		{[]error{errors.New("b")}, "b", 3},
	} {
		problem.Set("It does not work", step.errs...)
		if got := strings.Count(log.String(), "It does not work"); problem.Note() != step.note || got != step.logged {
			t.Errorf("%v: the note is %q, and the log has %d lines:\n%s", step.errs, problem.Note(), got, &log)
		}
	}
	if !strings.Contains(log.String(), `level=WARN msg="It does not work" why="a; b"`) {
		t.Errorf("got %s", &log)
	}
}
