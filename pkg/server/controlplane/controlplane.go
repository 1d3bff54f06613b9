// Package controlplane runs kube-apiserver, kube-scheduler and
// kube-controller-manager. Each is a pure function from Config to arguments,
// the upstream options parsed from them, and a Run.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"

	apiserveroptions "k8s.io/apiserver/pkg/server/options"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

// Config is what the control plane has to be told. All of it is known before
// the first component starts.
type Config struct {
	Node      *config.Config // of this server; what the cluster shares is not in it
	Cluster   cluster.Facts
	Dir       layout.Server // where the control plane keeps files of its own
	PKI       pki.Dir
	Datastore datastore.Endpoint
	// Used is whether the datastore may hold what an earlier start encrypted.
	Used bool
	// Shared is closed as soon as there may be other servers; nil if there never are.
	Shared <-chan struct{}
	// Local names Services, as namespace/name, whose aggregated API this process
	// answers itself, and the address where.
	Local map[string]string
	// Leaves is asked before a Node is deleted, and does what has to be done before that; nil = nothing has.
	Leaves func(ctx context.Context, node string, dryRun bool) error
	// Routes are what the API server answers below layout.APIPrefix, by patterns as http.ServeMux has them.
	Routes map[string]Route
}

// users are the leaves that have a kubeconfig here.
func users() []string {
	return []string{pki.Admin, pki.Lite, pki.ControllerManager, pki.Scheduler, pki.Metrics}
}

// Kubeconfigs is the paths of all kubeconfigs of the control plane.
func (c Config) Kubeconfigs() (paths []string) {
	for _, leaf := range users() {
		paths = append(paths, c.Dir.Kubeconfig(leaf))
	}
	return paths
}

// WriteFiles makes the files that the arguments name. It is idempotent.
func (c Config) WriteFiles() error {
	for _, leaf := range users() {
		k := pki.Kubeconfig{Path: c.Dir.Kubeconfig(leaf), Server: c.LocalURL(), User: leaf, Mode: 0o600, SameProcess: true}
		if err := k.Write(c.PKI); err != nil {
			return err
		}
	}
	// Versions until 1.36 said in a file what is public now.
	if err := os.Remove(c.Dir.Authentication()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove files of a previous version: %w", err)
	}
	if c.Cluster.Encryption != cluster.UserEncryption {
		if err := ensureEncryption(c.Dir.Encryption(), c.Used); err != nil {
			return err
		}
	}
	return c.writePolicies()
}

// probe checks the health of a part of the control plane, as the administrator, who may
// do so however a user arranges authentication and authorization.
func (c Config) probe(url string) kube.Probe {
	return kube.NewProbeAs(url, c.PKI.Cert(pki.Admin), c.PKI.Key(pki.Admin))
}

// healthURL is where a component serves its health check, wherever a user has put it and
// if it can serve as the user says.
func healthURL(component string, s *apiserveroptions.SecureServingOptions, path string) (string, error) {
	if s.BindPort == 0 {
		return "", fmt.Errorf("%s-arg %q: the component would not serve the health check that lite needs; remove the argument", component, "secure-port=0")
	}
	if err := checkListener(component, s); err != nil {
		return "", err
	}
	return "https://" + net.JoinHostPort(kube.Near(s.BindAddress.String()), strconv.Itoa(s.BindPort)) + path, nil
}

func checkListener(component string, s *apiserveroptions.SecureServingOptions) error {
	return kube.Listener{Suites: s.CipherSuites, MinVersion: s.MinTLSVersion, Curves: s.CurvePreferences,
		HTTP1: s.DisableHTTP2Serving}.Check(component)
}

// LocalURL is how this node's own components reach the API server.
func (c Config) LocalURL() string {
	return "https://" + net.JoinHostPort(kube.Near(c.Node.BindAddress.String()), strconv.Itoa(c.Node.HTTPSListenPort))
}

// FirstAddress is the first usable address of a service network, which
// Kubernetes gives to the API.
func FirstAddress(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }
