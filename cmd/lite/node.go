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
		Long:  `Manage the nodes of the cluster. Run it on a server, as root.`,
	}
	cmd.AddCommand(nodeRevokeCommand())
	return cmd
}

func nodeRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME...",
		Short: "Revoke the certificates of nodes and delete the nodes",
		Long: `Refuse all current certificates of nodes with these names from now on, even if they
have not expired, and delete the nodes. Use it for machines that were lost or taken
over, even if the node was deleted long ago. Their pods are recreated elsewhere; those
on the machine itself keep running, since nobody can stop them.

With a valid token such a machine can join again. If it knows one, delete that token too.`,
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
		return fmt.Errorf("%q is not a valid node name: %s; `lite kubectl get nodes` shows the names", name, problems[0])
	}
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read node %s: %w", name, err)
	}
	if _, server := node.GetLabels()[kube.ServerLabel]; err == nil && server {
		return fmt.Errorf("node %s is a server: whoever has its disk has the keys of the whole cluster, so revoking one certificate does not help; if the server is lost, create a new cluster", name)
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
		return fmt.Errorf("the certificates of node %s are revoked, but the node could not be deleted: %w; run `lite kubectl delete node %[1]s`", name, err)
	}
	fmt.Fprintf(w, "node %s: its certificates are revoked; %s\n", name, was)
	return hint(ctx, client, w, name)
}

// hint takes the node off the roll, and names the tokens that it came by and could
// come by again.
func hint(ctx context.Context, client kubernetes.Interface, w io.Writer, name string) error {
	tokens, err := roll.Forget(ctx, client, name)
	for _, id := range tokens {
		if valid, _ := join.Valid(ctx, client, id); valid {
			fmt.Fprintf(w, "node %s joined with token %s, which is still valid; `lite token delete %[2]s` deletes it\n", name, id)
		}
	}
	return err
}
