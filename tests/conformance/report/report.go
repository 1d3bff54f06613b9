// Package report makes of what ginkgo has written about specs that ran a summary for
// people, and the one file that the CNCF asks for.
package report

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Suites is a file as ginkgo writes it.
type Suites struct {
	XMLName  xml.Name `xml:"testsuites"`
	Tests    int      `xml:"tests,attr"`
	Disabled int      `xml:"disabled,attr"`
	Errors   int      `xml:"errors,attr"`
	Failures int      `xml:"failures,attr"`
	Time     float64  `xml:"time,attr"`
	Suites   []Suite  `xml:"testsuite"`
}

// Suite is a run of specs.
type Suite struct {
	Name      string  `xml:"name,attr"`
	Package   string  `xml:"package,attr"`
	Tests     int     `xml:"tests,attr"`
	Disabled  int     `xml:"disabled,attr"`
	Skipped   int     `xml:"skipped,attr"`
	Errors    int     `xml:"errors,attr"`
	Failures  int     `xml:"failures,attr"`
	Time      float64 `xml:"time,attr"`
	Timestamp string  `xml:"timestamp,attr"`
	Cases     []Case  `xml:"testcase"`
}

// Case is a spec, or what is done before and after all of them.
type Case struct {
	Name      string   `xml:"name,attr"`
	Classname string   `xml:"classname,attr"`
	Status    string   `xml:"status,attr"`
	Time      float64  `xml:"time,attr"`
	Skipped   *Message `xml:"skipped,omitempty"`
	Error     *Message `xml:"error,omitempty"`
	Failure   *Message `xml:"failure,omitempty"`
	SystemErr string   `xml:"system-err,omitempty"`
}

