package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/join/revoke"
	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/server"
	"lite.io/lite/pkg/status"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Manage the tokens that machines join with",
		Long: `Manage the tokens that machines join with. Run it on a server, as root: a token
contains the address of the server and the hash of the cluster's CA.`,
	}
	cmd.AddCommand(tokenCreateCommand(), tokenListCommand(), tokenDeleteCommand(), tokenRevokeCommand(), tokenRotateCommand())
	return cmd
}

// onServer calls f with a client of this server's API and its own token, which
// says where the server is and what its CA is. cmd is a command of token or node.
func onServer(cmd *cobra.Command, f func(ctx context.Context, c *config.Config, client kubernetes.Interface,
	standing join.Token) error) error {
	cfg, err := config.Load(config.Server, config.Flags(config.Server), os.Environ())
	if err != nil {
		return err
	}
	noun := cmd.Parent().Name()
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s: needs root to manage %[1]ss; run it as root", noun)
	}
	client, standing, err := server.Client(cfg.DataDir, noun)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return f(ctx, cfg, client, standing)
}

func tokenCreateCommand() *cobra.Command {
	var (
		role, description string
		ttl               time.Duration
		printCommand      bool
	)
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a token",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := join.ParseRole(role)
			if err != nil {
				return fmt.Errorf("--role: %w", err)
			}
			return onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, standing join.Token) error {
				if description == join.Standing {
					return fmt.Errorf("--description: %q is reserved for the cluster's own token; choose another", description)
				}
				t := join.New()
				t.Server, t.CAHash = standing.Server, standing.CAHash
				if err := join.Create(ctx, client, t, join.Settings{Role: r, TTL: ttl, Description: description, Now: time.Now()}); err != nil {
					return err
				}
				text := t.Text()
				if printCommand {
					text = fmt.Sprintf("lite %s --token %s", r, text)
				}
				fmt.Println(text)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", string(join.Agent), "role that the token admits: agent or server")
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long the token is valid; 0 means forever")
	cmd.Flags().StringVar(&description, "description", "", "what the token is for")
	cmd.Flags().BoolVar(&printCommand, "print-join-command", false, "print the command to run on the machine that is to join")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"agent", "server"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func tokenListCommand() *cobra.Command {
	nodes := false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tokens, without their secrets, and the nodes they admitted",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, _ join.Token) error {
				tokens, err := join.List(ctx, client)
				if err != nil {
					return err
				}
				joined, err := roll.ListJoined(ctx, client)
				if err != nil {
					return err
				}
				if nodes {
					return writeJoined(os.Stdout, joined, time.Now())
				}
				return writeTokens(os.Stdout, tokens, joined, time.Now())
			})
		},
	}
	cmd.Flags().BoolVar(&nodes, "nodes", false, "list the admitted nodes instead: with which token, when, and from where")
	return cmd
}

// writeTokens lists the tokens there are, and those that are gone but whose nodes are
// not.
func writeTokens(w io.Writer, tokens []join.Info, joined []*roll.Joined, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "ID\tROLE\tEXPIRES\tNODES\tDESCRIPTION")
	nodes, current := map[string]int{}, roll.Current(joined)
	for _, j := range current {
		nodes[j.Token]++
	}
	for _, i := range tokens {
		expires := "never"
		switch {
		case i.Expired:
			expires = "expired"
		case !i.Expiry.IsZero():
			expires = "in " + status.Age(i.Expiry.Sub(now))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", i.ID, i.Role, expires, nodes[i.ID], printable(i.Description))
		delete(nodes, i.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		fmt.Fprintf(t, "%s\t\tgone\t%d\t\n", printable(id), nodes[id])
	}
	return t.Flush()
}

// writeJoined lists the nodes, those of a token together.
func writeJoined(w io.Writer, joined []*roll.Joined, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "TOKEN\tNODE\tADMITTED\tFROM\tREADY SINCE THEN")
	current := roll.Current(joined)
	for _, j := range joined {
		for _, name := range slices.Sorted(maps.Keys(j.Nodes)) {
			if current[name] != j {
				continue
			}
			e := j.Nodes[name]
			ready := "no"
			if e.Lived {
				ready = "yes"
			}
			fmt.Fprintf(t, "%s\t%s\t%s ago\t%s\t%s\n", printable(j.Token), printable(name), status.Age(now.Sub(e.At)), printable(e.From), ready)
		}
	}
	return t.Flush()
}

