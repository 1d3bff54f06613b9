//go:build !amd64 && !arm64

package licenses

import "embed"

// data is empty: bundles are built for two architectures.
var data embed.FS
