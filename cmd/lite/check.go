package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lite.io/lite/pkg/check"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/version"
)

// checkOptions is what `lite check` is told.
type checkOptions struct {
	role, output string
	nodes        []string
	fix, strict  bool
	cis          bool
}

func checkCommand() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check whether this machine can run lite",
		Long: `Check this machine, before you install lite and while it runs. The report has one line
per check: pass, warn, fail or skip, what was found, and how to fix it.

The command takes the flags of ` + "`lite server`" + ` (or, with --role agent, those of ` + "`lite agent`" + `),
reads the same files and variables, and changes nothing. To measure the disk, it writes
for at most 2 s to an unnamed file in the data directory; to test the kernel, it uses a
network namespace of its own. Without root, the report shows what could not be checked.

  lite check                                         as configured
  lite check --role agent --server https://host:` + layout.APIPortText + `
  lite check --fix                                   fix what can be fixed safely

--fix adds rules to firewalld, ufw, iptables or nftables, raises the inotify limits,
and tells NetworkManager to ignore the interfaces of pods. It prints each change and
how to undo it; ` + "`lite uninstall`" + ` undoes it too.

The exit code is 1 if a check fails (with --strict, also if one warns), otherwise 0.

--cis checks this node against the CIS Kubernetes Benchmark 1.12 instead. It looks at
the settings of the running lite, at files, and at the objects of the cluster. The result
of each entry is pass, fail, manual (you decide; the report shows what it found), not
applicable, or unknown (it could not be checked, for example because lite does not run).
On an agent it checks section 4. It needs root. The exit code is 1 if an entry fails, or
if one that the benchmark calls automated is unknown, otherwise 0.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if o.cis {
				return runCIS(ctx, os.Stdout, cmd.Flags(), o)
			}
			return runCheck(ctx, os.Stdout, cmd.Flags(), o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.role, "role", "", "server or agent (default: the role of this machine, otherwise server)")
	f.StringVarP(&o.output, "output", "o", "table", "table or json; with --cis also junit")
	f.StringSliceVar(&o.nodes, "nodes", nil, "networks of the other nodes, for firewall rules (default: the network of this node's address)")
	f.BoolVar(&o.fix, "fix", false, "fix what can be fixed safely, then check again")
	f.BoolVar(&o.strict, "strict", false, "exit with 1 for warnings too")
	f.BoolVar(&o.cis, "cis", false, "check this node against the CIS Kubernetes Benchmark")
	f.AddFlagSet(config.Flags(config.Agent))
	f.AddFlagSet(config.Flags(config.Server)) // those that are not there yet
	fixed := func(values ...string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	}
	_ = cmd.RegisterFlagCompletionFunc("output", fixed("table", "json", "junit"))
	_ = cmd.RegisterFlagCompletionFunc("role", fixed("server", "agent"))
	return cmd
}

func runCheck(ctx context.Context, w io.Writer, flags *pflag.FlagSet, o checkOptions) error {
	if o.output != "table" && o.output != "json" {
		return fmt.Errorf("--output %q: must be table or json", o.output)
	}
	machine := check.This()
	subject, err := checkSubject(machine, flags, o)
	if err != nil {
		return err
	}
	if o.fix && machine.UID != 0 {
		return errors.New("--fix: needs root; run `sudo lite check --fix`")
	}
	report := check.Run(ctx, machine, subject)
	var failed error
	if o.fix {
		change, err := service.BeginChange(ctx, printLine, string(layout.Default().Config))
		if err != nil {
			return err
		}
		defer change.Close()
		// A firewall may take seconds for each rule.
		progress := func(check.Done) {}
		if o.output == "table" {
			progress = func(d check.Done) { writeDone(w, d) }
		}
		done := check.Fix(ctx, machine, report, progress)
		failed = check.FixErr(done)
		if o.output == "table" && len(done) == 0 {
			fmt.Fprintln(w, "There is nothing for --fix to do.")
		}
		if o.output == "table" {
			fmt.Fprintln(w)
		}
		if len(done) > 0 {
			report = check.Run(ctx, machine, subject)
			report.Fixed = done
		}
	}
	if ctx.Err() != nil {
		return errors.New("stopped")
	}
	if o.output == "json" {
		err = writeJSON(w, report)
	} else {
		err = writeReport(w, report)
	}
	switch {
	case err != nil:
		return err
	case failed != nil:
		return fmt.Errorf("--fix: %w", failed)
	case report.Result == check.Fail || o.strict && report.Result == check.Warn:
		return log.Shown(errors.New("some checks failed"))
	}
	return nil
}

// checkSubject is what to look for. What is wrong with the configuration is one of
// the things that are found.
func checkSubject(m *check.Machine, flags *pflag.FlagSet, o checkOptions) (check.Subject, error) {
	s := check.Subject{Version: version.Version(), Built: version.Built(), Role: config.Role(o.role)}
	switch s.Role {
	case config.Server, config.Agent:
	case "":
		n := check.Here(m, flags)
		s.Role, s.Because = n.Role, n.Why
	default:
		return s, fmt.Errorf("--role %q: must be server or agent", o.role)
	}
	for _, text := range o.nodes {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return s, fmt.Errorf("--nodes %q: must be a network such as 192.0.2.0/24", text)
		}
		s.Nodes = append(s.Nodes, p.Masked())
	}
	var foreign error
	known := config.Flags(s.Role)
	flags.Visit(func(f *pflag.Flag) {
		ours := slices.Contains([]string{"role", "output", "nodes", "fix", "strict", "cis"}, f.Name)
		if !ours && known.Lookup(f.Name) == nil && foreign == nil {
			foreign = fmt.Errorf("--%s is not for a node of role %s: leave it out, or set another --role", f.Name, s.Role)
		}
	})
	if foreign != nil {
		return s, foreign
	}
	if file := flags.Lookup("config").DefValue; m.UID != 0 && !flags.Changed("config") && os.Getenv("LITE_CONFIG") == "" {
		s.Unread = config.Unreadable(file)
	}
	if s.Unread != "" {
		s.Config, s.Wrong = config.LoadWithoutFiles(s.Role, flags, os.Environ())
		return s, nil
	}
	s.Config, s.Wrong = config.Load(s.Role, flags, os.Environ())
	if s.Config != nil && m.UID == 0 {
		s.Refused = check.Arguments(s.Config)
	}
	return s, nil
}

// writeDone shows what --fix has done.
func writeDone(w io.Writer, d check.Done) {
	if d.Error != "" {
		fmt.Fprintf(w, "could not  %s: %s\n", d.Did, d.Error)
		return
	}
	fmt.Fprintf(w, "done       %s\n           undo: %s\n", d.Did, d.Undo)
}

// writeReport shows a line for each finding, and below it what to do.
func writeReport(w io.Writer, r check.Report) error {
	var b strings.Builder
	width, count, fixable := 0, map[check.Status]int{}, 0
	for _, c := range r.Checks {
		width = max(width, len(c.Name))
		count[c.Status]++
		if c.Fixable {
			fixable++
		}
	}
	indent := strings.Repeat(" ", len("pass")+2+width+2)
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-4s  %-*s  %s\n", c.Status, width, c.Name, c.Found)
		if c.Remedy != "" {
			b.WriteString(indent + "→ " + c.Remedy + "\n")
		}
		for _, command := range c.Commands {
			b.WriteString(indent + "  # " + command + "\n")
		}
	}
	fmt.Fprintf(&b, "\n%s: %d pass, %d warn, %d fail, %d skipped.", r.Role, count[check.Pass], count[check.Warn], count[check.Fail], count[check.Skip])
	if fixable > 0 {
		fmt.Fprintf(&b, " `lite check --fix` can fix %d.", fixable)
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}
