package helpers

import "embed"

//go:embed all:data/arm64
var data embed.FS
