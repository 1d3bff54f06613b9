package server

import (
	"errors"
	"fmt"
	"io/fs"

	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/kube"
)

// Client is a client of the API of the server on a data directory, for a command, and the server's own token, which says
// where the server is and what its CA is.
func Client(dataDir, command string) (kubernetes.Interface, join.Token, error) {
	standing, err := ReadToken(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, standing, fmt.Errorf("%s: no server has run here on data-dir %s; run it on a server, or set LITE_DATA_DIR", command, dataDir)
	}
	if err != nil {
		return nil, standing, err
	}
	client, err := kube.NewClient(Kubeconfig(dataDir), command).Clientset()
	return client, standing, err
}
