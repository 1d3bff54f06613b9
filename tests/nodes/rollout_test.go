package nodes

import (
	"errors"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// TestRollout updates a Deployment across nodes, drains a node, and starts the
// server again in the middle of an update, while clients ask its Service without
// a pause: no request fails.
func TestRollout(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Agents(2))
	server, drained := c.Server(), c.Agents[0]
	ns := server.Namespace(t)
	// The pods are to be on the agents: the server itself will be away.
	server.Kubectl(t, "cordon", server.Name)
	ns.Apply(t, rolling)
	ns.WaitRollout(t, "deployment/web")
	clusterIP := "http://" + ns.Field(t, "service/web", ".spec.clusterIP") + "/hostname"
	nodePort := "http://" + drained.IP + ":" + ns.Field(t, "service/web", ".spec.ports[0].nodePort") + "/hostname"
	during := func(what string, f func()) {
		t.Helper()
		// A pod that is ready is known to the kube-proxy of every node a moment later.
		for from, url := range map[cluster.Dialer]string{c.Agents[0]: clusterIP, c.Agents[1]: clusterIP, c.Network: nodePort} {
			soon(t, func() error { _, err := cluster.Get(from, url); return err })
		}
		clients := []*client{start(c.Agents[0], clusterIP), start(c.Agents[1], clusterIP), start(c.Network, nodePort)}
		f()
		for _, client := range clients {
			if n, err := client.stop(); err != nil || n < 20 {
				t.Errorf("%s: %s: %d requests, %v", what, client.url, n, err)
			}
		}
	}

	during("update", func() {
		ns.Kubectl(t, "set", "image", "deployment/web", "web=lite.test/agnhost:3")
		ns.WaitRollout(t, "deployment/web")
	})
	during("drain", func() {
		server.Kubectl(t, "uncordon", server.Name)
		server.Kubectl(t, "drain", drained.Name, "--ignore-daemonsets", "--timeout=60s")
		if left := ns.Kubectl(t, "get", "pods", "--field-selector", "spec.nodeName="+drained.Name, "-o", "name"); left != "" {
			t.Errorf("%s was drained and still has\n%s", drained.Name, left)
		}
		server.Kubectl(t, "uncordon", drained.Name)
		ns.WaitRollout(t, "deployment/web")
	})
	during("restart of the server", func() {
		ns.Kubectl(t, "set", "image", "deployment/web", "web=lite.test/agnhost:2")
		soon(t, func() error {
			if images := ns.Kubectl(t, "get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"); !strings.Contains(images, ":2") {
				return errors.New("has not begun")
			}
			return nil
		})
		server.Stop(t)
		server.Start(t)
		ns.WaitRollout(t, "deployment/web")
	})
}

// client asks without a pause, with a connection for each request.
type client struct {
	url  string
	quit chan struct{}
	done chan struct{}
	n    int
	errs []error
}

func start(from cluster.Dialer, url string) *client {
	c := &client{url: url, quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-c.quit:
				return
			case <-tick.C:
			}
			c.n++
			if _, err := cluster.Get(from, url); err != nil {
				c.errs = append(c.errs, err)
			}
		}
	}()
	return c
}

// stop returns how many requests there were, and what went wrong.
func (c *client) stop() (int, error) {
	close(c.quit)
	<-c.done
	return c.n, errors.Join(c.errs...)
}

const rolling = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 2}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 15
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: lite.test/agnhost:2
        args: [netexec, --http-port=8080]
        lifecycle: {preStop: {sleep: {seconds: 6}}}
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`
