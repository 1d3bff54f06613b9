package main

import (
	"encoding/json"
	"io"
)

// writeJSON writes what a command shows with --output json, for people to read as well: no sign is escaped that only HTML
// has to escape.
func writeJSON(w io.Writer, what any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(what)
}
