package log

import (
	"errors"
	"fmt"
	"testing"
)

func TestOneLine(t *testing.T) {
	for err, want := range map[error]string{
		errors.New("a"): "a",
		errors.Join(errors.New("a"), errors.New("b"), errors.New("c")): "a; b; c",
		errors.New("a\n\nb\n"): "a; b",
	} {
		if got := OneLine(err); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestShown(t *testing.T) {
	cause := errors.New("cause")
	var shown *ShownError
	if err := fmt.Errorf("outer: %w", Shown(cause)); !errors.As(err, &shown) || !errors.Is(err, cause) || err.Error() != "outer: cause" {
		t.Errorf("got %v", err)
	}
}
