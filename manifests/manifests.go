// Package manifests holds the objects every cluster is given, as the files
// that a person would apply.
package manifests

import "embed"

// FS is the files of this directory, which every cluster is given, and those of
// batteries, one for each part that may be disabled, and of profiles, one for each that
// may be chosen. ${API_PORT}, ${CLUSTER_DNS} and ${CLUSTER_DOMAIN}
// stand for what the user chose.
//
//go:embed *.yaml batteries profiles
var FS embed.FS
