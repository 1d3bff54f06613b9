package netfilter

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"lite.io/lite/pkg/layout"
)

// tryTimeout is far above what any of the programs takes, even with thousands of rules.
const tryTimeout = 20 * time.Second

var (
	nftVersion      = regexp.MustCompile(`^nftables v(\d+\.\d+(?:\.\d+)?)`)
	iptablesVersion = regexp.MustCompile(`^ip6?tables v(\d+\.\d+(?:\.\d+)?)(?: \((\w+)\))?`)
)

// The oldest versions that will do.
const (
	oldestNFT         = "1.0.1" // kube-proxy's and CNI's need (knftables 0.0.21)
	oldestIPTables    = "1.6.2" // --random-fully
	oldestIPTablesNFT = "1.8.5" // before that this kind lost and doubled rules
)

// trial is what Services and policies are made of. It is checked by the kernel and then thrown away.
const trial = `add table ip ` + layout.TrialTable + `
add set ip ` + layout.TrialTable + ` ips { type ipv4_addr . inet_proto . inet_service ; comment "set" ; }
add map ip ` + layout.TrialTable + ` services { type ipv4_addr . inet_proto . inet_service : verdict ; }
add chain ip ` + layout.TrialTable + ` to { type nat hook prerouting priority -100 ; }
add chain ip ` + layout.TrialTable + ` from { type nat hook postrouting priority 100 ; }
add rule ip ` + layout.TrialTable + ` to ip daddr . meta l4proto . th dport vmap @services
add rule ip ` + layout.TrialTable + ` to fib daddr type local meta l4proto tcp ` +
	`dnat to numgen random mod 2 map { 0 : 192.0.2.1 . 80 , 1 : 192.0.2.2 . 80 }
add rule ip ` + layout.TrialTable + ` from mark and 0x4000 != 0 masquerade fully-random
`

// tryNFT reports what the program is, or why it will not do.
func tryNFT(ctx context.Context, program string) (Tool, error) {
	path, err := find(program)
	if err != nil {
		return Tool{}, err
	}
	out, err := run(ctx, "", path, "--version")
	if err != nil {
		return Tool{}, err
	}
	version, err := parseVersion(path, nftVersion, out, oldestNFT)
	if err != nil {
		return Tool{}, err
	}
	// There are builds without JSON.
	out, err = run(ctx, "", path, "--json", "list", "tables")
	if err != nil {
		return Tool{}, err
	}
	if !json.Valid([]byte(out)) {
		return Tool{}, fmt.Errorf("%s --json does not print JSON", path)
	}
	if _, err := run(ctx, trial, path, "--check", "-f", "-"); err != nil {
		return Tool{}, err
	}
	return Tool{Source: Machine, Path: path, Version: version[1]}, nil
}

// tryIPTables reports what the programs are, or why they will not do.
func tryIPTables(ctx context.Context, ipv6 bool) (Tool, error) {
	programs := []string{"iptables"}
	if ipv6 {
		programs = append(programs, "ip6tables")
	}
	var first Tool
	for _, program := range programs {
		t, err := tryFamily(ctx, program)
		if err != nil {
			return t, err
		}
		if first.Path == "" {
			first = t
		}
		if t.Kind != first.Kind {
			return t, fmt.Errorf("%s and %s write to different interfaces of the kernel", first.Path, t.Path)
		}
	}
	return first, nil
}

func tryFamily(ctx context.Context, program string) (Tool, error) {
	path, err := find(program)
	if err != nil {
		return Tool{}, err
	}
	for _, suffix := range []string{"-save", "-restore"} {
		if _, err := find(program + suffix); err != nil {
			return Tool{}, err
		}
	}
	out, err := run(ctx, "", path, "--version")
	if err != nil {
		return Tool{}, err
	}
	version, err := parseVersion(path, iptablesVersion, out, oldestIPTables)
	if err != nil {
		return Tool{}, err
	}
	kind := KindLegacy
	if version[2] == "nf_tables" {
		kind = KindNFT
		if _, err := parseVersion(path, iptablesVersion, out, oldestIPTablesNFT); err != nil {
			return Tool{}, err
		}
	}
	for _, chain := range [][2]string{{"filter", "FORWARD"}, {"nat", "POSTROUTING"}} {
		if _, err := run(ctx, "", path, "-w", "5", "-t", chain[0], "-S", chain[1]); err != nil {
			return Tool{}, err
		}
	}
	return Tool{Source: Machine, Path: path, Version: version[1], Kind: kind}, nil
}

// find is LookPath with an error for people.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("the machine has no %s", program)
	}
	if err != nil {
		return "", fmt.Errorf("find %s: %w", program, err)
	}
	return path, nil
}

// run runs a program and returns what it printed; the error has the first line of what it complained of.
func run(ctx context.Context, input, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	var complaints strings.Builder
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Stderr = &complaints
	cmd.WaitDelay = time.Second // its child may hold the pipes
	out, err := cmd.Output()
	if err != nil {
		output, _, _ := strings.Cut(strings.TrimSpace(complaints.String()), "\n")
		return "", errors.New(strings.TrimSuffix(fmt.Sprintf("%s %s: %v: %s", path, strings.Join(args, " "), err, output), ": "))
	}
	return string(out), nil
}

// parseVersion finds the version and refuses what is older than oldest. The first of what it returns is the match.
func parseVersion(path string, pattern *regexp.Regexp, out, oldest string) ([]string, error) {
	found := pattern.FindStringSubmatch(out)
	if found == nil {
		return nil, fmt.Errorf("%s does not report its version", path)
	}
	if compare(found[1], oldest) < 0 {
		return nil, fmt.Errorf("%s is version %s, older than %s", path, found[1], oldest)
	}
	return found, nil
}

// compare compares versions number by number.
func compare(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		if c := cmp.Compare(number(x, i), number(y, i)); c != 0 {
			return c
		}
	}
	return 0
}

func number(parts []string, i int) int {
	if i >= len(parts) {
		return 0
	}
	n, _ := strconv.Atoi(parts[i])
	return n
}