// printable leaves out what would change a terminal or make up lines: anybody who
// may make Secrets in kube-system can write descriptions.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

func tokenDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete ID...",
		Short: "Delete tokens; nodes that joined with them stay",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, _ join.Token) error {
				return deleteTokens(ctx, client, ids)
			})
		},
		ValidArgsFunction: completeTokens,
	}
}

// completeTokens offers the IDs of tokens, where root asks on a server that runs.
func completeTokens(cmd *cobra.Command, _ []string, _ string) (ids []cobra.Completion, _ cobra.ShellCompDirective) {
	_ = onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, _ join.Token) error {
		tokens, err := join.List(ctx, client)
		for _, t := range tokens {
			ids = append(ids, t.ID)
		}
		return err
	})
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// deleteTokens deletes all it can; one that is not there keeps no other alive.
func deleteTokens(ctx context.Context, client kubernetes.Interface, ids []string) error {
	var errs []error
	for _, id := range ids {
		errs = append(errs, join.Delete(ctx, client, id, time.Now()))
	}
	return errors.Join(errs...)
}

func tokenRevokeCommand() *cobra.Command {
	nodes := false
	cmd := &cobra.Command{
		Use:   "revoke ID...",
		Short: "Delete tokens, and with --nodes also revoke the nodes that joined with them",
		Long: `Delete tokens. With --nodes, also revoke the nodes that joined with them, as
"lite node revoke" does: use it if somebody else has had a token. You can also name
tokens that no longer exist.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, standing join.Token) error {
				if !nodes {
					return deleteTokens(ctx, client, ids)
				}
				return revokeTokens(ctx, client, os.Stdout, ids, standing.ID)
			})
		},
		ValidArgsFunction: completeTokens,
	}
	cmd.Flags().BoolVar(&nodes, "nodes", false, "also revoke the nodes that joined with them")
	return cmd
}

// revokeTokens revokes all that it can: one that fails does not keep the others valid.
func revokeTokens(ctx context.Context, client kubernetes.Interface, w io.Writer, ids []string, standing string) error {
	var errs []error
	for _, which := range ids {
		t, err := join.Named(which)
		if err == nil {
			err = revokeToken(ctx, client, w, t.ID)
		}
		if err == nil && t.ID == standing {
			fmt.Fprintf(w, "token %s is the cluster's own, and the next start of the server restores it: replace it with `lite token rotate`, and in the server's configuration if it is set there\n", t.ID)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func revokeToken(ctx context.Context, client kubernetes.Interface, w io.Writer, id string) error {
	revoked, err := revoke.Token(ctx, client, id)
	if revoked == nil {
		return err
	}
	if revoked.Existed {
		fmt.Fprintf(w, "token %s is deleted\n", id)
	}
	for _, n := range revoked.Nodes {
		writeRevoked(w, n)
	}
	return err
}

func tokenRotateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate [ID]",
		Short: "Replace a token with a new one; without ID, the cluster's own token",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return onServer(cmd, func(ctx context.Context, c *config.Config, client kubernetes.Interface, standing join.Token) error {
				old := standing.ID
				if len(ids) > 0 {
					t, err := join.Named(ids[0])
					if err != nil {
						return err
					}
					old = t.ID
				}
				t, err := join.Rotate(ctx, client, old, time.Now())
				if apierrors.IsNotFound(err) && old == standing.ID {
					// Somebody has deleted it. A new one is what was asked for.
					t = join.New()
					err = join.Keep(ctx, client, t)
				}
				if err != nil {
					return err
				}
				t.Server, t.CAHash = standing.Server, standing.CAHash
				if old == standing.ID {
					if err := server.WriteToken(c.DataDir, t); err != nil {
						return err
					}
				}
				fmt.Println(t.Text())
				return nil
			})
		},
	}
}
