// Package manifests holds the objects every cluster is given, as the files
// that a person would apply.
package manifests

import "embed"

// FS is the files of this directory, *.yaml.
//
//go:embed *.yaml
var FS embed.FS
