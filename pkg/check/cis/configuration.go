package cis

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	proxyconfig "k8s.io/kube-proxy/config/v1alpha1"
	schedulerconfig "k8s.io/kube-scheduler/config/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"lite.io/lite/pkg/config"
)

// kubelet is the configuration that the kubelet runs by.
func (n *Node) kubelet() (*kubeletconfig.KubeletConfiguration, error) {
	c := &kubeletconfig.KubeletConfiguration{}
	return c, n.configuration(kubeletPart, c)
}

// configuration reads a part's.
func (n *Node) configuration(part string, into any) error {
	s, there := n.Components[part]
	switch {
	case n.Components == nil:
		return errors.New(n.Stopped)
	case !there || s.Configuration == nil:
		return fmt.Errorf("%s reports no configuration", part)
	}
	if err := json.Unmarshal(s.Configuration, into); err != nil {
		return fmt.Errorf("read the configuration of %s: %w", part, err)
	}
	return nil
}

// field judges the kubelet's configuration.
func field(assess func(*Node, *kubeletconfig.KubeletConfiguration) finding) judge {
	return func(n *Node) finding {
		c, err := n.kubelet()
		if err != nil {
			return unknown(err.Error())
		}
		return assess(n, c)
	}
}

// is is field for booleans; nil counts as the default.
func is(name string, get func(*kubeletconfig.KubeletConfiguration) *bool, want, byDefault bool) judge {
	return field(func(_ *Node, c *kubeletconfig.KubeletConfiguration) finding {
		value := byDefault
		if v := get(c); v != nil {
			value = *v
		}
		return as(value == want, fmt.Sprintf("%s is %v", name, value))
	})
}

func authorizes(_ *Node, c *kubeletconfig.KubeletConfiguration) finding {
	return as(c.Authorization.Mode == kubeletconfig.KubeletAuthorizationModeWebhook, "authorization.mode is "+string(c.Authorization.Mode))
}

func knowsClients(_ *Node, c *kubeletconfig.KubeletConfiguration) finding {
	if c.Authentication.X509.ClientCAFile == "" {
		return fail("authentication.x509.clientCAFile is not set")
	}
	return pass("authentication.x509.clientCAFile is " + c.Authentication.X509.ClientCAFile)
}

func noReadOnlyPort(_ *Node, c *kubeletconfig.KubeletConfiguration) finding {
	return as(c.ReadOnlyPort == 0, fmt.Sprintf("readOnlyPort is %d", c.ReadOnlyPort))
}

func endsIdleStreams(_ *Node, c *kubeletconfig.KubeletConfiguration) finding {
	return as(c.StreamingConnectionIdleTimeout.Duration != 0,
		"streamingConnectionIdleTimeout is "+c.StreamingConnectionIdleTimeout.Duration.String())
}

// events: 0 is no limit, and upstream's own is 50 a second.
func events(_ *Node, c *kubeletconfig.KubeletConfiguration) finding {
	const usual = 50
	rate := int32(usual)
	if c.EventRecordQPS != nil {
		rate = *c.EventRecordQPS
	}
	if rate != 0 && rate < usual {
		return decide(fmt.Sprintf("eventRecordQPS is %d, less than the default of %d", rate, usual))
	}
	return pass(fmt.Sprintf("eventRecordQPS is %d", rate))
}

func servesWithCertificate(_ *Node, c *kubeletconfig.KubeletConfiguration) finding {
	switch {
	case c.TLSCertFile != "" && c.TLSPrivateKeyFile != "":
		return pass("tlsCertFile is " + c.TLSCertFile + ", tlsPrivateKeyFile is " + c.TLSPrivateKeyFile)
	case c.ServerTLSBootstrap:
		return pass("serverTLSBootstrap is true: the cluster signs its certificate")
	}
	return fail("it has no certificate but one that it has signed itself")
}

// ofLite: on a server the kubelet asks nobody for certificates.
const ofLite = "on a server lite makes and renews the kubelet's certificates itself, next to their authority"

func rotates(n *Node, c *kubeletconfig.KubeletConfiguration) finding {
	switch {
	case c.RotateCertificates:
		return pass("rotateCertificates is true")
	case n.Role == config.Server && c.TLSCertFile != "":
		return inapplicable(ofLite)
	}
	return fail("rotateCertificates is false")
}

func rotatesServing(n *Node, c *kubeletconfig.KubeletConfiguration) finding {
	f := gate("RotateKubeletServerCertificate")(n)
	if f.status == Pass && !c.ServerTLSBootstrap && n.Role == config.Server && c.TLSCertFile != "" {
		return inapplicable(ofLite)
	}
	return f
}

func kubeletCiphers(_ *Node, c *kubeletconfig.KubeletConfiguration) finding {
	return ciphers(slices.Clone(c.TLSCipherSuites), c.TLSMinVersion)
}

func limitsPIDs(_ *Node, c *kubeletconfig.KubeletConfiguration) finding {
	if c.PodPidsLimit == nil || *c.PodPidsLimit <= 0 {
		return fail("podPidsLimit is not set")
	}
	return pass(fmt.Sprintf("podPidsLimit is %d", *c.PodPidsLimit))
}

// proxyFigures judges where kube-proxy serves its metrics.
func proxyFigures(n *Node) finding {
	if _, there := n.Components[proxyPart]; n.Components != nil && !there {
		return inapplicable("this node runs no " + proxyPart)
	}
	c := &proxyconfig.KubeProxyConfiguration{}
	if err := n.configuration(proxyPart, c); err != nil {
		return unknown(err.Error())
	}
	if c.MetricsBindAddress == "" {
		return pass("metricsBindAddress is empty: it serves none")
	}
	host, _, err := net.SplitHostPort(c.MetricsBindAddress)
	if err != nil {
		host = c.MetricsBindAddress
	}
	ip, err := netip.ParseAddr(host)
	return as(err == nil && ip.IsLoopback(), "metricsBindAddress is "+c.MetricsBindAddress)
}

// schedulerProfiles judges profiling, which the configuration file sets, if there is one.
func schedulerProfiles(n *Node) finding {
	if n.Components[schedulerPart].Configuration == nil {
		return flag(schedulerPart, "profiling", false, true)(n)
	}
	c := &schedulerconfig.KubeSchedulerConfiguration{}
	if err := n.configuration(schedulerPart, c); err != nil {
		return unknown(err.Error())
	}
	on := c.EnableProfiling == nil || *c.EnableProfiling
	return as(!on, fmt.Sprintf("enableProfiling is %v", on))
}