// Message is why a spec ended as it did.
type Message struct {
	Message string `xml:"message,attr,omitempty"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

const leaf = "[It] "

// isSpec leaves out what surrounds specs.
func (c Case) isSpec() bool { return strings.HasPrefix(c.Name, leaf) }

// Spec is the name of a spec as it is chosen by.
func (c Case) Spec() string { return strings.TrimPrefix(c.Name, leaf) }

// chosen leaves out the specs that were not asked for, which ginkgo lists too.
func (c Case) chosen() bool {
	return c.Skipped == nil || c.Skipped.Message != "skipped" && c.Skipped.Message != "pending"
}

// Read reads a file of ginkgo's.
func Read(path string) (Suites, error) {
	var s Suites
	data, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("read the results: %w", err)
	}
	if err := xml.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read the results: %s: %w", path, err)
	}
	return s, nil
}

// Specs is the names of those that were asked for.
func (s Suites) Specs() (names []string) {
	for _, suite := range s.Suites {
		for _, c := range suite.Cases {
			if c.isSpec() && c.chosen() {
				names = append(names, c.Spec())
			}
		}
	}
	return names
}

// Merge is several runs in one file, without the specs that were not asked for.
func Merge(all ...Suites) (sum Suites) {
	for _, s := range all {
		for _, suite := range s.Suites {
			suite.Cases = slices.DeleteFunc(slices.Clone(suite.Cases), func(c Case) bool { return !c.chosen() })
			suite.Tests, suite.Disabled, suite.Skipped = len(suite.Cases), 0, 0
			for _, c := range suite.Cases {
				if c.Skipped != nil {
					suite.Skipped++
				}
			}
			sum.Suites = append(sum.Suites, suite)
			sum.Tests += suite.Tests
			sum.Disabled += suite.Skipped
			sum.Errors += suite.Errors
			sum.Failures += suite.Failures
			sum.Time += suite.Time
		}
	}
	return sum
}

// Write writes a file as ginkgo does.
func (s Suites) Write(path string) error {
	data, err := xml.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	return os.WriteFile(path, append([]byte(xml.Header), append(data, '\n')...), 0o644)
}

// Left is specs that were asked for and not run, for one reason.
type Left struct {
	Reason string
	Specs  []string
}

// Summary is what a run is about.
type Summary struct {
	Title string
	Facts [][2]string // lines of a table: what, and its value
	Runs  []Suites
	Left  []Left
}

// count is how specs ended.
type count struct{ passed, failed, skipped, left int }

func (c *count) add(k Case) {
	switch {
	case k.Skipped != nil:
		c.skipped++
	case k.Failure != nil || k.Error != nil:
		c.failed++
	default:
		c.passed++
	}
}

// rate is how many of those that could run have passed.
func (c count) rate() string {
	if c.passed+c.failed == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", float64(c.passed)*100/float64(c.passed+c.failed))
}

// cases is all specs that were asked for, and what failed around them.
func (s Summary) cases() (all []Case) {
	for _, run := range s.Runs {
		for _, suite := range run.Suites {
			for _, c := range suite.Cases {
				if c.isSpec() && c.chosen() || c.Failure != nil || c.Error != nil {
					all = append(all, c)
				}
			}
		}
	}
	return all
}

// Err is nil if specs ran and none failed.
func (s Summary) Err() error {
	var sum count
	for _, c := range s.cases() {
		sum.add(c)
	}
	switch {
	case sum.failed > 0:
		return fmt.Errorf("%d of %d specs failed", sum.failed, sum.passed+sum.failed)
	case sum.passed == 0:
		return fmt.Errorf("no spec has run")
	}
	return nil
}

var sig = regexp.MustCompile(`^\[(sig-[a-z-]+)\]`)

func groupOf(spec string) string {
	if m := sig.FindStringSubmatch(spec); m != nil {
		return m[1]
	}
	return "others"
}

// Markdown is the summary as a page.
func (s Summary) Markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\nWritten by `make conformance`; do not edit.\n\n| | |\n|---|---|\n", s.Title)
	for _, f := range s.Facts {
		fmt.Fprintf(&b, "| %s | %s |\n", f[0], f[1])
	}
	s.table(&b)
	s.failures(&b)
	s.skips(&b)
	return b.Bytes()
}

func (s Summary) table(b *bytes.Buffer) {
	groups, total := map[string]*count{}, &count{}
	of := func(spec string) *count {
		name := groupOf(spec)
		if groups[name] == nil {
			groups[name] = &count{}
		}
		return groups[name]
	}
	for _, c := range s.cases() {
		of(c.Spec()).add(c)
		total.add(c)
	}
	for _, l := range s.Left {
		for _, spec := range l.Specs {
			of(spec).left++
			total.left++
		}
	}
	b.WriteString("\n| Group | Passed | Failed | Skipped by themselves | Not run | Of those that ran |\n|---|---|---|---|---|---|\n")
	line := func(name string, c *count) {
		fmt.Fprintf(b, "| %s | %d | %d | %d | %d | %s |\n", name, c.passed, c.failed, c.skipped, c.left, c.rate())
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		line(name, groups[name])
	}
	line("**all**", total)
}

func (s Summary) failures(b *bytes.Buffer) {
	b.WriteString("\n## Failed\n\n")
	none := true
	for _, c := range s.cases() {
		if m := cmp.Or(c.Failure, c.Error); m != nil {
			none = false
			fmt.Fprintf(b, "- `%s`: %s\n", c.Spec(), firstLine(cmp.Or(m.Message, m.Text)))
		}
	}
	if none {
		b.WriteString("None.\n")
	}
}

// skips lists what did not run by its reason.
func (s Summary) skips(b *bytes.Buffer) {
	reasons := map[string][]string{}
	for _, c := range s.cases() {
		if c.Skipped != nil {
			reason := firstLine(strings.TrimPrefix(c.Skipped.Message, "skipped - "))
			reasons[reason] = append(reasons[reason], c.Spec())
		}
	}
	list := func(title string, reasons map[string][]string) {
		fmt.Fprintf(b, "\n## %s\n\n", title)
		if len(reasons) == 0 {
			b.WriteString("None.\n")
		}
		for _, reason := range slices.Sorted(maps.Keys(reasons)) {
			fmt.Fprintf(b, "- %s\n", reason)
			slices.Sort(reasons[reason])
			for _, spec := range reasons[reason] {
				fmt.Fprintf(b, "  - `%s`\n", spec)
			}
		}
	}
	list("Skipped by themselves", reasons)
	left := map[string][]string{}
	for _, l := range s.Left {
		if len(l.Specs) > 0 {
			left[l.Reason] = append(left[l.Reason], l.Specs...)
		}
	}
	list("Not run", left)
}

func firstLine(text string) string {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		if line = strings.TrimSpace(line); line != "" {
			if r := []rune(line); len(r) > 300 {
				line = string(r[:300]) + "…"
			}
			return line
		}
	}
	return "no reason"
}
