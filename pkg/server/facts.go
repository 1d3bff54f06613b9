package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
)

// Facts is what the cluster of a server shares. The first server makes the facts from
// its configuration, and while it is the only one it makes them anew at each start, but
// for those that are in use: with others it does not start, and the error says so beside
// what it would make.
//
// A server that is one of several, and was not made the only one since, has them from the others, or from the time when it was the only one.
func Facts(cfg *config.Config) (cluster.Facts, error) {
	m, err := readMembership(cfg.Layout().Data.Server())
	if err != nil || m != nil && !m.Complete {
		return cfg.Propose(), err
	}
	was, err := Known(cfg, os.ReadFile)
	switch {
	case err != nil:
		return cfg.Propose(), err
	case m != nil && !m.Alone && was.Known():
		was = cfg.Amend(was)
		return was, cfg.Contradicts(was)
	}
	return cfg.Propose(), cfg.ContradictsOwn(was)
}

// Known is what the cluster shared when the server last started, the zero Facts if it
// never has. Of versions until 1.37 it is the ranges alone. read reads a file.
func Known(cfg *config.Config, read func(path string) ([]byte, error)) (cluster.Facts, error) {
	var f cluster.Facts
	dir := cfg.Layout().Data.Server()
	path := dir.Facts()
	data, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		path = dir.Ranges()
		data, err = read(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err == nil && !f.Known() {
		err = errors.New("it has no ranges of addresses")
	}
	if err != nil {
		return cluster.Facts{}, fmt.Errorf("read the cluster's facts %s: %w; restore the file, or remove it if cluster-cidr, service-cidr and cluster-domain are as ever", path, err)
	}
	return f, nil
}

// remember is for Known of later starts.
func remember(dir layout.Server, f cluster.Facts) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err == nil {
		err = file.Write(dir.Facts(), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember the cluster's facts: %w", err)
	}
	if err := os.Remove(dir.Ranges()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what a version before has left: %w", err)
	}
	return nil
}
