// Package release holds what makes a release and looks at what was made.
package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReleaseRefuses has what scripts/release/make finds before it builds anything.
func TestReleaseRefuses(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(key, []byte("-----BEGIN PUBLIC KEY-----\nnone\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const secret = "-----BEGIN PRIVATE KEY----- MIGHAgEAMBMGByqGSM49"
	for name, c := range map[string]struct{ variable, want string }{
		"a version":     {"VERSION=1.2.3", `version "1.2.3": must be like v1.2.3`},
		"a plus":        {"VERSION=v1.2.3+1", "must be like v1.2.3"},
		"a base URL":    {"BASE_URL=releases.example.org", "must be like https://"},
		"a channel":     {"CHANNEL=../stable", "must be a word such as stable"},
		"a lost key":    {"SIGNING_KEY=/nowhere", "must name a file with a private key"},
		"a key itself":  {"SIGNING_KEY=" + secret, "must name a file with a private key"},
		"a public key":  {"SIGNING_KEY=" + key, "must be a private RSA or EC key in PEM"},
		"no key":        {"SIGNING_KEY=", "or say UNSIGNED=true"},
		"half a word":   {"UNSIGNED=yes", "UNSIGNED must be true or false"},
		"never made":    {"VERSION=v999.1.2", "run make release first"},
		"a wrong word":  {"WORD=chekc", "unknown argument chekc"},
		"both":          {"SIGNING_KEY=" + key + " UNSIGNED=true", "are both set"},
		"no such arch":  {"ARCHES=riscv64", "lite is built for amd64 and arm64, not for riscv64"},
		"no arch named": {"ARCHES= ", "ARCHES is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			var args []string
			if strings.HasPrefix(c.variable, "VERSION=v999") {
				args = []string{"check"}
			}
			if word, ok := strings.CutPrefix(c.variable, "WORD="); ok {
				args = []string{word}
			}
			cmd := exec.CommandContext(t.Context(), "bash", append([]string{"make"}, args...)...)
			cmd.Env = append(os.Environ(), "VERSION=v1.2.3", "BASE_URL=", "CHANNEL=", "SIGNING_KEY=", "UNSIGNED=", "ARCHES=amd64")
			if variable, both := strings.CutSuffix(c.variable, " UNSIGNED=true"); both {
				cmd.Env = append(cmd.Env, variable, "UNSIGNED=true")
			} else {
				cmd.Env = append(cmd.Env, c.variable)
			}
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) || strings.Contains(string(out), "building lite") {
				t.Errorf("%v, want %q:\n%s", err, c.want, out)
			}
			if strings.Contains(string(out), "MIGHAgEA") {
				t.Errorf("the key is printed:\n%s", out)
			}
		})
	}
}
