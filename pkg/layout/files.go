package layout

import (
	"io/fs"
	"path/filepath"
)

// File is a file or directory that lite makes, or reads where a user has put it.
type File struct {
	// Path may be a pattern, or have a word in angle brackets for what differs.
	Path string
	Mode fs.FileMode // as lite makes it; 0 = that is for others to say, or depends on something
}

// Files is the table of all that is in the layout, which docs/files.md describes.
func (l Layout) Files() []File {
	d, r, c, h := l.Data, l.Run, l.Config, l.Host
	s, a, run := d.Server(), d.Agent(), r.Containerd()
	return []File{
		{string(d), 0o700},
		{d.Lock(), 0o600},
		{d.Version(), 0o600},
		{d.Role(), 0o600},
		{d.NodeName(), 0o600},
		{d.Journal(), 0o600},
		{d.Driver(), 0o600},
		{d.Download(), 0o600},
		{d.Kept(), 0o700},
		{d.Keeping(), 0o700},
		{d.KeptBefore(), 0o700},
		{string(d.Helpers("<sha256>")), 0o755},
		{d.Storage(), 0o700},

		{s.PKI(), 0o700},
		{s.Kubeconfig("*"), 0o600},
		{s.Token(), 0o600},
		{s.Manifests(), 0o700},
		{s.Facts(), 0o600},
		{s.Membership(), 0o600},
		{s.Reset(), 0o600},
		{s.Encryption(), 0o600},
		{s.Scheduler(), 0o600},
		{s.AuditPolicy(), 0o600},
		{s.Admission(), 0o600},
		{s.FlexVolumes(), 0},
		{s.Etcd(), 0o700},
		{s.SQLite(), 0o600},

		{a.Kubeconfig(), 0o600},
		{a.Cluster(), 0o600},
		{a.CA(), 0o600},
		{a.Joined(), 0o600},
		{a.Bootstrap(), 0o600},
		{a.Servers(), 0o600},
		{a.OverlayKey(), 0o600},
		{string(a.Kubelet()), 0},
		{a.Kubelet().PKI(), 0o700},
		{a.Images(), 0o700},
		{filepath.Join(a.CNI(), Conflist), 0o600},
		{a.DNS(), 0o700},
		{a.Containerd().Config(), 0o600},
		{filepath.Join(a.Containerd().DropIns(), "*.toml"), 0},
		{a.Containerd().Registries(), 0o700},
		{a.Containerd().Root(), 0o700},
		{a.Containerd().Opt(), 0},

		{string(c), 0o700},
		{c.File(), 0},
		{c.DropIns(), 0},
		{c.Install(), 0o600},
		{c.Environment(), 0o600},
		{c.Registries(), 0},
		{c.Kubeconfig(), 0o600},
		{c.ReleaseKey(), 0o644},
		{c.Installed(), 0o600},
		{c.Pending(), 0o600},
		{string(c.Setup()), 0o700},
		{c.Fixes(), 0o600},
		{c.Guard(), 0},

		{string(r), 0o711},
		{r.Before(), 0o600},
		{r.Datastore(), 0o600},
		{r.Socket(), 0o600},
		{string(run), 0o711},
		{run.Socket(), 0o660},
		{run.Shims(), 0o700},
		{run.Runc(), 0o700},
		{run.Runtime("<name>"), 0o700},
		{run.State(), 0o711},
		{r.CNI(), 0o700},
		{r.Temporary(), 0o700},

		{h.Kubelet, 0},
		{h.PodLogs, 0},
		{h.ContainerLogs, 0},
		{h.CNI, 0},
		{h.CNIPlugins, 0},
		{filepath.Dir(h.AuditLog), 0o700},
		{h.AuditLog, 0o600},
		{h.SystemdUnit, 0o600},
		{h.SystemdWanted, 0},
		{h.SystemdScopes, 0o644},
		{h.OpenRCScript, 0o755},
		{h.OpenRCRunlevel, 0},
		{h.Logrotate, 0o644},
		{h.BashCompletion, 0o644},
		{h.ZshCompletion, 0o644},
		{h.FishCompletion, 0o644},
		{h.Sysctl, 0o644},
		{h.NetworkManager, 0o644},
	}
}
