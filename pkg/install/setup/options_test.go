package setup

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Words are taken apart as xargs does it, by which install.sh did it once.
func TestSplit(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "[]",
		" \t\n":                               "[]",
		"server --disable metrics":            `["server" "--disable" "metrics"]`,
		"\tserver\n  --a  ":                   `["server" "--a"]`,
		`--label "a b"`:                       `["--label" "a b"]`,
		`--label='a "b" $c'`:                  `["--label=a \"b\" $c"]`,
		`a\ b \" \\`:                          `["a b" "\"" "\\"]`,
		`"a\b"`:                               `["a\\b"]`,
		`'' ""`:                               `["" ""]`,
		`--kubelet-arg eviction-hard=a<1%;b&`: `["--kubelet-arg" "eviction-hard=a<1%;b&"]`,
		`"open`:                               "error",
		`it's`:                                "error",
		`end\`:                                "error",
	} {
		words, err := split(text)
		got := fmt.Sprintf("%q", words)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(`a "b c" d\ e`)
	f.Fuzz(func(t *testing.T, text string) {
		words, err := split(text)
		if err != nil {
			return
		}
		for i, word := range words {
			words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		if again, err := split(strings.Join(words, " ")); err != nil || len(again) != len(words) {
			t.Errorf("%q is %q and then %q, %v", text, words, again, err)
		}
	})
}

func TestOptions(t *testing.T) {
	const token = "LITE_TOKEN=a"
	for _, c := range []struct {
		before string // the drop-in
		env    []string
		args   []string
		want   string
	}{
		{"", nil, nil, "server [] false"},
		{"", []string{"LITE_URL=https://a"}, nil, "agent [] false"},
		{"", []string{"LITE_URL="}, nil, "server [] false"},
		{"", []string{"LITE_URL=https://a"}, []string{"server", "--x"}, "server [--x] false"},
		{"", []string{"INSTALL_LITE_EXEC=agent --a"}, []string{"--b"}, "agent [--a --b] false"},
		{"", nil, []string{"--x", "y"}, "server [--x y] false"},
		{"# role: agent\n", nil, nil, "agent [] true"},
		{"# role: agent\n", []string{"LITE_TOKEN="}, nil, "agent [] true"},
		{"# role: agent\n", []string{token}, nil, "server [] false"},
		{"# role: agent\n", nil, []string{"--x"}, "server [--x] false"},
		{"# role: both\n", nil, nil, "does not contain the role of this node"},
		{"", nil, []string{"sever"}, "neither server nor agent"},
		{"", []string{"INSTALL_LITE_BIN_DIR=bin"}, nil, "must be an absolute path"},
		{"", []string{"INSTALL_LITE_BIN_DIR=//"}, nil, "must be a path such as"},
		{"", []string{"INSTALL_LITE_BIN_DIR=/a/../b"}, nil, "must be a path such as"},
		{"", []string{"INSTALL_LITE_BIN_DIR=/a b"}, nil, "must consist of letters"},
		{"", []string{"INSTALL_LITE_SKIP_START=maybe"}, nil, "must be true or false"},
		{"", []string{"K3S_TOKEN=a"}, nil, "server [] false"},
	} {
		b := newBed(t)
		if c.before != "" {
			b.put(t, installFile, c.before, 0o600)
		}
		r := b.request
		r.Env, r.Args = c.env, c.args
		s := &setup{Request: r, machine: b.machine}
		err := s.parse()
		if got := fmt.Sprint(s.options.role, " ", s.options.args, " ", s.options.keep); err == nil && got != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %v %v: got %s, %v, want %s", c.before, c.env, c.args, got, err, c.want)
		}
		if warned := strings.Contains(b.out.String(), "LITE_TOKEN"); warned != (len(c.env) > 0 && strings.HasPrefix(c.env[0], "K3S")) {
			t.Errorf("%v: %s", c.env, b.out.String())
		}
	}
}

// The script refuses the variables that there are not before it fetches anything, and hands the others over.
func TestVariablesOfTheScript(t *testing.T) {
	script, err := os.ReadFile("../../../scripts/install.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(variables(), scriptVariables()...) {
		if !strings.Contains(string(script), "\n  "+prefix+name+" ") {
			t.Errorf("the help of install.sh does not have %s%s", prefix, name)
		}
	}
	if n := strings.Count(string(script), "\n  "+prefix); n != len(variables())+len(scriptVariables()) {
		t.Errorf("the help of install.sh has %d variables", n)
	}
	if n := strings.Count(string(script), "\n"); n > 350 {
		t.Errorf("install.sh has %d lines: what comes after a lite is verified belongs here", n)
	}
}
