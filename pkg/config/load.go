package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
)

// setting is the value of an option, and its source.
type setting struct {
	texts  []string
	source string
}

// settings is all that one source sets, by the name of the option.
type settings map[string]setting

// Load makes a configuration of flags, environment, drop-ins, the configuration file and
// defaults. The first of them that sets an option wins.
//
// flags is what Flags has returned for the role, parsed. env is as from os.Environ; an
// empty variable counts as unset. Load changes nothing on the machine. Its error joins all
// mistakes, each an *Error.
func Load(role Role, flags *pflag.FlagSet, env []string) (*Config, error) {
	return load(role, flags, env, thisHost())
}

// LoadWithoutFiles is Load for users who may not read the configuration file: as if neither
// it nor its drop-ins existed.
func LoadWithoutFiles(role Role, flags *pflag.FlagSet, env []string) (*Config, error) {
	h := thisHost()
	stat := h.stat
	h.readDir = func(string) ([]string, error) { return nil, fs.ErrNotExist }
	h.stat = func(file string) (fs.FileInfo, error) {
		if filepath.Ext(file) == ".yaml" {
			return nil, fs.ErrNotExist
		}
		return stat(file)
	}
	return load(role, flags, env, h)
}

func load(role Role, flags *pflag.FlagSet, env []string, h host) (*Config, error) {
	all := fromDefaults(role)
	flagged := fromFlags(role, flags)
	environment, errs := fromEnv(role, env)

	// The path of the files must be known before they can be read.
	for _, source := range []settings{environment, flagged} {
		if config, ok := source["config"]; ok {
			all["config"] = config
		}
	}
	filed, fileErrs := fromFiles(role, all["config"], h)
	errs = append(errs, fileErrs...)

	for _, source := range []settings{filed, environment, flagged} {
		maps.Copy(all, source)
	}
	c := &Config{Role: role, sources: map[string]string{}}
	errs = append(errs, c.parse(all)...)
	errs = append(errs, c.complete(h)...)
	errs = append(errs, c.own().validate()...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

func fromDefaults(role Role) settings {
	all := settings{}
	for _, o := range optionsOf(role) {
		if o.found == "" && o.isOf(role) {
			all[o.name] = setting{o.split(o.def), "default"}
		}
	}
	return all
}

func fromFlags(role Role, flags *pflag.FlagSet) settings {
	all := settings{}
	for _, o := range optionsOf(role) {
		f := flags.Lookup(o.name)
		if f == nil || !f.Changed {
			continue
		}
		if v, ours := f.Value.(*flagValue); ours {
			all[o.name] = setting{v.texts, "flag --" + o.name}
		}
	}
	return all
}

func fromEnv(role Role, env []string) (settings, []error) {
	values := map[string]string{}
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		values[name] = value
	}
	all, errs := settings{}, []error(nil)
	for _, o := range options {
		value, source := values[o.variable()], "environment "+o.variable()
		switch {
		case value == "":
		case !o.isFor(role):
			errs = append(errs, notFor(role, o, value, source))
		default:
			all[o.name] = setting{o.split(value), source}
		}
	}
	return all, errs
}

func notFor(role Role, o option, value, source string) *Error {
	return &Error{o.name, value, source,
		fmt.Sprintf("is for %ss only, and this node is an %s", o.only, role),
		fmt.Sprintf("set it where only %ss read it", o.only)}
}

// parse sets the field of every option that has a setting.
func (c *Config) parse(all settings) (errs []error) {
	for _, o := range optionsOf(c.Role) {
		s, ok := all[o.name]
		if !ok {
			continue
		}
		c.sources[o.name] = s.source
		if len(s.texts) == 0 && o.def+o.found != "" {
			errs = append(errs, c.wrong(o.name, "", "is an empty list", "give it a value, or leave it out to use the default"))
			continue
		}
		for _, err := range o.set(c, s.texts) {
			err.Key, err.Source = o.name, s.source
			if o.secret {
				err.Value = veil(err.Value)
			}
			errs = append(errs, err)
		}
	}
	return errs
}

// wrong is an error about the value of an option.
func (c *Config) wrong(key string, value any, problem, remedy string) *Error {
	return &Error{key, fmt.Sprint(value), c.sources[key], problem, remedy}
}

// complete fills in the defaults that depend on the machine or on other options, in order.
// What depends on a value that is wrong stays empty.
func (c *Config) complete(h host) (errs []error) {
	unset := func(name string) bool {
		o, _ := lookup(name)
		return o.isOf(c.Role) && c.sources[name] == ""
	}
	found := func(name, source string) { c.sources[name] = "default, " + source }

	if unset("node-name") && c.DataDir != "" {
		if err := c.findNodeName(h, found); err != nil {
			errs = append(errs, err)
		}
	}
	if unset("node-ip") {
		if err := c.findNodeIP(h, found); err != nil {
			errs = append(errs, err)
		}
	}
	if unset("advertise-address") && len(c.NodeIP) > 0 {
		c.AdvertiseAddress = c.NodeIP[0]
		found("advertise-address", "the first of node-ip")
	}
	if unset("cluster-dns") && len(c.cluster.ServiceCIDR) > 0 {
		c.cluster.ClusterDNS = nth(c.cluster.ServiceCIDR[0], 10)
		found("cluster-dns", "the 10th address of service-cidr")
	}
	if unset("default-local-storage-path") && c.DataDir != "" {
		c.LocalStoragePath = c.Layout().Data.Storage()
		found("default-local-storage-path", "storage in data-dir")
	}
	return errs
}

// findNodeName takes the name that the node had before, otherwise that of the host. If a
// new host name made it another node, it would lose its volumes, and a server its place in
// etcd.
func (c *Config) findNodeName(h host, found func(name, source string)) error {
	file := c.Layout().Data.NodeName()
	data, err := h.readRegular(file)
	name, source := strings.TrimSpace(string(data)), "remembered in "+file
	denied := errors.Is(err, fs.ErrPermission)
	// A data directory that is a file is another option's error.
	if denied || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		name, err = h.hostname()
		name, source = strings.ToLower(name), "the host name"
	}
	if denied {
		// Users other than root do not start a node, but may look at its configuration.
		source += "; only root can see whether " + file + " has another"
	}
	found("node-name", source)
	if err != nil {
		return c.wrong("node-name", name, err.Error(), "set node-name")
	}
	valid, wrong := nodeName(name)
	if wrong != nil {
		return c.wrong("node-name", name, wrong.Problem, "set node-name")
	}
	c.NodeName = valid
	return nil
}

