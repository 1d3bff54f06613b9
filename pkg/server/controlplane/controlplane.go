// Package controlplane runs kube-apiserver, kube-scheduler and
// kube-controller-manager. Each is a pure function from Config to arguments,
// the upstream options parsed from them, and a Run.
package controlplane

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore"
	"lite.io/lite/pkg/pki"
)

// Config is what the control plane has to be told. All of it is known before
// the first component starts.
type Config struct {
	Node      *config.Config
	Dir       string // where the control plane keeps files of its own
	PKI       pki.Dir
	Datastore datastore.Endpoint
	// Used is whether the datastore may hold what an earlier start encrypted.
	Used bool
	// Local names Services, as namespace/name, whose aggregated API this process
	// answers itself, and the address where.
	Local map[string]string
}

// Kubeconfig is the path of the kubeconfig of a leaf of the PKI table.
func (c Config) Kubeconfig(leaf string) string {
	return filepath.Join(c.Dir, "kubeconfig", leaf+".conf")
}

// WriteFiles makes the files that the arguments name. It is idempotent.
func (c Config) WriteFiles() error {
	for _, leaf := range []string{pki.Admin, pki.Lite, pki.ControllerManager, pki.Scheduler, pki.Metrics} {
		k := pki.Kubeconfig{Path: c.Kubeconfig(leaf), Server: c.LocalURL(), User: leaf, Mode: 0o600}
		if err := k.Write(c.PKI); err != nil {
			return err
		}
	}
	if err := ensureEncryption(c.encryptionFile(), c.Used); err != nil {
		return err
	}
	if err := writeFile(c.authenticationFile(), authentication); err != nil {
		return err
	}
	if c.Node.AuditLogPath != "" && c.Node.AuditPolicyFile == "" {
		return writeFile(c.auditPolicyFile(), auditPolicy)
	}
	return nil
}

// LocalURL is how this node's own components reach the API server.
func (c Config) LocalURL() string {
	host := "127.0.0.1"
	if !c.Node.BindAddress.IsUnspecified() {
		host = c.Node.BindAddress.String()
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(c.Node.HTTPSListenPort))
}

func (c Config) encryptionFile() string     { return filepath.Join(c.Dir, "encryption.yaml") }
func (c Config) authenticationFile() string { return filepath.Join(c.Dir, "authentication.yaml") }

func (c Config) auditPolicyFile() string {
	if c.Node.AuditPolicyFile != "" {
		return c.Node.AuditPolicyFile
	}
	return filepath.Join(c.Dir, "audit-policy.yaml")
}

// FirstAddress is the first usable address of a service network, which
// Kubernetes gives to the API.
func FirstAddress(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }
