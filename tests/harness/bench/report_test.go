package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// metric is a line of the table.
type metric struct {
	Name   string  `json:"metric"`
	Unit   string  `json:"unit"`
	AtMost float64 `json:"target,omitempty"` // what we promise; 0: nothing
}

// The lines of the table.
const (
	coldAPI = iota
	coldNode
	coldStatus
	coldPod
	figures
	againAPI
	againNode
	againStatus
	againPod
	stopped
	rssAnon
	rssAnonLater
	rssFile
	rss
	pss
	idleCPU
	podsCPU
	othersCPU
	idleWrites
	shimRSS
	shimPSS
	thirtyPods
	claimed
	addressed
	createRate
	createP99
	decisions
	joined
	agentAnon
	agentRSS
	agentCPU
	batteriesAnon
	batteriesCPU
	batteriesAgentAnon
	batteriesAgentCPU
	hostRate
	nearRate
	farRate
	hostTrip
	nearTrip
	farTrip
	size
	sizePlain
	sizeLong
	count
)

var metrics = [count]metric{
	coldAPI:            {"cold start: API /readyz", "s", 0},
	coldNode:           {"cold start: node Ready", "s", 4},
	coldStatus:         {"cold start: all parts ready (lite status)", "s", 0},
	coldPod:            {"cold start: first pod Running", "s", 5},
	figures:            {"cold start: first figures of kubectl top node", "s", 0},
	againAPI:           {"restart, 10 pods: API /readyz", "s", 0},
	againNode:          {"restart, 10 pods: node Ready, new heartbeat", "s", 3},
	againStatus:        {"restart, 10 pods: all parts ready (lite status)", "s", 3},
	againPod:           {"restart, 10 pods: new pod Running", "s", 0},
	stopped:            {"stop, 10 pods: SIGTERM to exit", "s", 25},
	rssAnon:            {"idle memory: RssAnon", "MB", 190},
	rssAnonLater:       {"idle memory, later: RssAnon", "MB", 190},
	rssFile:            {"idle memory: RssFile", "MB", 0},
	rss:                {"idle memory: VmRSS", "MB", 0},
	pss:                {"idle memory: PSS", "MB", 0},
	idleCPU:            {"idle CPU, no pods", "% of a core", 3},
	podsCPU:            {"idle CPU, 10 pods", "% of a core", 0},
	othersCPU:          {"idle, no pods: CPU of others on the machine", "% of a core", 0},
	idleWrites:         {"idle writes, no pods", "MB/h", 0},
	shimRSS:            {"per pod: shim RSS", "MB", 0},
	shimPSS:            {"per pod: shim PSS", "MB", 0},
	thirtyPods:         {"0 to 30 pods Ready", "s", 0},
	claimed:            {"new claim and pod: Bound, mounted and Running", "s", 2},
	addressed:          {"LoadBalancer Service: create to address", "s", 1},
	createRate:         {"creates, 20 writers of 1 KiB", "1/s", 0},
	createP99:          {"creates: 99th percentile", "ms", 0},
	decisions:          {"joins: certificates decided, 2,000 asked for at once", "1/s", 0},
	joined:             {"agent: exec to node Ready, joining", "s", 3},
	agentAnon:          {"agent: idle RssAnon", "MB", 60},
	agentRSS:           {"agent: idle VmRSS", "MB", 0},
	agentCPU:           {"agent: idle CPU", "% of a core", 0},
	batteriesAnon:      {"batteries: RssAnon that a server has more", "MB", 25},
	batteriesCPU:       {"batteries: idle CPU that a server has more", "% of a core", 0.3},
	batteriesAgentAnon: {"batteries: RssAnon that an agent has more", "MB", 8},
	batteriesAgentCPU:  {"batteries: idle CPU that an agent has more", "% of a core", 0.3},
	hostRate:           {"network: TCP between hosts", "Gbit/s", 0},
	nearRate:           {"network: TCP between pods of a node", "% of that", 0},
	farRate:            {"network: TCP between pods of two nodes", "% of that", 0},
	hostTrip:           {"network: round trip between hosts", "µs", 0},
	nearTrip:           {"network: round trip between pods of a node", "µs", 0},
	farTrip:            {"network: round trip between pods of two nodes", "µs", 0},
	size:               {"size: dist/lite", "MB", 0},
	sizePlain:          {"size: zstd -19", "MB", 60},
	sizeLong:           {"size: zstd -19 --long=27", "MB", 60},
}

// report collects samples.
type report struct {
	version string
	began   time.Time
	samples [count][]float64
	parts   [count]int // of the last sample, see addPart
}

func newReport() *report { return &report{began: time.Now()} }

func (r *report) add(metric int, value float64) {
	r.samples[metric] = append(r.samples[metric], value)
}

