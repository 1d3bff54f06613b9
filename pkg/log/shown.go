package log

import "strings"

// Shown marks an error that the user has seen already: what is left to do is to end with a
// status that reports it.
func Shown(err error) error { return &ShownError{err} }

// ShownError is what Shown makes.
type ShownError struct{ error }

// Unwrap returns the error as it was.
func (e *ShownError) Unwrap() error { return e.error }

// OneLine joins the lines of an error that has several causes.
func OneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}
