// Package scripts holds install.sh, which lite puts into every bundle.
package scripts

import (
	"bytes"
	_ "embed"
	"fmt"
	"regexp"
)

//go:embed install.sh
var install []byte

// baseURL is the line of install.sh that says where releases are.
var baseURL = regexp.MustCompile(`(?m)^default_base_url=.*$`)

// plainURL is what needs no quotes in a shell.
var plainURL = regexp.MustCompile(`^https?://[A-Za-z0-9._~:/%@\[\]-]+$`)

// Install is install.sh, with the place where releases are. It may be "": then the
// script asks for it.
func Install(url string) ([]byte, error) {
	if url == "" {
		return install, nil
	}
	if !plainURL.MatchString(url) {
		return nil, fmt.Errorf("base URL %q: it must be like https://releases.example.org/lite, without spaces and quotes", url)
	}
	if n := len(baseURL.FindAll(install, -1)); n != 1 {
		return nil, fmt.Errorf("install.sh has %d lines default_base_url=, and must have one", n)
	}
	return baseURL.ReplaceAllLiteral(bytes.Clone(install), []byte("default_base_url="+url)), nil
}
