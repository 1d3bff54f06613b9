package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// The kubeconfig of a node that joins is written after the components have been made.
func TestClientIsMadeWhenThereIsAKubeconfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	c := NewClient(file, "node")
	if _, err := c.Clientset(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("without a kubeconfig: %v", err)
	}
	if leave, err := NewNodes(c).Follow(Wake[*v1.Node](func() {}, nil)); err == nil {
		leave()
		t.Error("a watch without a kubeconfig has begun")
	}
	content := `{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}],
clusters: [{name: a, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: a, user: {token: a}}]}`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := c.Clientset()
	if err != nil {
		t.Fatal(err)
	}
	if second, err := c.Clientset(); err != nil || first != second {
		t.Errorf("a second client was made: %v", err)
	}
	cfg, err := c.Config()
	if err != nil || cfg.UserAgent != "lite/node" || c.Kubeconfig() != file {
		t.Errorf("%+v, %v", cfg, err)
	}
}
