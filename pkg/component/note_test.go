package component

import (
	"errors"
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
