package scripts

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The version of a build is what a tag says that names a version, and no other tag.
func TestVersionOfABuild(t *testing.T) {
	dir := t.TempDir()
	run := func(program string, args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), program, args...)
		for _, e := range os.Environ() {
			if !strings.HasPrefix(e, "GIT_") && !strings.HasPrefix(e, "LITE_VERSION=") && !strings.HasPrefix(e, "RELEASE_") {
				c.Env = append(c.Env, e)
			}
		}
		c.Env = append(c.Env, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_DIR="+dir+"/.git", "GIT_WORK_TREE="+dir)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	version := regexp.MustCompile(`lite/pkg/version\.version=(\S*)`)
	run("git", "init", "-q", dir)
	run("git", "-c", "user.name=a", "-c", "user.email=a@lite.test", "commit", "-q", "--allow-empty", "-m", "x")
	for _, c := range []struct{ tag, want string }{
		{"good", `^v0\.1\.0-dev\+[0-9a-f]{7,}$`}, {"very-good", `^v0\.1\.0-dev\+[0-9a-f]{7,}$`}, {"v1.2.3", `^v1\.2\.3$`},
	} {
		run("git", "tag", c.tag)
		if got := version.FindStringSubmatch(run("bash", "ldflags")); got == nil || !regexp.MustCompile(c.want).MatchString(got[1]) {
			t.Errorf("with the tag %s the version is %q, want %s", c.tag, got, c.want)
		}
	}
}
