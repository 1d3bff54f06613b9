package changes

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// sysctls is what the machine is configured to set of the kernel at boot, in the order
// in which that is done.
type sysctls [][2]string

// readSysctls reads what the command sysctl and systemd read (sysctl.d(5)): of files of
// the same name the first one counts, and then the last line for a setting.
func readSysctls(root string) sysctls {
	files := map[string]string{}
	for _, dir := range []string{"etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d"} {
		found, _ := filepath.Glob(filepath.Join(root, dir, "*.conf"))
		for _, file := range found {
			if name := filepath.Base(file); files[name] == "" {
				files[name] = file
			}
		}
	}
	var all sysctls
	for _, name := range append(slices.Sorted(maps.Keys(files)), "") {
		file := files[name]
		if name == "" {
			file = filepath.Join(root, "etc/sysctl.conf")
		}
		data, _ := os.ReadFile(file)
		for line := range strings.Lines(string(data)) {
			key, value, ok := strings.Cut(line, "=")
			key = strings.TrimPrefix(strings.TrimSpace(key), "-")
			if ok && key != "" && !strings.ContainsAny(key[:1], "#;") {
				all = append(all, [2]string{slashed(key), strings.TrimSpace(value)})
			}
		}
	}
	return all
}

// slashed is the path of a setting below /proc/sys. Which of the two separators comes
// first is the one that separates; the other is part of a name.
func slashed(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		return strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	return key
}

// sets reports whether a setting has the value that is configured for it.
func (s sysctls) sets(setting, value string) bool {
	for _, one := range slices.Backward(s) {
		if ok, _ := path.Match(one[0], setting); ok && setting != "" {
			return one[1] == value
		}
	}
	return false
}
