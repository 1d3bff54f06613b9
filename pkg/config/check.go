package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
)

// Check checks whether this machine, as it is now, can be the node that the configuration
// describes. It changes nothing. Its error joins all problems, each an *Error.
func (c *Config) Check() error { return c.check(thisHost()) }

// CheckFiles is the part of Check about directories and files.
func (c *Config) CheckFiles() error {
	h := thisHost()
	return errors.Join(append(c.checkDirectories(h), c.checkFiles(h)...)...)
}

// CheckPorts is the part of Check about ports.
func (c *Config) CheckPorts() error { return errors.Join(c.checkPorts(thisHost())...) }

// CheckNetworks is the part of Check about addresses.
func (c *Config) CheckNetworks() error {
	h := thisHost()
	return errors.Join(append(c.checkNodeIP(h), c.checkNetworks(h)...)...)
}

func (c *Config) check(h host) error {
	errs := c.checkDirectories(h)
	errs = append(errs, c.checkFiles(h)...)
	errs = append(errs, c.checkPorts(h)...)
	errs = append(errs, c.checkNodeIP(h)...)
	errs = append(errs, c.checkNetworks(h)...)
	return errors.Join(errs...)
}

// checkDirectories wants every directory that will be written to to be
// writable, or to be creatable in the nearest one that exists.
func (c *Config) checkDirectories(h host) (errs []error) {
	for _, p := range []struct{ key, path, dir string }{
		{"data-dir", c.DataDir, c.DataDir},
		{"write-kubeconfig", c.WriteKubeconfig, filepath.Dir(c.WriteKubeconfig)},
		{"audit-log-path", c.AuditLogPath, filepath.Dir(c.AuditLogPath)},
	} {
		if p.path == "" {
			continue
		}
		info, err := h.stat(p.path)
		if err == nil && info.IsDir() && p.path != p.dir {
			errs = append(errs, c.wrong(p.key, p.path, "is a directory", "specify a file"))
		} else if err := usable(h, p.dir); err != nil {
			errs = append(errs, c.wrong(p.key, p.path, err.Error(), "choose a writable path"))
		}
	}
	return errs
}

// usable returns why nothing can be written to a directory.
func usable(h host, dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		info, err := h.stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist) && dir != "/":
			continue
		case err != nil:
			return fmt.Errorf("cannot be used: %w", err)
		case !info.IsDir():
			return fmt.Errorf("cannot be used: %s is not a directory", dir)
		}
		if err := h.writable(dir); err != nil {
			return fmt.Errorf("cannot be used: write to %s: %w", dir, err)
		}
		return nil
	}
}

// checkFiles wants the files that were named to exist; one that is a default
// may be missing.
func (c *Config) checkFiles(h host) (errs []error) {
	errs = c.checkArguments(h)
	for _, f := range []struct {
		key, file string
		wanted    fs.FileMode
		what      string
	}{
		{"private-registry", c.PrivateRegistry, 0, "a file"},
		{"audit-policy-file", c.AuditPolicyFile, 0, "a file"},
		{"datastore-cafile", c.DatastoreCAFile, 0, "a file"},
		{"datastore-certfile", c.DatastoreCertFile, 0, "a file"},
		{"datastore-keyfile", c.DatastoreKeyFile, 0, "a file"},
		{"container-runtime-endpoint", strings.TrimPrefix(c.ContainerRuntimeEndpoint, "unix://"), fs.ModeSocket, "a socket"},
	} {
		if f.file == "" {
			continue
		}
		info, err := h.stat(f.file)
		switch {
		case errors.Is(err, fs.ErrNotExist) && c.sources[f.key] == "default":
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, c.wrong(f.key, f.file, "does not exist", "create it, or specify another"))
		case err != nil:
			errs = append(errs, c.wrong(f.key, f.file, err.Error(), "specify one that can be read"))
		case info.Mode().Type() != f.wanted:
			errs = append(errs, c.wrong(f.key, f.file, "is not "+f.what, "specify "+f.what))
		}
	}
	return errs
}

// argumentFiles is the arguments by which a user names files that a component reads
// when it has been started, and may then only fail.
var argumentFiles = map[string][]string{
	"kube-apiserver-arg": {
		"admission-control-config-file", "audit-policy-file", "audit-webhook-config-file", "authentication-config",
		"authentication-token-webhook-config-file", "authorization-config", "authorization-policy-file",
		"authorization-webhook-config-file", "egress-selector-config-file", "encryption-provider-config", "oidc-ca-file",
		"service-account-key-file", "service-account-signing-key-file", "token-auth-file", "tracing-config-file",
	},
	"kube-controller-manager-arg": {"root-ca-file", "service-account-private-key-file"},
	"kube-scheduler-arg":          {"config"},
	"kubelet-arg":                 {"config", "image-credential-provider-config"},
	"kube-proxy-arg":              {"config"},
}

