package upgrade

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/install/backup"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// absence asks the server on this machine whether the others go on while it is stopped.
func (n *Instance) absence(ctx context.Context) (a etcd.Absence, err error) {
	client, err := kube.NewClient(n.kubeconfig(), "upgrade").Clientset()
	if err != nil {
		return a, err
	}
	data, err := client.Discovery().RESTClient().Post().AbsPath(layout.AbsencePath).DoRaw(ctx)
	if apierrors.IsNotFound(err) {
		return a, nil // the datastore is not lite's own, and is not stopped
	}
	if err == nil {
		err = json.Unmarshal(data, &a)
	}
	if err != nil {
		return a, fmt.Errorf("ask whether the other servers go on while this one is stopped: %w", err)
	}
	return a, nil
}

// checkQuorum refuses to stop one of several servers that the others cannot spare. All of them have to be up, not only
// as many as are a quorum: one that does not come back would leave no more to lose.
func checkQuorum(ctx context.Context, n *Instance, force bool) (warnings []string, err error) {
	if n.Config.Role != config.Server {
		return nil, nil
	}
	a, err := n.absence(ctx)
	why := strings.Join(a.Missing, "; ")
	if err != nil {
		why = err.Error()
	}
	switch {
	case why == "":
		return nil, nil
	case force:
		return []string{why}, nil
	}
	return nil, fmt.Errorf("the other servers cannot do without this one now: %s; or continue with --force, if the API may be unavailable meanwhile", why)
}

// takeTurn keeps the other servers of the cluster from being upgraded at the same time, until what it returns is called.
// Agents, and a server that is alone, need no turn.
func takeTurn(ctx context.Context, cfg *config.Config, others []member, healthTimeout time.Duration, report func(string)) (end func(), err error) {
	if cfg.Role != config.Server || !slices.ContainsFunc(others, func(m member) bool { return m.Server }) {
		return func() {}, nil
	}
	t, err := newTurn(kubeconfigOf(cfg), cfg.NodeName)
	if err == nil {
		err = t.take(ctx, turnLasts(healthTimeout))
	}
	if err != nil {
		return nil, err
	}
	return func() {
		if err := t.end(context.WithoutCancel(ctx)); err != nil {
			report("Other servers can be upgraded only when the turn of this one has expired: " + err.Error())
		}
	}, nil
}

// result says whose data a server works with that was rolled back.
func result(dataDir string) string {
	b, err := backup.Read(dataDir)
	if err != nil || b == nil {
		return "with the data from before"
	}
	switch dropped := backup.Dropped(dataDir); {
	case b.Store == backup.Stays:
		return "with the data that the other servers have: nothing that was written is lost"
	case b.Store == backup.Rejoins:
		return "with the data that the other servers have: nothing that was written is lost; what this server had of the newer version is in " + dropped
	default:
		return "with the data of " + b.Taken.Format(time.RFC3339) + "; what the newer version had is in " + dropped
	}
}
