package layout

import "path/filepath"

// Run is the directory of what a reboot makes worthless.
type Run string

func (r Run) join(name string) string { return filepath.Join(string(r), name) }

// Socket is where a running node answers.
func (r Run) Socket() string { return r.join("lite.sock") }

// Datastore is where the API server reaches a datastore that does not speak etcd's protocol.
func (r Run) Datastore() string { return r.join("datastore.sock") }

// Before is what the machine was like before lite ran on it for the first time since boot.
func (r Run) Before() string { return r.join("before.json") }

// CNI is the addresses that pods were given.
func (r Run) CNI() string { return r.join("cni") }

// Temporary is the directory of temporary files: of lite, and of what it starts.
func (r Run) Temporary() string { return r.join("tmp") }

// Containerd is the directory of sockets, and of the state of containers.
func (r Run) Containerd() RunContainerd { return RunContainerd(r.join("containerd")) }

// RunContainerd is containerd's directory below Run.
type RunContainerd string

func (c RunContainerd) join(name string) string { return filepath.Join(string(c), name) }

// Socket is where containerd answers.
func (c RunContainerd) Socket() string { return c.join("containerd.sock") }

// State is containerd's: sandboxes, and mounts of containers.
func (c RunContainerd) State() string { return c.join("state") }

// Shims is the directory of their sockets.
func (c RunContainerd) Shims() string { return c.join("s") }

// Runc is where runc has the state of containers.
func (c RunContainerd) Runc() string { return c.join("runc") }

// Runtime is where another program that is like runc has it.
func (c RunContainerd) Runtime(name string) string { return c.join("runtime-" + name) }

// Runtimes is a pattern for both.
func (c RunContainerd) Runtimes() string { return c.join("run*") }

// Config is the directory of what a user says, and of what is installed. It is locked by who changes what is
// installed.
type Config string

func (c Config) join(names ...string) string {
	return filepath.Join(append([]string{string(c)}, names...)...)
}

// File is the configuration.
func (c Config) File() string { return c.join("config.yaml") }

// DropIns is the directory of what is read after that file, as there is one beside each configuration.
func (c Config) DropIns() string { return c.File() + ".d" }

// Install is the drop-in that the installer has lite write.
func (c Config) Install() string { return filepath.Join(c.DropIns(), "50-install.yaml") }

// Environment is variables of the service, such as proxies.
func (c Config) Environment() string { return c.join("lite.env") }

// Registries is how image registries are reached, by default.
func (c Config) Registries() string { return c.join("registries.yaml") }

// Kubeconfig is the administrator's, by default.
func (c Config) Kubeconfig() string { return c.join("kubeconfig.yaml") }

// ReleaseKey is what releases must be signed with.
func (c Config) ReleaseKey() string { return c.join("release.pub") }

// Installed is the inventory: what the installer has put on the machine, one path per line.
func (c Config) Installed() string { return c.join("installed") }

// Pending reports that the service has not been restarted since an installation has changed something.
func (c Config) Pending() string { return c.join("install.pending") }

// Setup is the directory of what an installation works with.
func (c Config) Setup() Setup { return Setup(c.join("install.tmp")) }

// Fixes is what lite check --fix has done, and what takes it back.
func (c Config) Fixes() string { return c.join("fixes") }

// Guard leads to the kept program while an upgrade is under way.
func (c Config) Guard() string { return c.join("upgrading") }

// Setup is the directory of an installation that is under way. scripts/install.sh makes it, and lite setup goes on with
// what is in it.
type Setup string

// File is one that the script has fetched there, by its name in the release.
func (s Setup) File(name string) string { return filepath.Join(string(s), name) }

// Before is the inventory as it was.
func (s Setup) Before() string { return s.File("inventory.before") }

// After is the inventory as it will be.
func (s Setup) After() string { return s.File("inventory") }

// Key is the key that the release was verified with, if one was named.
func (s Setup) Key() string { return s.File("key") }
