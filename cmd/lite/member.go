package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/server"
	"lite.io/lite/pkg/status"
)

func memberCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "member",
		Short: "Manage the members of the datastore, of which each server has one",
		Long: `Manage the members of the datastore, of which each server has one. Run it on a server,
as root.`,
	}
	cmd.AddCommand(memberListCommand(), memberStatusCommand(), memberRemoveCommand(), memberRejoinCommand())
	return cmd
}

func memberListCommand() *cobra.Command {
	return memberShowCommand("list", "List the members of the datastore", "", layout.MembersPath,
		func(w io.Writer, all []etcd.Member) error { return writeMembers(w, all) })
}

func memberStatusCommand() *cobra.Command {
	return memberShowCommand("status", "Show which members are up, which one leads, and how many more may fail",
		`Show for each member of the datastore whether it is up as this server sees it, which one
leads, and how many entries of the log it is behind; and how many more members may fail
until the datastore has no quorum, without which nothing can be written.`,
		layout.HealthPath, func(w io.Writer, h etcd.Health) error { return writeHealth(w, h) })
}

// memberShowCommand shows what the server of this machine answers.
func memberShowCommand[T any](use, short, long, path string, write func(io.Writer, T) error) *cobra.Command {
	output := ""
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %q: must be table or json", output)
			}
			return onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, _ join.Token) error {
				var answer T
				if err := getMembers(ctx, client, path, &answer); err != nil {
					return err
				}
				if output == "json" {
					return writeJSON(os.Stdout, answer)
				}
				return write(os.Stdout, answer)
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func getMembers(ctx context.Context, client kubernetes.Interface, path string, into any) error {
	data, err := kube.Answer(client.Discovery().RESTClient().Get().AbsPath(path).Do(ctx))
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fmt.Errorf("ask for the members of the datastore: %w", err)
	}
	return nil
}

func writeMembers(w io.Writer, all []etcd.Member) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tID\tADDRESS\tROLE")
	for _, m := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", printable(m.Name), m.ID, printable(m.PeerURL), m.Role())
	}
	return t.Flush()
}

func writeHealth(w io.Writer, h etcd.Health) error {
	all, quorum := server.Standing(h)
	for i := range all {
		all[i].Name, all[i].Reason = printable(all[i].Name), printable(all[i].Reason)
	}
	return status.WriteMembers(w, all, quorum)
}

func memberRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove the member of a server from the datastore",
		Long: `Remove the member of a server from the datastore, for example of a machine that is
lost. It is refused if the members that stay would not have a quorum.

A server that is removed while it runs stops. It does not start again before it joins
again (` + "`lite member rejoin`" + `) or is uninstalled. Its Node stays until you delete it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			return onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, _ join.Token) error {
				return removeMember(ctx, client, os.Stdout, names[0])
			})
		},
		ValidArgsFunction: completeMembers,
	}
}

func removeMember(ctx context.Context, client kubernetes.Interface, w io.Writer, name string) error {
	data, err := kube.Answer(client.Discovery().RESTClient().Delete().AbsPath(layout.MembersPath, name).Do(ctx))
	var gone etcd.Member
	if err == nil {
		err = json.Unmarshal(data, &gone)
	}
	if err != nil {
		return fmt.Errorf("remove member %s: %w", name, err)
	}
	fmt.Fprintf(w, "%s is no member of the datastore any more; `lite kubectl delete node %[1]s` deletes its node\n", gone.Called())
	return nil
}

// completeMembers offers the names of members, where root asks on a server that runs.
func completeMembers(cmd *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_ = onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, _ join.Token) error {
		var all []etcd.Member
		err := getMembers(ctx, client, layout.MembersPath, &all)
		for _, m := range all {
			names = append(names, m.Called())
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

func memberRejoinCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rejoin",
		Short: "Have this server, which was removed, join its cluster again when it starts",
		Long: `Have this server, which was removed from its cluster while it was away, join that cluster
again when it starts: as a new member, which copies the data of the others. Its own copy,
which is out of date, is moved aside; a copy that was moved aside before is deleted.

Stop lite on this machine before. Another server of the cluster has to be up: it is asked
whether this one was removed. No token is needed: keys and certificates stay.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("must run as root; use `sudo`")
			}
			cfg, err := config.Load(config.Server, config.Flags(config.Server), os.Environ())
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if ctx == nil {
				ctx = context.Background()
			}
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			aside, err := server.Rejoin(ctx, cfg)
			if err != nil {
				return fmt.Errorf("rejoin: %w", err)
			}
			fmt.Printf("This server joins its cluster again when lite starts. Its own copy of the datastore is in %s; delete it when you do not need it any more.\n", aside)
			return nil
		},
	}
}
