package cis

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

// fileSet finds the files that an entry is about. Where there are none, without is the
// finding.
type fileSet struct {
	files   func(*Node) ([]string, error)
	without finding
}

// needed is the finding for missing files that every started node has.
var needed = unknown("there is no such file yet")

func at(files func(*Node) []string) fileSet {
	return fileSet{func(n *Node) ([]string, error) { return n.exists(files(n)...), nil }, needed}
}

// atMost judges the modes of files: none has a bit that most does not have.
func atMost(most fs.FileMode, p fileSet) judge {
	return modes(func(string) fs.FileMode { return most }, p)
}

func modes(most func(path string) fs.FileMode, p fileSet) judge {
	return each(p, func(path string, f File) (wrong, remedy string) {
		if f.Mode.Perm()&^most(path) == 0 {
			return "", ""
		}
		return "mode " + perm(f.Mode), fmt.Sprintf("chmod %o %s", f.Mode.Perm()&most(path), quoted(path))
	}, func(path string) string { return perm(most(path)) + " or less" })
}

// roots judges the owners of files.
func roots(p fileSet) judge {
	return each(p, func(path string, f File) (wrong, remedy string) {
		if f.UID == 0 && f.GID == 0 {
			return "", ""
		}
		return fmt.Sprintf("user %d and group %d", f.UID, f.GID), "chown root:root " + quoted(path)
	}, func(string) string { return "root's" })
}

// each judges every file of a set; fine describes a file without problems.
func each(p fileSet, assess func(path string, f File) (wrong, remedy string), fine func(path string) string) judge {
	return func(n *Node) finding {
		files, err := p.files(n)
		if err != nil {
			return unknown(err.Error())
		}
		if len(files) == 0 {
			return p.without
		}
		var wrongs []string
		remedy := ""
		for _, path := range files {
			f, err := n.stat(path)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				continue // it went away meanwhile
			case err != nil:
				return unknown(err.Error())
			}
			wrong, how := assess(path, f)
			if wrong == "" {
				continue
			}
			wrongs = append(wrongs, path+" has "+wrong)
			if remedy == "" {
				remedy = how
			}
		}
		if len(wrongs) > 0 {
			f := fail(few(wrongs))
			f.remedy = "`" + remedy + "`"
			if len(wrongs) > 1 {
				f.remedy += ", and so on"
			}
			return f
		}
		if len(files) == 1 {
			return pass(files[0] + " is " + fine(files[0]))
		}
		return pass(fmt.Sprintf("%s, all %s", count(len(files), "file"), fine(files[0])))
	}
}

// quoted is a path as one word of a command that root copies: the name of a file must not
// run anything.
func quoted(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+:@%,=", r)
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// never is an entry about what no node of lite has.
func never(why string) judge { return func(*Node) finding { return inapplicable(why) } }

// unitFiles is what starts lite.
var unitFiles = fileSet{
	func(n *Node) ([]string, error) {
		return n.exists(n.Layout.Host.SystemdUnit, n.Layout.Host.OpenRCScript), nil
	},
	inapplicable("no service of an init system starts lite here"),
}

// unitMode lets the owner execute a script of OpenRC.
func unitMode(path string) fs.FileMode {
	if filepath.Ext(path) == ".service" {
		return 0o600
	}
	return 0o700
}

// networkFiles is the network's description and the addresses that it has given out.
var networkFiles = fileSet{
	func(n *Node) ([]string, error) {
		conf := n.data().Agent().CNI()
		if found, err := n.below("*", false, conf); err != nil || len(found) == 0 {
			conf = n.Layout.Host.CNIConf // another network's
		}
		return n.below("*", false, conf, n.Layout.Run.CNI(), filepath.Join(n.Layout.Host.CNI, "networks"))
	},
	inapplicable("no network plugin has described a network"),
}

func etcdDir(n *Node) []string { return []string{n.data().Server().Etcd()} }

// administrators is every kubeconfig of somebody who may do everything.
func administrators(n *Node) []string {
	files := []string{n.data().Server().Kubeconfig(pki.Admin), n.data().Server().Kubeconfig(pki.Lite)}
	if n.Kubeconfig != "" {
		files = append(files, n.Kubeconfig)
	}
	return files
}

// kubeconfigOf is the kubeconfig of a component: from its arguments, otherwise lite's.
func kubeconfigOf(part string, byDefault func(layout.Data) string) func(*Node) []string {
	return func(n *Node) []string {
		if file, _ := args(n.Components[part].Arguments).value("kubeconfig"); file != "" {
			return []string{file}
		}
		return []string{byDefault(n.data())}
	}
}

// ofUser is the kubeconfig of a user that the control plane has, and ofNode the node's.
func ofUser(name string) func(layout.Data) string {
	return func(d layout.Data) string { return d.Server().Kubeconfig(name) }
}

func ofNode(d layout.Data) string { return d.Agent().Kubeconfig() }

// pkiFiles is what lies in the directory of certificates and keys.
func pkiFiles(pattern string, dirs bool) fileSet {
	return fileSet{func(n *Node) ([]string, error) { return n.below(pattern, dirs, n.data().Server().PKI()) }, needed}
}

// clientCA is the authority whose certificates the kubelet accepts.
func clientCA(n *Node) []string {
	if c, err := n.kubelet(); err == nil && c.Authentication.X509.ClientCAFile != "" {
		return []string{c.Authentication.X509.ClientCAFile}
	}
	if n.Role == config.Server {
		return []string{pki.Dir(n.data().Server().PKI()).CA(pki.ClusterCA)}
	}
	return []string{n.data().Agent().CA()}
}

// kubeletFiles is the configuration files that a user has given to the kubelet.
var kubeletFiles = fileSet{
	func(n *Node) ([]string, error) {
		if n.Components == nil {
			return nil, errors.New(n.Stopped)
		}
		a := args(n.Components["kubelet"].Arguments)
		var files []string
		if file, _ := a.value("config"); file != "" {
			files = append(files, file)
		}
		if dir, _ := a.value("config-dir"); dir != "" {
			more, err := n.below("*.conf", false, dir)
			if err != nil {
				return nil, err
			}
			files = append(files, more...)
		}
		return files, nil
	},
	inapplicable("lite gives the kubelet its configuration in memory, and no file of yours is named"),
}

// etcdOwner judges who owns the datastore. The benchmark wants a user etcd, since it
// assumes that etcd is a separate process.
func etcdOwner(n *Node) finding {
	f, err := n.stat(n.data().Server().Etcd())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return needed
	case err != nil:
		return unknown(err.Error())
	case f.UID == 0 && f.GID == 0:
		return inapplicable(n.data().Server().Etcd() + " is root's, as the process is that etcd runs in")
	}
	bad := fail(fmt.Sprintf("%s has user %d and group %d", n.data().Server().Etcd(), f.UID, f.GID))
	bad.remedy = "`chown -R root:root " + quoted(n.data().Server().Etcd()) + "`"
	return bad
}
