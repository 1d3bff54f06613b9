package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/kube"
)

func nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Manage the nodes of the cluster",
		Long:  `Manage the nodes of the cluster. It works on a server, as root.`,
	}
	cmd.AddCommand(nodeRevokeCommand())
	return cmd
}

func nodeRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME...",
		Short: "Refuse nodes' certificates from now on, and delete the nodes",
		Long: `Refuse all certificates that nodes of these names have, from now on, though they have
not run out, and delete the nodes. It is for machines that were lost or taken over; the
node may have been deleted long ago. Pods that run there are made anew elsewhere; those
on the machine itself run on, since nobody can stop them.

Such a machine joins anew with a token. If it knows one, end that too.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			return onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, _ join.Token) error {
				var errs []error
				for _, name := range names {
					errs = append(errs, revokeNode(ctx, client, os.Stdout, name))
				}
				return errors.Join(errs...)
			})
		},
		ValidArgsFunction: completeNodes,
	}
}

// completeNodes offers the names of nodes, where root asks on a server that runs.
func completeNodes(cmd *cobra.Command, _ []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	_ = onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, _ join.Token) error {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, n := range nodes.Items {
			names = append(names, n.Name)
		}
		return nil
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

// revokeNode refuses first: a node whose Node is gone would else make it anew.
func revokeNode(ctx context.Context, client kubernetes.Interface, w io.Writer, name string) error {
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return fmt.Errorf("%q is no name of a node: %s; `lite kubectl get nodes` shows them", name, problems[0])
	}
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read node %s: %w", name, err)
	}
	if _, server := node.GetLabels()[kube.ServerLabel]; err == nil && server {
		return fmt.Errorf("node %s is a server: who has its disk has the keys of the whole cluster, and refusing one certificate changes nothing; begin a new cluster if it is lost", name)
	}
	if err := roll.Refuse(ctx, client, name, roll.Revoked, time.Now()); err != nil {
		return err
	}
	was := "the node is deleted"
	err = client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		was, err = "there was no such node", nil
	}
	if err != nil {
		return fmt.Errorf("the certificates of node %s are refused from now on, but it could not be deleted: %w; run `lite kubectl delete node %[1]s`", name, err)
	}
	fmt.Fprintf(w, "node %s: its certificates are refused from now on; %s\n", name, was)
	return hint(ctx, client, w, name)
}

// hint takes the node off the roll, and names the tokens that it came by and could
// come by again.
func hint(ctx context.Context, client kubernetes.Interface, w io.Writer, name string) error {
	tokens, err := roll.Forget(ctx, client, name)
	for _, id := range tokens {
		if valid, _ := join.Valid(ctx, client, id); valid {
			fmt.Fprintf(w, "node %s has joined by token %s, which is still good; `lite token delete %[2]s` ends it\n", name, id)
		}
	}
	return err
}
