package helpers

import "embed"

//go:embed all:data/amd64
var data embed.FS
