package status

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"lite.io/lite/pkg/component"
)

// WriteText writes tables for a person.
func (n Node) WriteText(w io.Writer, now time.Time) error {
	fmt.Fprintf(w, "%s %s, lite %s, pid %d, up %s\n\n", n.Role, n.Name, n.Version, n.PID, Age(now.Sub(n.Since)))
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "COMPONENT\tSTATE\tSINCE\tTOOK\tNOTE")
	for _, c := range n.Components {
		took := "-"
		if c.State == component.Ready {
			took = fmt.Sprintf("%.2f s", c.Took)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", c.Name, c.State, Age(now.Sub(c.Since)), took, strings.ReplaceAll(c.Reason+c.Note, "\n", " "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(n.Certificates) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(t, "CERTIFICATE\tSTATE\tUNTIL\tREMEDY")
		for _, c := range n.Certificates {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", c.Path, c.State, c.Until.UTC().Format(time.RFC3339), c.Remedy)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(n.Members) > 0 {
		fmt.Fprintln(w)
		if err := WriteMembers(w, n.Members, n.Quorum); err != nil {
			return err
		}
	}
	if len(n.Servers) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	fmt.Fprintln(t, "SERVER\tSTATE\tSINCE\tIN USE\tREASON")
	for _, s := range n.Servers {
		used := ""
		if s.InUse {
			used = "yes, " + Age(now.Sub(s.UsedSince))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.Address, s.State, Age(now.Sub(s.Since)), used, strings.ReplaceAll(s.Reason, "\n", " "))
	}
	return t.Flush()
}

// WriteMembers writes a table of members, and what follows from it.
func WriteMembers(w io.Writer, all []Member, quorum string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "MEMBER\tROLE\tSTATE\tBEHIND\tREASON")
	for _, m := range all {
		state, behind := "up", "unknown"
		if !m.Reachable {
			state = "unreachable"
		}
		if m.Behind != nil {
			behind = fmt.Sprint(*m.Behind)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.Role, state, behind, strings.ReplaceAll(m.Reason, "\n", " "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "Quorum: "+quorum)
	return err
}

// Age is a duration in the two units that matter.
func Age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
