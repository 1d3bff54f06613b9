// Package revoke takes the right to be in the cluster away from nodes, and from all that joined
// with a token.
package revoke

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/kube"
)

// NodeResult is a node whose certificates are refused from now on.
type NodeResult struct {
	Name    string
	Existed bool     // its Node existed, and is deleted
	Tokens  []string // valid tokens that it has joined with, and could join with again
}

// Node refuses all certificates of a node and deletes its Node. It refuses first: a machine
// whose Node is deleted would recreate it. An error that comes with a result is about tokens
// alone.
func Node(ctx context.Context, client kubernetes.Interface, name string) (*NodeResult, error) {
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return nil, fmt.Errorf("%q is not a valid node name: %s; `lite kubectl get nodes` shows the names", name, problems[0])
	}
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read node %s: %w", name, err)
	}
	if _, server := node.GetLabels()[kube.ServerLabel]; err == nil && server {
		return nil, fmt.Errorf("node %s is a server: whoever has its disk has the keys of the whole cluster, so revoking one certificate does not help; if others have its disk, create a new cluster; if it is only lost, run `lite kubectl delete node %[1]s`", name)
	}
	if err := roll.Refuse(ctx, client, name, roll.Revoked, time.Now()); err != nil {
		return nil, err
	}
	err = client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("the certificates of node %s are revoked, but the node could not be deleted: %w; run `lite kubectl delete node %[1]s`", name, err)
	}
	revoked := &NodeResult{Name: name, Existed: err == nil}
	tokens, err := roll.Forget(ctx, client, name)
	for _, id := range tokens {
		if valid, _ := join.Valid(ctx, client, id); valid {
			revoked.Tokens = append(revoked.Tokens, id)
		}
	}
	return revoked, err
}

// TokenResult is a token with which nobody joins any more.
type TokenResult struct {
	ID      string
	Existed bool // and is deleted
	Nodes   []*NodeResult
}

// Token deletes a token, closes its record, and then revokes the nodes in that record: in this
// order, nobody is admitted in between. An error that comes with a result is about nodes; the
// result has those that are revoked nevertheless.
func Token(ctx context.Context, client kubernetes.Interface, id string) (*TokenResult, error) {
	missing := join.Delete(ctx, client, id, time.Now())
	if missing != nil && !apierrors.IsNotFound(missing) {
		return nil, missing
	}
	was, err := roll.ReadJoined(ctx, client, id)
	if err == nil && missing != nil && len(was.Nodes) == 0 {
		return nil, missing // neither a token nor a node of one
	}
	if err == nil {
		_, err = roll.End(ctx, client, id, time.Now())
	}
	if err != nil {
		return nil, err
	}
	joined, err := roll.ListJoined(ctx, client)
	if err != nil {
		return nil, err
	}
	revoked := &TokenResult{ID: id, Existed: missing == nil}
	var errs []error
	current := roll.Current(joined)
	for _, name := range slices.Sorted(maps.Keys(current)) {
		if current[name].Token != id {
			continue
		}
		node, err := Node(ctx, client, name)
		if node != nil {
			revoked.Nodes = append(revoked.Nodes, node)
		}
		errs = append(errs, err)
	}
	return revoked, errors.Join(errs...)
}
