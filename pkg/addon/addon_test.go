package addon

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/layout"
)

// The table has each name once, as a name or an alias, and needs, ports and marks that there are.
func TestTable(t *testing.T) {
	var words []string
	var ports []int
	for _, b := range All() {
		words = append(words, string(b.Name))
		if b.Alias != "" {
			words = append(words, b.Alias)
		}
		for _, need := range b.Needs {
			if !slices.Contains(Names(), string(need)) {
				t.Errorf("%s needs %s, which is no battery", b.Name, need)
			}
		}
		if len(b.Server)+len(b.Node) == 0 {
			t.Errorf("%s has no component", b.Name)
		}
		for _, p := range b.Ports {
			ports = append(ports, p)
			if !slices.ContainsFunc(layout.Ports(), func(l layout.Port) bool { return l.Number == p }) {
				t.Errorf("%s has port %d, which is not in the layout", b.Name, p)
			}
		}
		for _, m := range b.Marks {
			if !strings.HasPrefix(m, layout.Domain+"/") {
				t.Errorf("%s marks nodes with %s, which is not lite's", b.Name, m)
			}
		}
	}
	slices.Sort(words)
	slices.Sort(ports)
	if len(slices.Compact(slices.Clone(words))) != len(words) || len(slices.Compact(slices.Clone(ports))) != len(ports) {
		t.Errorf("something is there twice: %q, %v", words, ports)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Name{
		"dns": DNS, "coredns": DNS, "metrics": Metrics, "metrics-server": Metrics, "local-storage": Storage, "servicelb": LoadBalancer,
		"networkpolicy": NetworkPolicy, "kube-proxy": KubeProxy, "cni": CNI,
		"": "", "traefik": "", "runtimes": "", "DNS": "", "dns ": "", "lights": "", "network": "", // a component
	} {
		got, known := Parse(text)
		if got != want || known != (want != "") {
			t.Errorf("%q: got %q, %t", text, got, known)
		}
	}
}

func TestDisabled(t *testing.T) {
	for _, c := range []struct {
		disabled Disabled
		has      []Name
		frees    []int
		marks    []string
	}{
		{nil, nil, nil, nil},
		{Disabled{}, nil, nil, nil},
		{Disabled{DNS}, []Name{DNS}, []int{layout.DNSPort, layout.DNSMetricsPort}, nil},
		{Disabled{NetworkPolicy}, []Name{NetworkPolicy}, nil, nil},
		// Another network plugin enforces policies, or nobody does.
		{Disabled{CNI}, []Name{NetworkPolicy, CNI}, []int{layout.VXLANPort, layout.WireGuardPort}, []string{layout.OverlayAnnotation}},
		{Disabled{KubeProxy, Metrics}, []Name{Metrics, KubeProxy},
			[]int{layout.MetricsPort, layout.ProxyMetricsPort, layout.ProxyHealthPort}, nil},
		{Disabled{Storage, Storage}, []Name{Storage}, nil, []string{layout.StoragePathAnnotation, layout.StorageLabel}},
		// A server of another version may have batteries that this one does not have.
		{Disabled{"gateway", LoadBalancer}, []Name{LoadBalancer}, nil, nil},
	} {
		var has []Name
		for _, b := range All() {
			if c.disabled.Has(b.Name) {
				has = append(has, b.Name)
			}
		}
		var frees []int
		for _, p := range layout.Ports() {
			if c.disabled.Frees(p.Number) && !slices.Contains(frees, p.Number) {
				frees = append(frees, p.Number)
			}
		}
		slices.Sort(frees)
		slices.Sort(c.frees)
		if marks := c.disabled.Marks(); !slices.Equal(has, c.has) || !slices.Equal(frees, c.frees) || !slices.Equal(marks, c.marks) {
			t.Errorf("%q: disabled are %q, no ports %v, no marks %q", c.disabled, has, frees, marks)
		}
	}
	if !(Disabled{"gateway"}).Has("gateway") {
		t.Error("a battery that is not in the table cannot be disabled")
	}
}

// Nodes of other versions read and write the list as texts.
func TestDisabledOnTheWire(t *testing.T) {
	text, err := json.Marshal(Disabled{DNS, CNI})
	if err != nil || string(text) != `["dns","cni"]` {
		t.Errorf("got %s, %v", text, err)
	}
	var d Disabled
	if err := json.Unmarshal([]byte(`["cni","gateway"]`), &d); err != nil || !d.Has(NetworkPolicy) || !d.Has("gateway") {
		t.Errorf("got %q, %v", d, err)
	}
}

// TestEachIsDocumented wants each row in the documents: what it is called, what disabling it means, which components
// it has and what uninstall removes of it.
func TestEachIsDocumented(t *testing.T) {
	components := section(t, "troubleshooting.md", "")
	for _, b := range All() {
		name := string(b.Name)
		page, anchor, _ := strings.Cut(b.Page, "#")
		entry := bullet(section(t, "configuration.md", "components-that-you-can-disable"), name)
		if entry == "" {
			t.Errorf("docs/configuration.md does not list %s", name)
		}
		if page != "configuration.md" {
			if !strings.Contains(entry, "]("+page) {
				t.Errorf("docs/configuration.md does not lead from %s to %s: %s", name, page, entry)
			}
			if !regexp.MustCompile(`--disable[= ]` + name + "\\b").MatchString(section(t, page, anchor)) {
				t.Errorf("docs/%s does not say what --disable %s does", b.Page, name)
			}
		}
		for _, need := range b.Needs {
			if !strings.Contains(entry, "`"+string(need)+"`") {
				t.Errorf("docs/configuration.md does not say that %s needs %s", name, need)
			}
		}
		if b.Alias != "" && !strings.Contains(section(t, "from-k3s.md", ""), "| `--disable "+b.Alias+"` | same") {
			t.Errorf("docs/from-k3s.md does not have --disable %s", b.Alias)
		}
		for _, c := range slices.Concat(b.Server, b.Node) {
			if !regexp.MustCompile("(?m)^\\| (`[a-z-]+`, )*`" + c + "`").MatchString(components) {
				t.Errorf("docs/troubleshooting.md does not have the component %s", c)
			}
		}
		for _, left := range b.Leaves {
			if !strings.Contains(section(t, "uninstall.md", ""), "`"+left) && !strings.Contains(section(t, "uninstall.md", ""), " "+left+"`") {
				t.Errorf("docs/uninstall.md does not have %s of %s", left, name)
			}
		}
	}
}

// TestManifestsAreOfBatteries wants each file to be of a battery, and its roles to be documented.
func TestManifestsAreOfBatteries(t *testing.T) {
	files, err := filepath.Glob("../../manifests/batteries/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	role := regexp.MustCompile(`(?m)^kind: (?:Cluster)?Role\nmetadata:\n  name: (\S+)`)
	for _, f := range files {
		name, yaml := strings.CutSuffix(filepath.Base(f), ".yaml")
		if !yaml || !slices.Contains(Names(), name) {
			t.Errorf("%s is not of a battery: nothing would remove its objects", f)
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range role.FindAllStringSubmatch(string(text), -1) {
			row := regexp.MustCompile("(?m)^\\| `" + m[1] + "` \\|.*manifests/batteries/" + name + "\\.yaml")
			if !row.MatchString(section(t, "security.md", "")) {
				t.Errorf("docs/security.md does not have %s of %s", m[1], f)
			}
		}
	}
}

// section is that of a page of the docs below the heading of an anchor; "" = the page.
func section(t *testing.T, page, anchor string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	if anchor == "" {
		return string(text)
	}
	for part := range strings.SplitSeq(string(text), "\n## ") {
		heading, below, _ := strings.Cut(part, "\n")
		if strings.ReplaceAll(strings.ToLower(heading), " ", "-") == anchor {
			return below
		}
	}
	t.Errorf("docs/%s has no heading #%s", page, anchor)
	return ""
}

// bullet is the item of a list about a name.
func bullet(list, name string) string {
	_, entry, _ := strings.Cut(list, "\n- `"+name+"`: ")
	entry, _, _ = strings.Cut(entry, "\n- ")
	entry, _, _ = strings.Cut(entry, "\n\n")
	return entry
}
