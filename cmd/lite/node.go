package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/join/revoke"
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

func revokeNode(ctx context.Context, client kubernetes.Interface, w io.Writer, name string) error {
	revoked, err := revoke.Node(ctx, client, name)
	if revoked != nil {
		writeRevoked(w, revoked)
	}
	return err
}

func writeRevoked(w io.Writer, n *revoke.NodeResult) {
	was := "the node is deleted"
	if !n.Existed {
		was = "there was no such node"
	}
	fmt.Fprintf(w, "node %s: its certificates are revoked; %s\n", n.Name, was)
	for _, id := range n.Tokens {
		fmt.Fprintf(w, "node %s joined with token %s, which is still valid; `lite token delete %[2]s` deletes it\n", n.Name, id)
	}
}
