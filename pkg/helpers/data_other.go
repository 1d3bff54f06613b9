//go:build !amd64 && !arm64

package helpers

import "embed"

// data is empty: scripts/build/tools knows the compilers of two architectures.
var data embed.FS
