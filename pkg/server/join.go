package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	utilversion "k8s.io/apimachinery/pkg/util/version"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/version"
)

// Joins reports whether the start of a server has to ask others for what servers share: the machine has no cluster of
// its own, and its user names one, or a start before was cut short on the way.
func Joins(cfg *config.Config) (bool, error) {
	dir := cfg.Layout().Data.Server()
	m, err := readMembership(dir)
	if err != nil || m != nil {
		return m != nil && !m.Complete, err
	}
	token, err := join.Read(cfg.Token, cfg.TokenFile)
	if err != nil || token.Server == "" && cfg.ServerURL == "" {
		return false, err
	}
	ca, err := os.ReadFile(pkiDir(cfg).CA(pki.ClusterCA))
	if errors.Is(err, fs.ErrNotExist) && !etcd.Used(dir.Etcd()) {
		return token.Server != ownEndpoint(cfg), nil
	}
	var own string
	if err == nil {
		own, err = join.CAHash(ca)
	}
	if err != nil {
		return false, fmt.Errorf("read the cluster's CA: %w", err)
	}
	if token.CAHash != "" && token.CAHash != own {
		return false, fmt.Errorf("data-dir %s contains a cluster of its own, and the token is of another one; to join this machine to that cluster, remove this one with `lite uninstall`, or choose another --data-dir; to start it, remove the token",
			cfg.DataDir)
	}
	if cfg.ServerURL != "" && cfg.ServerURL != "https://"+ownEndpoint(cfg) {
		slog.Warn("This machine has a cluster of its own, and ignores the server that it is told to join", "server", cfg.ServerURL)
	}
	return false, nil
}

// Join gets what servers share from those of the cluster: the authorities and keys, and the facts. It is complete or
// begins anew; a second call does nothing to files that a server of the cluster already goes by. say is told what is
// being waited for.
func Join(ctx context.Context, cfg *config.Config, say func(string)) (cluster.Facts, error) {
	var facts cluster.Facts
	token, err := join.Read(cfg.Token, cfg.TokenFile)
	if err == nil && token == (join.Token{}) {
		err = errors.New("token: a start before began to join a cluster and did not finish; pass the token again, or run `lite uninstall` to begin anew")
	}
	if err != nil {
		return facts, err
	}
	found, err := join.Await(ctx, token, cfg.ServerURL, join.Server, say)
	if err != nil {
		return facts, err
	}
	shared, err := join.FetchHandover(ctx, found, token, cfg.NodeName, say)
	if err != nil {
		return facts, err
	}
	if err := sameMinor(shared.Kubernetes, version.Get().Kubernetes); err != nil {
		return facts, err
	}
	dir := cfg.Layout().Data.Server()
	if facts, err = check(dir, shared); err != nil {
		return facts, err
	}
	if err := cfg.Contradicts(facts); err != nil {
		return facts, err
	}
	return facts, receive(dir, shared, membership{Servers: []string{found.Server}})
}

// sameMinor wants API servers on one store to be of one minor version of Kubernetes, where none of them is being
// upgraded: they convert and keep objects alike.
func sameMinor(theirs, ours string) error {
	there, err := utilversion.ParseSemantic(theirs)
	if err != nil {
		return fmt.Errorf("the server reports %q as its version of Kubernetes; use the version of lite that the other servers run", theirs)
	}
	here, err := utilversion.ParseSemantic(ours)
	if err != nil {
		return fmt.Errorf("the version of Kubernetes in this build is %q: %w", ours, err)
	}
	if here.Major() != there.Major() || here.Minor() != there.Minor() {
		return fmt.Errorf("this lite has Kubernetes %s, and the servers of the cluster have %s; join with the version that they run, and upgrade then", ours, theirs)
	}
	return nil
}

// sharedFiles is what the servers of a cluster share, by path below the directory of a server. Whoever manages
// encryption keys himself distributes them himself.
func sharedFiles(dir layout.Server) (names []string) {
	keys := pki.Dir(dir.PKI())
	for _, path := range []string{
		keys.CA(pki.ClusterCA), keys.CAKey(pki.ClusterCA), keys.CA(pki.FrontProxyCA), keys.CAKey(pki.FrontProxyCA),
		keys.CA(pki.EtcdCA), keys.CAKey(pki.EtcdCA), keys.ServiceAccountKey(), keys.ServiceAccountPub(),
		dir.Encryption(), dir.Token(), dir.Facts(),
	} {
		names = append(names, strings.TrimPrefix(path, string(dir)+"/"))
	}
	return names
}

// check finds out whether all is there that a server needs, and nothing else, and returns the facts.
func check(dir layout.Server, shared join.Handover) (facts cluster.Facts, err error) {
	known := sharedFiles(dir)
	for name := range shared.Files {
		if !slices.Contains(known, name) {
			return facts, fmt.Errorf("the server handed over %q, which this version of lite does not know; use the version that the other servers run", name)
		}
	}
	name := func(path string) string { return strings.TrimPrefix(path, string(dir)+"/") }
	if err := json.Unmarshal(shared.Files[name(dir.Facts())], &facts); err != nil || !facts.Known() {
		return facts, errors.New("the server did not hand over the cluster's facts; restart lite on that server, which writes them again")
	}
	for _, want := range known {
		if shared.Files[want] == nil && (want != name(dir.Encryption()) || facts.Encryption != cluster.UserEncryption) {
			return facts, fmt.Errorf("the server did not hand over %s; restore that file there", want)
		}
	}
	return facts, nil
}

// receive writes what servers share. No start goes by it before all of it is on the disk.
func receive(dir layout.Server, shared join.Handover, m membership) error {
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := m.write(dir); err != nil {
		return err
	}
	for name, data := range shared.Files {
		path := filepath.Join(string(dir), name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			err = file.Write(path, data, 0o600)
		}
		if err != nil {
			return fmt.Errorf("join: write %s: %w", path, err)
		}
	}
	m.Complete = true
	return m.write(dir)
}
