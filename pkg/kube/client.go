package kube

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Client asks the API as one user, by a kubeconfig. The parts of a process that are this
// user share it: its connection, its typed client, and what is known of the API's objects.
type Client struct {
	kubeconfig, name string

	mu  sync.Mutex
	set *kubernetes.Clientset
}

// NewClient makes one; nothing is touched before it is used, since the kubeconfig may be
// made meanwhile. The API server's audit log shows the name.
func NewClient(kubeconfig, name string) *Client { return &Client{kubeconfig: kubeconfig, name: name} }

// Config is for a client of another kind, or one that differs.
func (c *Client) Config() (*rest.Config, error) { return ClientConfig(c.kubeconfig, c.name) }

// Kubeconfig is for components of upstream's, which make clients of their own.
func (c *Client) Kubeconfig() string { return c.kubeconfig }

// Clientset is the typed client. Nothing here limits how often it asks: each part makes one
// request after the other, and none is to wait for another's.
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
		return nil, fmt.Errorf("make a client of %s: %w", c.kubeconfig, err)
	}
	c.set = set
	return set, nil
}
