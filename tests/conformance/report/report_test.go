package report

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// As e2e.test of 1.37 writes it.
const parallel = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="6" disabled="3" errors="0" failures="1" time="61.5">
  <testsuite name="Kubernetes e2e suite" package="/" tests="6" disabled="0" skipped="3" errors="0" failures="1" time="61.5" timestamp="2026-11-29T00:00:00">
    <properties><property name="DryRun" value="false"></property></properties>
    <testcase name="[SynchronizedBeforeSuite]" classname="Kubernetes e2e suite" status="passed" time="1"></testcase>
    <testcase name="[It] [sig-apps] Deployment should run [Conformance]" classname="Kubernetes e2e suite" status="passed" time="9.5"></testcase>
    <testcase name="[It] [sig-apps] Deployment should fail [Conformance]" classname="Kubernetes e2e suite" status="failed" time="20"><failure message="" type="failed">[FAILED] pod &lt;x&gt; never ran&#xA;In [It] at: deployment.go:1</failure><system-err>&gt; a long story</system-err></testcase>
    <testcase name="[It] [sig-storage] Volumes NFS should mount" classname="Kubernetes e2e suite" status="skipped" time="0"><skipped message="skipped"></skipped></testcase>
    <testcase name="[It] [sig-network] Services on a cloud" classname="Kubernetes e2e suite" status="skipped" time="0.2"><skipped message="skipped - Only supported for providers [gce] (not skeleton)"></skipped></testcase>
    <testcase name="[It] [sig-node] not yet" classname="Kubernetes e2e suite" status="pending" time="0"><skipped message="pending"></skipped></testcase>
  </testsuite>
</testsuites>`

const serial = `<testsuites tests="1" disabled="0" errors="0" failures="0" time="5"><testsuite name="Kubernetes e2e suite" package="/" tests="1" disabled="0" skipped="0" errors="0" failures="0" time="5" timestamp="2026-11-29T01:00:00">
<testcase name="[It] [sig-scheduling] alone [Serial] [Conformance]" classname="Kubernetes e2e suite" status="passed" time="5"></testcase></testsuite></testsuites>`

func read(t *testing.T, text string) Suites {
	t.Helper()
	path := filepath.Join(t.TempDir(), "junit_01.xml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSpecsAreThoseThatWereChosen(t *testing.T) {
	want := []string{"[sig-apps] Deployment should run [Conformance]", "[sig-apps] Deployment should fail [Conformance]", "[sig-network] Services on a cloud"}
	if got := read(t, parallel).Specs(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestMergedFileHasAllThatRan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "merged.xml")
	if err := Merge(read(t, parallel), read(t, serial)).Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Suites) != 2 || got.Tests != 5 || got.Failures != 1 || got.Disabled != 1 || got.Time != 66.5 || len(got.Specs()) != 4 {
		t.Errorf("got %+v", got)
	}
	if f := got.Suites[0].Cases[2].Failure; f == nil || !strings.Contains(f.Text, "pod <x> never ran\nIn [It]") {
		t.Errorf("the failure is %+v", f)
	}
}

func TestSummary(t *testing.T) {
	s := Summary{
		Title: "Results", Facts: [][2]string{{"Kubernetes", "v1.37.2"}},
		Runs: []Suites{read(t, parallel), read(t, serial)},
		Left: []Left{{"the image cannot be made", []string{"[sig-storage] Volumes NFS should mount"}}, {"nobody needs this one", nil}},
	}
	page := string(s.Markdown())
	for _, want := range []string{
		"# Results\n", "| Kubernetes | v1.37.2 |",
		"| sig-apps | 1 | 1 | 0 | 0 | 50.0 % |", "| sig-network | 0 | 0 | 1 | 0 | – |", "| sig-storage | 0 | 0 | 0 | 1 | – |",
		"| **all** | 2 | 1 | 1 | 1 | 66.7 % |",
		"- `[sig-apps] Deployment should fail [Conformance]`: [FAILED] pod <x> never ran\n",
		"- Only supported for providers [gce] (not skeleton)\n  - `[sig-network] Services on a cloud`\n",
		"- the image cannot be made\n  - `[sig-storage] Volumes NFS should mount`\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "nobody needs") || strings.Contains(page, "not yet") {
		t.Errorf("the page tells of what was not asked for:\n%s", page)
	}
	if err := s.Err(); err == nil || err.Error() != "1 of 3 specs failed" {
		t.Errorf("got %v", err)
	}
}

// A run of nothing proves nothing.
func TestErr(t *testing.T) {
	for want, text := range map[string]string{
		"":                    "" + serial,
		"no spec has run":     `<testsuites><testsuite name="x"><testcase name="[It] a" status="skipped"><skipped message="skipped"></skipped></testcase></testsuite></testsuites>`,
		"1 of 1 specs failed": `<testsuites><testsuite name="x"><testcase name="[SynchronizedBeforeSuite]" status="failed"><failure type="failed">nodes are not ready</failure></testcase></testsuite></testsuites>`,
	} {
		err := Summary{Runs: []Suites{read(t, text)}}.Err()
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