// addPart adds one of several values whose mean is a sample.
func (r *report) addPart(metric int, value float64, of int) {
	if r.parts[metric] == 0 {
		r.add(metric, 0)
	}
	r.samples[metric][len(r.samples[metric])-1] += value / float64(of)
	r.parts[metric] = (r.parts[metric] + 1) % of
}

// result is a line of the table with what was measured.
type result struct {
	metric
	Median  float64   `json:"median"`
	Met     *bool     `json:"met,omitempty"`
	Samples []float64 `json:"samples"`
}

func (r *report) results() []result {
	var all []result
	for i, m := range metrics {
		if len(r.samples[i]) == 0 {
			continue
		}
		line := result{metric: m, Median: percentile(r.samples[i], 50), Samples: r.samples[i]}
		if m.AtMost > 0 {
			met := line.Median <= m.AtMost
			line.Met = &met
		}
		all = append(all, line)
	}
	return all
}

// write prints the table and writes the file.
func (r *report) write(w io.Writer, path string, complete bool) error {
	document := struct {
		Version   string    `json:"version"`
		Kernel    string    `json:"kernel"`
		Cores     int       `json:"cores"`
		MemoryMB  float64   `json:"memoryMB"`
		Date      time.Time `json:"date"`
		Runs      int       `json:"runs"`
		Settle    string    `json:"settle"`
		Window    string    `json:"window"`
		Later     string    `json:"later,omitempty"`
		PodsImage string    `json:"podsImage"`
		Complete  bool      `json:"complete"`
		Results   []result  `json:"results"`
	}{
		Version: r.version, Kernel: kernel(), Cores: runtime.NumCPU(), MemoryMB: math.Round(machineMemory()), Date: r.began.UTC(),
		Runs: flags.runs, Settle: flags.settle.String(), Window: flags.window.String(),
		PodsImage: podSpec().Containers[0].Image, Complete: complete, Results: r.results(),
	}
	if flags.later > 0 {
		document.Later = flags.later.String()
	}

	fmt.Fprintf(w, "\nlite %s, %d cores, %.0f MB, Linux %s, %s\nmedian of %d runs; idle is %s after the start, CPU and writes over %s\n",
		document.Version, document.Cores, document.MemoryMB, document.Kernel, document.Date.Format(time.RFC3339),
		document.Runs, document.Settle, document.Window)
	if !complete {
		fmt.Fprintln(w, "INCOMPLETE: a run has failed")
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(t, "| metric\t| value\t| unit\t| target\t| met?\t|\n|---\t|---\t|---\t|---\t|---\t|")
	for _, line := range document.Results {
		target, met := "", ""
		if line.Met != nil {
			target, met = fmt.Sprintf("≤ %g", line.AtMost), "no"
			if *line.Met {
				met = "yes"
			}
		}
		fmt.Fprintf(t, "| %s\t| %s\t| %s\t| %s\t| %s\t|\n", line.Name, digits(line.Median), line.Unit, target, met)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	content, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(content, '\n'), 0o644)
}

// digits writes as many as mean something.
func digits(v float64) string {
	switch {
	case v >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 20:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64) // a time of 3.004 s does not meet 3 s
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(u.Release[:])
}

// machineMemory returns it in MB.
func machineMemory() float64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return float64(info.Totalram) * float64(info.Unit) / mb
}

// percentile returns the value that p % of the values do not exceed; the median
// of an even number is the mean of the two in the middle.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); p == 50 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

func TestPercentile(t *testing.T) {
	for _, test := range []struct {
		values  []float64
		p, want float64
	}{
		{[]float64{7}, 50, 7},
		{[]float64{7}, 99, 7},
		{[]float64{3, 1, 2}, 50, 2},
		{[]float64{4, 1, 3, 2}, 50, 2.5},
		{[]float64{3, 1, 2}, 99, 3},
	} {
		if got := percentile(test.values, test.p); got != test.want {
			t.Errorf("%v%% of %v: got %v, want %v", test.p, test.values, got, test.want)
		}
	}
}

func TestReport(t *testing.T) {
	r := newReport()
	r.add(coldNode, 5)
	r.add(coldNode, 3)
	r.add(coldNode, 4)
	for range 2 { // runs
		for _, v := range []float64{1, 2, 6} {
			r.addPart(shimRSS, v, 3)
		}
	}
	var out strings.Builder
	if err := r.write(&out, t.TempDir()+"/bench.json", true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`node Ready +\| 4.000 +\| s +\| ≤ 4 +\| yes`, `shim RSS +\| 3.000 +\| MB +\| +\| +\|`} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if got := r.samples[shimRSS]; len(got) != 2 {
		t.Errorf("two runs make %d samples", len(got))
	}
}
