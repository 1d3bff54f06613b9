package backup

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lite.io/lite/pkg/config"
)

// largestFile bounds the size of a file of the configuration.
const largestFile = 1 << 20

// mostLinks is how many links from one to the next are followed, as the kernel does.
const mostLinks = 40

// configuration finds the files that configure the node, and the links that lead to them.
// It leaves out what belongs to the installation (the inventory, the key of releases and
// the guard), and the kubeconfig, which is written at each start.
func configuration(cfg *config.Config) (files, dirs []string) {
	at := cfg.Layout().Config
	others := []string{cfg.WriteKubeconfig, at.Installed(), at.ReleaseKey(), at.Guard()}
	add := func(path string) {
		for range mostLinks {
			info, err := os.Lstat(path)
			if err != nil || slices.Contains(others, path) || slices.Contains(files, path) {
				return
			}
			if info.Mode().IsRegular() && info.Size() <= largestFile {
				files = append(files, path)
			}
			if info.Mode().Type() != fs.ModeSymlink {
				return
			}
			files = append(files, path)
			if path, err = follows(path); err != nil {
				return
			}
		}
	}
	absolute, err := filepath.Abs(cfg.ConfigFile)
	if err == nil {
		dirs = append(dirs, absolute+".d")
		add(absolute)
	}
	add(cfg.PrivateRegistry)
	if cfg.AuditPolicyFile != "" {
		add(cfg.AuditPolicyFile)
	}
	for _, dir := range append([]string{string(at)}, dirs...) {
		found, _ := os.ReadDir(dir)
		for _, entry := range found {
			add(filepath.Join(dir, entry.Name()))
		}
	}
	return files, dirs
}

// follows is where a link leads to, one step.
func follows(link string) (string, error) {
	target, err := os.Readlink(link)
	if err != nil || filepath.IsAbs(target) {
		return target, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(link)) // what .. means there
	return filepath.Join(dir, target), err
}

// below is the path of the copy of a file below a directory.
func below(dir, path string) string {
	return filepath.Join(dir, strings.TrimPrefix(path, "/"))
}

func copyBelow(dir, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	to := below(dir, path)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return copyEntry(path, to, info)
}
