package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/layout"
)

// leaveAfter is how long a server that has its own Node deleted stays a member, so that the deletion is written.
const leaveAfter = 3 * time.Second

// leaves takes the member of a server out of the datastore before its Node is deleted, or refuses that because the others
// would have no quorum. The Node of the only server is nobody's concern, nor is an agent's.
func (m *members) leaves(ctx context.Context, node string, dryRun bool) error {
	all, err := m.store.Members()
	if err != nil {
		return busy(err)
	}
	if len(all) < 2 || !slices.ContainsFunc(all, func(m etcd.Member) bool { return m.Name == node }) {
		return nil
	}
	gone, err := m.store.Removable(ctx, node)
	if err == nil && !dryRun && !gone.Self {
		gone, err = m.store.Remove(ctx, node)
	}
	if _, ok := errors.AsType[*etcd.UnknownError](err); ok {
		return nil // it has just been removed
	}
	if _, ok := errors.AsType[*etcd.BusyError](err); ok {
		return busy(err)
	}
	if err != nil {
		return refused(http.StatusForbidden, metav1.StatusReasonForbidden, fmt.Errorf("node %s is a server: %w", node, err))
	}
	if gone.Self && !dryRun {
		time.AfterFunc(leaveAfter, func() { m.leave(context.WithoutCancel(ctx), node) })
	}
	return nil
}

// leave takes this server's own member out.
func (m *members) leave(ctx context.Context, node string) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := m.store.Remove(ctx, node); err != nil {
		slog.Warn("The node of this server was deleted, but the server is still a member of the datastore", "err", err)
	}
}

// ErrSilent is that no server of a cluster answers.
var ErrSilent = errors.New("no server of the cluster answers")

// Leave takes a server that is one of several out of its cluster, because it is going to be removed from the machine. It is
// nil if there is nothing to leave.
func Leave(ctx context.Context, cfg *config.Config) error {
	dir := cfg.Layout().Data.Server()
	known, err := readMembership(dir)
	if err != nil || known == nil || !etcd.Used(dir.Etcd()) {
		return err
	}
	own := "https://" + ownEndpoint(cfg)
	if all, err := membersAt(ctx, cfg, own); err == nil && len(all) == 1 {
		return nil // it is the only one, though it remembers others or waits for those that were removed
	}
	// By now another machine may be a server of this name.
	which, err := etcd.MemberID(dir.Etcd())
	if err != nil {
		which = cfg.NodeName
	}
	var errs []error
	for _, server := range append([]string{own}, known.Servers...) {
		err := leaveBy(ctx, cfg, server, which)
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		if apierrors.IsConflict(err) {
			return err
		}
		errs = append(errs, fmt.Errorf("%s: %w", server, err))
	}
	return fmt.Errorf("%w: %w", ErrSilent, errors.Join(errs...))
}

func leaveBy(ctx context.Context, cfg *config.Config, server, which string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client, err := otherServer(pkiDir(cfg), server)
	if err != nil {
		return err
	}
	return client.Delete().AbsPath(layout.MembersPath, which).Do(ctx).Error()
}
