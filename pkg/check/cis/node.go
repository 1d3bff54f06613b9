package cis

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
)

// Node is what is judged.
type Node struct {
	Role config.Role
	Name string
	// Root is where the machine's files are, DataDir is lite's data directory, and
	// Kubeconfig the administrator's, on a server.
	Root, DataDir, Kubeconfig string
	Layout                    layout.Layout // of what does not depend on the data directory
	// Components is the settings of the running lite's components, by their names in
	// `lite status`. Where it is nil, Stopped is the reason.
	Components map[string]component.Settings
	Stopped    string
	// Objects is what the cluster holds. Where it is nil, NoObjects is the reason, and
	// ObjectsRemedy what helps, if that differs from Remedy.
	Objects       *Objects
	NoObjects     string
	ObjectsRemedy string
	// Remedy is what makes unknown results known.
	Remedy string
	// Stat returns mode and owner of a file of the machine; nil asks the system.
	Stat func(path string) (File, error)

	usual *Access // the access that every cluster of lite grants, once it was needed
}

// File is what is judged of a file.
type File struct {
	Mode     fs.FileMode
	UID, GID uint32
}

func (n *Node) path(name string) string { return filepath.Join(n.Root, name) }

// data is where files of lite's own are.
func (n *Node) data() layout.Data { return layout.Data(n.DataDir) }

// read reads a regular file. Reading a pipe would block forever.
func (n *Node) read(name string) ([]byte, error) {
	data, err := file.ReadRegular(n.path(name))
	if errors.Is(err, file.ErrIrregular) {
		return nil, fmt.Errorf("%s %w", name, err)
	}
	return data, err
}

func (n *Node) stat(name string) (File, error) {
	if n.Stat != nil {
		return n.Stat(n.path(name))
	}
	return Stat(n.path(name))
}

// Stat asks the system for a file or what a link leads to.
func Stat(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, err
	}
	f := File{Mode: info.Mode()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		f.UID, f.GID = s.Uid, s.Gid
	}
	return f, nil
}

// below is the files in directories and below them whose names match a pattern, and with
// dirs the directories, too. A missing directory has none. Links are followed, as by
// whoever reads the file: a user's key may be elsewhere, and is still a key.
func (n *Node) below(pattern string, dirs bool, roots ...string) (found []string, err error) {
	for _, root := range roots {
		// By the slash a link to a directory is followed where it is the root.
		err := filepath.WalkDir(n.path(root)+"/", func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := filepath.Join("/", strings.TrimPrefix(path, n.Root))
			kind := e.Type()
			if kind == fs.ModeSymlink {
				f, err := n.stat(name)
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				} else if err != nil {
					return err
				}
				kind = f.Mode.Type()
			}
			ok, _ := filepath.Match(pattern, e.Name())
			if kind.IsDir() && dirs || kind.IsRegular() && ok {
				found = append(found, name)
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return found, nil
}

// exists is those of the files that exist.
func (n *Node) exists(files ...string) (found []string) {
	for _, f := range files {
		if _, err := n.stat(f); err == nil || !errors.Is(err, fs.ErrNotExist) {
			found = append(found, f)
		}
	}
	return found
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// perm is a mode as people write it.
func perm(m fs.FileMode) string { return fmt.Sprintf("%04o", m.Perm()) }
