package netfilter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Programs runs the machine's programs that read and write packet filter rules, or those in Dirs if the machine
// has none.
type Programs struct{ Dirs []string }

// commandTimeout is more than any command here takes on a machine that works.
const commandTimeout = time.Minute

// Find is the path of a program, the machine's or one in Dirs.
func (p Programs) Find(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	for _, dir := range append(p.Dirs, "/usr/sbin", "/sbin", "/usr/bin", "/bin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}

// Run runs a program and returns what it prints.
func (p Programs) Run(ctx context.Context, stdin []byte, name string, args ...string) (string, error) {
	path, ok := p.Find(name)
	if !ok {
		return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+strings.Join(slices.Concat([]string{os.Getenv("PATH")}, p.Dirs, []string{"/usr/sbin", "/sbin"}), ":"))
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return stdout.String(), fmt.Errorf("%s %s: %w", name, strings.Join(args, " "),
			errors.Join(err, errors.New(strings.Join(strings.Fields(stderr.String()), " "))))
	}
	return stdout.String(), nil
}

// Object is one object in the output of `nft -j`: its kind, and its content.
type Object map[string]Thing

// Thing is the content of an object.
type Thing struct {
	Family  string `json:"family"`
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Name    string `json:"name"`
	Handle  int    `json:"handle"`
	Comment string `json:"comment"`
	Policy  string `json:"policy"`
}

// NFT lists objects. A kernel without nftables has none; without nft, on the machine or in
// Dirs, nobody can have created any.
func (p Programs) NFT(ctx context.Context, args ...string) ([]Object, error) {
	if _, ok := p.Find("nft"); !ok {
		return nil, nil
	}
	out, err := p.Run(ctx, nil, "nft", append([]string{"-j", "-a"}, args...)...)
	if err != nil {
		if !KernelHasNFTables() {
			err = nil
		}
		return nil, err
	}
	var answer struct {
		Nftables []Object `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return answer.Nftables, fmt.Errorf("nft %s: %w", strings.Join(args, " "), err)
	}
	return answer.Nftables, nil
}

// Front is one of the programs that access chains of iptables.
type Front struct {
	Family        string // ip or ip6
	Legacy        bool
	Save, Restore string
}

func (f Front) String() string {
	kind := "nft"
	if f.Legacy {
		kind = "legacy"
	}
	return fmt.Sprintf("%stables (%s)", f.Family, kind)
}

// Fronts is those that may hold rules. The older ones are not asked where the
// kernel has no table of theirs: that would make it.
func (p Programs) Fronts(ctx context.Context) []Front {
	var all []Front
	for _, family := range []struct {
		name, program string
		is6           bool
	}{{"ip", "iptables", false}, {"ip6", "ip6tables", true}} {
		version, err := p.Run(ctx, nil, family.program, "-V")
		kinds := []bool{false}
		if len(OlderTables(family.is6)) > 0 {
			kinds = append(kinds, true)
		}
		for _, legacy := range kinds {
			name := family.program + "-nft"
			if legacy {
				name = family.program + "-legacy"
			}
			if _, ok := p.Find(name + "-save"); !ok {
				if err != nil || strings.Contains(version, "nf_tables") == legacy {
					continue
				}
				name = family.program
			}
			all = append(all, Front{family.name, legacy, name + "-save", name + "-restore"})
		}
	}
	return all
}
