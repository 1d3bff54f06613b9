package kube

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Client is one identity, that of a kubeconfig. Whoever acts as it in a process shares its
// connection and its typed client.
type Client struct {
	kubeconfig, name string

	mu  sync.Mutex
	set *kubernetes.Clientset
}

// NewClient makes a client; nothing is touched before it is used, because the kubeconfig may
// be written later. Audit logs show the name.
func NewClient(kubeconfig, name string) *Client { return &Client{kubeconfig: kubeconfig, name: name} }

// Config is the configuration for a client of another kind, or one with other settings.
func (c *Client) Config() (*rest.Config, error) { return ClientConfig(c.kubeconfig, c.name) }

// Kubeconfig is the path, for components of upstream's that make clients of their own.
func (c *Client) Kubeconfig() string { return c.kubeconfig }

// Clientset is the typed client. It has no limit of requests per second: each user makes one
// request after the other, and must not wait for those of another.
func (c *Client) Clientset() (kubernetes.Interface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set != nil {
		return c.set, nil
	}
	cfg, err := c.Config()
	if err != nil {
		return nil, err
	}
	cfg.QPS = -1
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	set, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("create a client of %s: %w", c.kubeconfig, err)
	}
	c.set = set
	return set, nil
}
