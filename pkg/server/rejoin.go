package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/version"
)

// Rejoin puts the copy of the datastore of a server aside that was removed from its cluster, so that the next start
// joins that cluster as a new member. All that servers share stays: the others do not have to hand it over again. Of a
// server that is a member still, nothing is touched: what it has voted for must not be forgotten.
func Rejoin(ctx context.Context, cfg *config.Config) (aside string, err error) {
	dir := cfg.Layout().Data.Server()
	known, err := readMembership(dir)
	switch {
	case err != nil:
		return "", err
	case known == nil:
		return "", fmt.Errorf("the server on data-dir %s is not one of several, so there is no cluster to join again; nothing was changed", cfg.DataDir)
	case !etcd.Used(dir.Etcd()):
		return "", fmt.Errorf("there is no copy of the datastore in %s; start lite: it joins its cluster by itself", dir.Etcd())
	}
	hold, err := Claim(cfg.DataDir, version.Version())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, hold.Close()) }()
	server, err := wasRemoved(ctx, cfg, *known)
	if err != nil {
		return "", fmt.Errorf("%w; nothing was changed", err)
	}
	// The next start asks it, too, and may not be told where it is; and is one of several again if this one was reset.
	others := slices.DeleteFunc(known.Servers, func(s string) bool { return s == server })
	if err := (membership{Complete: known.Complete, Servers: slices.Insert(others, 0, server)}).write(dir); err != nil {
		return "", err
	}
	return etcd.MoveAside(dir.Etcd(), time.Now())
}

// wasRemoved returns which other server says that this one is no member. One that has been away itself may not know yet, so
// all are asked.
func wasRemoved(ctx context.Context, cfg *config.Config, known membership) (by string, err error) {
	id, unreadable := etcd.MemberID(cfg.Layout().Data.Server().Etcd())
	var errs []error
	still := ""
	for _, server := range known.toAsk(cfg) {
		members, err := membersAt(ctx, cfg, server)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", server, err))
			continue
		}
		// If the identity cannot be read, the name has to do: a server that lost its data is known by it too.
		if !slices.ContainsFunc(members, func(m etcd.Member) bool { return m.ID == id || unreadable != nil && m.Name == cfg.NodeName }) {
			return server, nil
		}
		still = server
	}
	if still != "" {
		return "", fmt.Errorf("%s says that this server is a member of the datastore: start lite; if its copy of the data is damaged, run `lite member remove %s` on another server first", still, cfg.NodeName)
	}
	return "", fmt.Errorf("no other server says whether this one was removed; start lite on one of them, or name one with LITE_URL=https://<address of another server>:%s: %w", layout.APIPortText, errors.Join(errs...))
}

func membersAt(ctx context.Context, cfg *config.Config, server string) (all []etcd.Member, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client, err := otherServer(pkiDir(cfg), server)
	if err != nil {
		return nil, err
	}
	all, err = get[[]etcd.Member](ctx, client, layout.MembersPath)
	if err == nil && len(all) == 0 {
		err = errors.New("the server knows no members")
	}
	return all, err
}
