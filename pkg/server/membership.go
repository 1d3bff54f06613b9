package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
)

// membership is what a server that is, or is to be, one of several remembers of that.
type membership struct {
	// Complete is whether the server has all that servers share. Until then its start asks for it.
	Complete bool `json:"complete"`
	// Alone is whether it was made the only one. It makes the facts again, but others can reach its datastore: those
	// that come back are told that they were removed, before they go on without it.
	Alone bool `json:"alone,omitempty"`
	// Reset is whether it was ever made the only one without the others having agreed. Those would be a quorum again if they
	// came back and reached nobody who tells them, so it never forgets that it was one of several.
	Reset bool `json:"reset,omitempty"`
	// Servers are the URLs of API servers that can admit this one to the datastore.
	Servers []string `json:"servers,omitempty"`
}

// toAsk are the servers to ask on behalf of this one, the one that the user names first.
func (m membership) toAsk(cfg *config.Config) []string {
	servers := slices.Clone(m.Servers)
	if cfg.ServerURL != "" && !slices.Contains(servers, cfg.ServerURL) {
		servers = slices.Insert(servers, 0, cfg.ServerURL)
	}
	return servers
}

// readMembership returns nil for a server that is alone.
func readMembership(dir layout.Server) (*membership, error) {
	data, err := os.ReadFile(dir.Membership())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var m membership
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return nil, fmt.Errorf("read which other servers the cluster has: %s: %w; restore the file from a backup, or write {\"complete\":true} to it if this server has run in the cluster", dir.Membership(), err)
	}
	return &m, nil
}

func (m membership) write(dir layout.Server) error {
	data, err := json.Marshal(m)
	if err == nil {
		err = file.Write(dir.Membership(), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember that the cluster has other servers: %w", err)
	}
	return nil
}
