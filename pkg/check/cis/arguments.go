package cis

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"lite.io/lite/pkg/kube"
)

// The names of components, as `lite status` has them.
const (
	apiserverPart  = "apiserver"
	controllerPart = "controller-manager"
	schedulerPart  = "scheduler"
	etcdPart       = "etcd"
	kubeletPart    = "kubelet"
	proxyPart      = "kube-proxy"
	policyPart     = "networkpolicy"
)

// args is the arguments of a component, of the form --name=value.
type args []string

// value is the value of a flag; that of one without a value is "true".
func (a args) value(name string) (value string, given bool) {
	value, given = kube.Value(a, name)
	if given && value == "" && !slices.Contains(a, "--"+name+"=") {
		value = "true"
	}
	return value, given
}

// on is the value of a flag that is true or false.
func (a args) on(name string, byDefault bool) bool {
	value, given := a.value(name)
	if !given {
		return byDefault
	}
	on, err := strconv.ParseBool(value)
	return err == nil && on
}

// values is all values of a flag whose values add up, without empty ones.
func values(a args, name string) []string {
	return slices.DeleteFunc(kube.List(a, name), func(v string) bool { return v == "" })
}

// shown is a flag as it stands there.
func (a args) shown(name string) string {
	if value, given := a.value(name); given {
		return "--" + name + "=" + value
	}
	return "--" + name + " is not set"
}

// withArguments judges the arguments of a component of the running node.
func withArguments(part string, assess func(*Node, args) finding) judge {
	return func(n *Node) finding {
		s, there := n.Components[part]
		switch {
		case n.Components == nil:
			return unknown(n.Stopped)
		case !there:
			return inapplicable("this node runs no " + part)
		}
		return assess(n, s.Arguments)
	}
}

// as is a pass or a fail.
func as(ok bool, seen string) finding {
	if ok {
		return pass(seen)
	}
	return fail(seen)
}

// choice is a judge whose fail is for a person to decide.
func choice(j judge) judge {
	return func(n *Node) finding {
		f := j(n)
		if f.status == Fail {
			f.status = Decide
		}
		return f
	}
}

// set requires that flags have a value.
func set(part string, names ...string) judge {
	return withArguments(part, func(_ *Node, a args) finding {
		var seen []string
		all := true
		for _, name := range names {
			value, _ := a.value(name)
			all = all && value != ""
			seen = append(seen, a.shown(name))
		}
		return as(all, strings.Join(seen, ", "))
	})
}

// unset requires that a flag is not set.
func unset(part, name string) judge {
	return withArguments(part, func(_ *Node, a args) finding {
		_, given := a.value(name)
		return as(!given, a.shown(name))
	})
}

// flag requires that a flag is true, or false; byDefault is its value where it is not set.
func flag(part, name string, want, byDefault bool) judge {
	return withArguments(part, func(_ *Node, a args) finding { return as(a.on(name, byDefault) == want, a.shown(name)) })
}

// atLeast requires a number.
func atLeast(part, name string, least int) judge {
	return withArguments(part, func(_ *Node, a args) finding {
		value, _ := a.value(name)
		n, err := strconv.Atoi(value)
		return as(err == nil && n >= least, a.shown(name))
	})
}

// loopback requires that a component listens on this machine alone.
func loopback(part, name string) judge {
	return withArguments(part, func(_ *Node, a args) finding {
		value, _ := a.value(name)
		ip, err := netip.ParseAddr(value)
		return as(err == nil && ip.IsLoopback(), a.shown(name))
	})
}

// plugin requires that an admission plugin is on, or off; byDefault is its state where no
// flag names it.
func plugin(name string, want, byDefault bool) judge {
	return withArguments(apiserverPart, func(_ *Node, a args) finding {
		if a.admits(name, byDefault) {
			return as(want, name+" is on")
		}
		return as(!want, name+" is off")
	})
}

// admits is whether an admission plugin is on.
func (a args) admits(name string, byDefault bool) bool {
	if _, all := a.value("admission-control"); all { // the old flag names all there are
		return slices.Contains(kube.List(a, "admission-control"), name)
	}
	return (byDefault || slices.Contains(kube.List(a, "enable-admission-plugins"), name)) && !slices.Contains(kube.List(a, "disable-admission-plugins"), name)
}

// gate requires that a feature gate is not off. The process shares its gates, so it does
// not matter which component has the flag.
func gate(name string) judge {
	return func(n *Node) finding {
		if n.Components == nil {
			return unknown(n.Stopped)
		}
		for _, part := range sortedKeys(n.Components) {
			for _, one := range kube.List(n.Components[part].Arguments, "feature-gates") {
				key, value, _ := strings.Cut(one, "=")
				if on, err := strconv.ParseBool(value); key == name && err == nil && !on {
					return fail("feature gate " + one + " of " + part)
				}
			}
		}
		if c, err := n.kubelet(); err == nil {
			if on, given := c.FeatureGates[name]; given && !on {
				return fail("feature gate " + name + "=false of kubelet")
			}
		}
		return pass("the feature gate " + name + " is on, as it is by default")
	}
}

// strong is the cipher suites that the benchmark lets pass; it knows two of them
// under both names that Go has for them.
var strong = []string{
	"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
	"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
	"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
	"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
	"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
}

// ciphers judges the suites that a server offers: without a setting, Go's own. TLS 1.3 has
// strong ones only, which cannot be configured.
func ciphers(given []string, least string) finding {
	if least == "VersionTLS13" {
		return pass("TLS 1.3 alone, which has strong suites only")
	}
	which := "the configured suites"
	if len(given) == 0 {
		which = "no suites are set, and Go's own"
		for _, s := range tls.CipherSuites() {
			given = append(given, s.Name)
		}
	}
	var weak []string
	for _, s := range given {
		if !slices.Contains(strong, s) {
			weak = append(weak, s)
		}
	}
	if len(weak) == 0 {
		return pass(which + " are strong")
	}
	return fail(fmt.Sprintf("%s have weak ones among them: %s", which, strings.Join(weak, ", ")))
}

func serverCiphers(_ *Node, a args) finding {
	least, _ := a.value("tls-min-version")
	return ciphers(values(a, "tls-cipher-suites"), least)
}
