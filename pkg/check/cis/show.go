package cis

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"

	"lite.io/lite/pkg/config"
)

// Totals is how many entries were judged how.
func (r Report) totals() string {
	var counts []string
	for _, s := range Statuses {
		counts = append(counts, fmt.Sprintf("%d %s", r.Totals[s], s))
	}
	return strings.Join(counts, ", ")
}

// section is the entries of one.
func (r Report) section(number string) (all []Result) {
	for _, e := range r.Entries {
		if SectionOf(e.Number) == number {
			all = append(all, e)
		}
	}
	return all
}

// WriteText writes a line for each entry, and below what is no pass what was seen,
// why it matters, and what to do.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	indent := strings.Repeat(" ", len(Inapplicable)+2+len("1.2.30")+2)
	for _, s := range Sections {
		entries := r.section(s.Number)
		if len(entries) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s %s\n", s.Number, s.Title)
		for _, e := range entries {
			fmt.Fprintf(&b, "%-*s  %-6s  %s\n", len(Inapplicable), e.Status, e.Number, e.Title)
			if e.Status == Pass {
				continue
			}
			for _, more := range []struct{ mark, text string }{{"", e.Seen}, {"", e.Reason}, {"→ ", e.Remedy}} {
				if more.text != "" {
					b.WriteString(indent + more.mark + more.text + "\n")
				}
			}
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s, %s, %d entries: %s.\n", r.Benchmark, strings.TrimSpace(string(r.Role)+" "+r.Node), len(r.Entries), r.totals())
	if r.Role == config.Agent {
		b.WriteString("Sections 1, 2, 3 and 5 apply to servers and the cluster: run `lite check --cis` on a server too.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// The form of JUnit, as the programs that read it have it.
type (
	testSuites struct {
		XMLName  xml.Name    `xml:"testsuites"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Suites   []testSuite `xml:"testsuite"`
	}
	testSuite struct {
		Name     string     `xml:"name,attr"`
		Hostname string     `xml:"hostname,attr,omitempty"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Errors   int        `xml:"errors,attr"`
		Skipped  int        `xml:"skipped,attr"`
		Cases    []testCase `xml:"testcase"`
	}
	testCase struct {
		Class   string   `xml:"classname,attr"`
		Name    string   `xml:"name,attr"`
		Failure *testEnd `xml:"failure,omitempty"`
		Error   *testEnd `xml:"error,omitempty"`
		Skipped *testEnd `xml:"skipped,omitempty"`
		Output  string   `xml:"system-out,omitempty"`
	}
	testEnd struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes a suite for each section and a case for each entry. One that fails
// is a failure, one that a program was to judge and could not is an error; what is for
// a person, or not there on a node of lite, is skipped.
func (r Report) WriteJUnit(w io.Writer) error {
	all := testSuites{Name: r.Benchmark}
	for _, s := range Sections {
		suite := testSuite{Name: s.Number + " " + s.Title, Hostname: r.Node}
		for _, e := range r.section(s.Number) {
			c := testCase{Class: "cis-1.12." + s.Number, Name: e.Number + " " + e.Title, Output: e.Seen}
			end := &testEnd{cmp.Or(e.Seen, string(e.Status)),
				strings.Join(slices.DeleteFunc([]string{e.Reason, e.Remedy}, func(s string) bool { return s == "" }), "\n")}
			switch {
			case e.Status == Pass:
			case e.Status == Fail:
				c.Failure = end
				suite.Failures++
			case e.Status == Unknown && e.Kind == Automated:
				c.Error = end
				suite.Errors++
			default:
				end.Message = string(e.Status) + ": " + end.Message
				c.Skipped = end
				suite.Skipped++
			}
			suite.Tests++
			suite.Cases = append(suite.Cases, c)
		}
		if suite.Tests == 0 {
			continue
		}
		all.Tests += suite.Tests
		all.Failures += suite.Failures
		all.Errors += suite.Errors
		all.Skipped += suite.Skipped
		all.Suites = append(all.Suites, suite)
	}
	data, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, xml.Header+string(data)+"\n")
	return err
}