// checkArguments wants the files that arguments of components name to exist.
func (c *Config) checkArguments(h host) (errs []error) {
	for _, o := range optionsOf(c.Role) {
		for _, flag := range argumentFiles[o.name] {
			argument, file := c.argument(o.name, flag)
			if file == "" {
				continue
			}
			info, err := h.stat(file)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				errs = append(errs, c.wrong(o.name, argument, "the file does not exist", "create it, or specify another"))
			case err != nil:
				errs = append(errs, c.wrong(o.name, argument, err.Error(), "specify one that can be read"))
			case !info.Mode().IsRegular():
				errs = append(errs, c.wrong(o.name, argument, "is not a file", "specify a file"))
			}
		}
	}
	return errs
}

// checkPorts wants the ports that others expect to find us at to be free.
func (c *Config) checkPorts(h host) (errs []error) {
	remedy := func(port int, other string) string {
		return fmt.Sprintf("stop the program that listens there (ss -ltnp sport = :%d shows it)%s", port, other)
	}
	if c.Role == Server {
		addr := net.JoinHostPort(c.BindAddress.String(), strconv.Itoa(c.HTTPSListenPort))
		if err := h.listen(addr); err != nil {
			errs = append(errs, c.wrong("https-listen-port", c.HTTPSListenPort, err.Error(),
				remedy(c.HTTPSListenPort, ", or choose another port or bind-address")))
		}
	}
	kubelet := c.moved("kubelet-arg port", layout.KubeletPort)
	if err := h.listen(net.JoinHostPort("", strconv.Itoa(kubelet))); err != nil {
		errs = append(errs, &Error{"kubelet-arg", fmt.Sprintf("port=%d", kubelet), c.sources["kubelet-arg"], err.Error(), remedy(kubelet, "")})
	}
	return errs
}

// checkNodeIP requires that a configured address is one of the host's, since other nodes
// would use it.
func (c *Config) checkNodeIP(h host) (errs []error) {
	networks, err := h.networks()
	if err != nil || c.Standby {
		return nil // checkNetworks reports it; an address of our own is added later
	}
	for _, ip := range c.NodeIP {
		if !slices.ContainsFunc(networks.Interfaces, func(i probe.Interface) bool {
			return slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr() == ip })
		}) {
			errs = append(errs, c.wrong("node-ip", ip, "is not the address of any interface of this host", "use one that `ip address` shows, or leave it out"))
		}
	}
	return errs
}

// checkNetworks wants no network that the host reaches to have the addresses of
// pods or services, which would hide it.
func (c *Config) checkNetworks(h host) (errs []error) {
	ranges := c.own().ranges()
	if c.cluster.Disable.Has(addon.CNI) {
		// Another pod network is the user's, and so are its interfaces.
		ranges = slices.DeleteFunc(ranges, func(r keyed) bool { return r.key == "cluster-cidr" })
	}
	if len(ranges) == 0 {
		return nil
	}
	networks, err := h.networks()
	if err != nil {
		return []error{c.wrong(ranges[0].key, ranges[0].prefix, "cannot be compared with the host's networks: "+err.Error(),
			"let lite read the host's interfaces and routes")}
	}
	routes := networks.Routes
	for _, i := range networks.Interfaces {
		for _, p := range i.Addrs {
			routes = append(routes, probe.Route{Interface: i.Name, To: p.Masked()})
		}
	}
	for _, r := range ranges {
		if at := slices.IndexFunc(routes, func(net probe.Route) bool { return isHost(net) && net.To.Overlaps(r.prefix) }); at >= 0 {
			errs = append(errs, c.wrong(r.key, r.prefix,
				fmt.Sprintf("overlaps %s, which the host reaches through %s", routes[at].To, routes[at].Interface),
				"choose a range that the host does not use"))
		}
	}
	return errs
}

// isHost reports whether a route leads to a network of the host's, rather than
// to pods or, as default routes and the two halves of one that VPNs set do, to
// all the rest.
func isHost(r probe.Route) bool { return !probe.OfCluster(r.Interface) && r.To.Bits() > 1 }
