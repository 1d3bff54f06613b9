package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/server"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Manage the tokens by which machines join",
		Long: `Manage the tokens by which machines join. It works on a server, as root: the
text of a token has the server's address and the hash of the cluster's CA in it.`,
	}
	cmd.AddCommand(tokenCreateCommand(), tokenListCommand(), tokenDeleteCommand(), tokenRotateCommand())
	return cmd
}

// onServer calls f with a client of this server's API and its own token, which
// says where the server is and what its CA is.
func onServer(cmd *cobra.Command, f func(ctx context.Context, c *config.Config, client kubernetes.Interface, standing join.Token) error) error {
	cfg, err := config.Load(config.Server, config.Flags(config.Server), os.Environ())
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("token: only root may see tokens; run it as root")
	}
	standing, err := server.ReadToken(cfg.DataDir)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("token: no server has run here on data-dir %s; run it on a server, or set LITE_DATA_DIR", cfg.DataDir)
	}
	if err != nil {
		return err
	}
	rest, err := kube.ClientConfig(server.Kubeconfig(cfg.DataDir), "token")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(rest)
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
		Short: "Make a token",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := join.ParseRole(role)
			if err != nil {
				return fmt.Errorf("--role: %w", err)
			}
			if r == join.Server && printCommand {
				return errors.New("--print-join-command: this version has no further servers; make a token for an agent")
			}
			return onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, standing join.Token) error {
				if description == join.Standing {
					return fmt.Errorf("--description: %q is that of the cluster's own token, of which there is one; choose another", description)
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
	cmd.Flags().StringVar(&role, "role", string(join.Agent), "what the token admits: agent or server")
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long the token is valid; 0 is for ever")
	cmd.Flags().StringVar(&description, "description", "", "what the token is for")
	cmd.Flags().BoolVar(&printCommand, "print-join-command", false, "print the command to run on the machine that is to join")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"agent", "server"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func tokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tokens, without their secrets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, _ join.Token) error {
				tokens, err := join.List(ctx, client)
				if err != nil {
					return err
				}
				return writeTokens(os.Stdout, tokens, time.Now())
			})
		},
	}
}

func writeTokens(w io.Writer, tokens []join.Info, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "ID\tROLE\tEXPIRES\tDESCRIPTION")
	for _, i := range tokens {
		expires := "never"
		switch {
		case i.Expired:
			expires = "expired"
		case !i.Expiry.IsZero():
			expires = "in " + age(i.Expiry.Sub(now))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", i.ID, i.Role, expires, printable(i.Description))
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
		Short: "End tokens; nodes that have joined by them stay",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return onServer(cmd, func(ctx context.Context, _ *config.Config, client kubernetes.Interface, _ join.Token) error {
				return deleteTokens(ctx, client, ids)
			})
		},
	}
}

// deleteTokens deletes all it can; one that is not there keeps no other alive.
func deleteTokens(ctx context.Context, client kubernetes.Interface, ids []string) error {
	var errs []error
	for _, id := range ids {
		errs = append(errs, join.Delete(ctx, client, id, time.Now()))
	}
	return errors.Join(errs...)
}

func tokenRotateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate [ID]",
		Short: "Put a new token in the place of one; without ID of the cluster's own",
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
