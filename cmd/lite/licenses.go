package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"lite.io/lite/pkg/licenses"
)

func licensesCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "licenses [name]",
		Short: "List the software in lite and its licenses",
		Long: `List the software in this binary and in the programs that it contains, with versions,
SPDX expressions, and the programs that each is part of. With a name, print the
license and notices of that software, and where to find its source.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := licenses.All()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return showLicense(os.Stdout, all, args[0])
			}
			return listLicenses(os.Stdout, all, output)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			all, err := licenses.All()
			if err != nil || len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			for _, c := range all {
				names = append(names, c.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func listLicenses(w io.Writer, all []licenses.Component, output string) error {
	switch output {
	case "json":
		return writeJSON(w, all)
	case "table":
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tVERSION\tLICENSE\tIN")
		for _, c := range all {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", c.Name, c.Version, c.SPDX, strings.Join(c.In, ","))
		}
		return t.Flush()
	}
	return fmt.Errorf("--output %q: must be table or json", output)
}

func showLicense(w io.Writer, all []licenses.Component, name string) error {
	c, err := licenses.Find(all, name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s %s\nLicense: %s\nSource: %s\n\n%s", c.Name, c.Version, c.SPDX, c.Source, c.Text())
	return err
}
