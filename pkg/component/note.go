package component

import (
	"errors"
	"slices"
	"strings"
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
