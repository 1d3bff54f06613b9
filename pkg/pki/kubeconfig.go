package pki

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"

	"lite.io/lite/pkg/file"
)

// Kubeconfig is a file by which somebody reaches the API.
type Kubeconfig struct {
	Path   string
	Server string // URL
	User   string // a leaf of the table
	Mode   fs.FileMode
	// SameProcess is for whoever runs in the API server's own process: it asks for
	// answers that are not compressed. From 1.37 on, watches are too otherwise.
	SameProcess bool
}

// Write writes the kubeconfig with the certificates embedded, so that it works
// wherever it is copied. It leaves a file alone that already says the same.
func (k Kubeconfig) Write(dir Dir) error {
	var data [3][]byte
	for i, path := range []string{dir.CA(ClusterCA), dir.Cert(k.User), dir.Key(k.User)} {
		var err error
		if data[i], err = os.ReadFile(path); err != nil {
			return fmt.Errorf("create kubeconfig %s: %w", k.Path, err)
		}
	}
	const name = "lite"
	content, err := clientcmd.Write(api.Config{
		Clusters:       map[string]*api.Cluster{name: {Server: k.Server, CertificateAuthorityData: data[0], DisableCompression: k.SameProcess}},
		AuthInfos:      map[string]*api.AuthInfo{k.User: {ClientCertificateData: data[1], ClientKeyData: data[2]}},
		Contexts:       map[string]*api.Context{name: {Cluster: name, AuthInfo: k.User}},
		CurrentContext: name,
	})
	if err != nil {
		return fmt.Errorf("create kubeconfig %s: %w", k.Path, err)
	}
	// Whoever may read the file must be able to reach it.
	dirMode := fs.FileMode(0o700)
	if k.Mode&0o077 != 0 {
		dirMode = 0o755
	}
	if err := os.MkdirAll(filepath.Dir(k.Path), dirMode); err != nil {
		return fmt.Errorf("create kubeconfig %s: %w", k.Path, err)
	}
	if old, err := os.ReadFile(k.Path); err == nil && string(old) == string(content) {
		return os.Chmod(k.Path, k.Mode)
	}
	if err := file.Write(k.Path, content, k.Mode); err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", k.Path, err)
	}
	return nil
}
