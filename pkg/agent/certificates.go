package agent

import (
	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/pki"
)

// CertificateFiles is where an agent has certificates.
func CertificateFiles(cfg *config.Config) []pki.File {
	return Membership{dir: cfg.Layout().Data.Agent()}.certificateFiles(cfg)
}

func (m Membership) certificateFiles(cfg *config.Config) []pki.File {
	return append([]pki.File{
		{Path: m.CAFile(), Renewal: pki.ByKubelet},
		{Path: m.clientCertificate(), Renewal: pki.ByKubelet},
		{Path: m.dir.Kubelet().Serving(), Renewal: pki.ByKubelet},
	}, UserFiles(cfg)...)
}

// clientCertificate is the identity of the node, with which all of its parts reach the
// API. The kubelet keeps it in one file with its key.
func (m Membership) clientCertificate() string { return m.dir.Kubelet().Client() }

// UserFiles is what users have brought for the parts of a node.
func UserFiles(cfg *config.Config) (files []pki.File) {
	for _, flag := range []string{"tls-cert-file", "client-ca-file"} {
		if path, given := kube.Value(cfg.KubeletArgs, flag); given {
			files = append(files, pki.File{Path: path, Renewal: pki.ByUser})
		}
	}
	return files
}

// Uses is the certificates that the components of a node cannot work without: its identity,
// and the authority that verifies the API.
func Uses(files ...string) map[string][]string {
	parts := []string{"load-balancer", "kubelet", "node"}
	for _, b := range addon.All() {
		if !b.Offline {
			parts = append(parts, b.Node...)
		}
	}
	uses := map[string][]string{}
	for _, part := range parts {
		uses[part] = files
	}
	return uses
}
