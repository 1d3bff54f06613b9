package config

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/host/probe"
)

// host is what configuration needs to know about the machine; tests make one up.
type host struct {
	hostname func() (string, error)
	networks func() (probe.Networks, error)
	readDir  func(dir string) ([]string, error)
	stat     func(file string) (fs.FileInfo, error)
	writable func(dir string) error
	listen   func(addr string) error // and close at once
	// readRegular reads what a user names; see file.ReadRegular.
	readRegular func(file string) ([]byte, error)
}

func thisHost() host {
	return host{
		hostname:    os.Hostname,
		networks:    probe.ReadNetworks,
		readRegular: file.ReadRegular,
		readDir: func(dir string) (names []string, _ error) {
			entries, err := os.ReadDir(dir)
			for _, e := range entries {
				names = append(names, e.Name())
			}
			return names, err
		},
		stat:     os.Stat,
		writable: func(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) },
		listen:   func(addr string) error { return probe.Unused("tcp", addr) },
	}
}