// findNodeIP takes an address of each IP family of the service networks. An agent does not
// know these, and takes one address, IPv4 if possible.
func (c *Config) findNodeIP(h host, found func(name, source string)) error {
	wanted := c.cluster.ServiceCIDR
	if len(wanted) == 0 || c.Role == Agent {
		wanted = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	}
	networks, err := h.networks()
	if err != nil {
		return &Error{"node-ip", "", "default", err.Error(), "set node-ip"}
	}
	var names []string
	take := func(is6 bool) {
		if addr, name := networks.Address(is6); addr.IsValid() {
			c.NodeIP, names = append(c.NodeIP, addr), append(names, name)
			found("node-ip", "the address of "+strings.Join(names, ", "))
		}
	}
	for _, p := range wanted {
		take(p.Addr().Is6())
	}
	if len(c.NodeIP) == 0 {
		take(!wanted[0].Addr().Is6())
	}
	if len(c.NodeIP) == 0 {
		c.Standby = true
		for _, p := range wanted {
			c.NodeIP = append(c.NodeIP, standby[p.Addr().Is6()])
		}
		found("node-ip", "no interface that is up has an address that other nodes could reach")
	}
	return nil
}

// standby are the addresses of a node whose machine has no network, by whether they are
// IPv6. They are reserved for documentation (RFC 5737, RFC 3849), so nobody has them.
var standby = map[bool]netip.Addr{false: netip.MustParseAddr("192.0.2.1"), true: netip.MustParseAddr("2001:db8::1")}

// nth is the address n after the first of a range that is large enough.
func nth(p netip.Prefix, n int) netip.Addr {
	addr := p.Addr()
	for range n {
		addr = addr.Next()
	}
	return addr
}
