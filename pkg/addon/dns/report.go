package dns

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// reportBroken posts an event about the ConfigMap whose Corefile is not served. All nodes
// give the event the same name, so that a cluster has one for each broken version.
func (s *Server) reportBroken(ctx context.Context, f files, why string) {
	s.mu.Lock()
	uid := s.state.configMap
	s.mu.Unlock()
	s.report(ctx, v1.ObjectReference{APIVersion: "v1", Kind: "ConfigMap", Namespace: namespace, Name: corednsName, UID: uid},
		"BrokenCorefile", f.version(), "Serving the last good Corefile: "+why)
}

// reportLoop posts an event about the Node whose name servers ask this DNS.
func (s *Server) reportLoop(ctx context.Context, servers []netip.Addr) {
	why := fmt.Sprintf("Not forwarding to the machine's name servers, %s: they ask the cluster's DNS themselves", join(servers))
	slog.Warn("DNS does not forward", "why", why)
	s.report(ctx, v1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: s.config.NodeName}, "DNSLoop", join(servers), why)
}

// report makes an event, once for each version of what it is about.
func (s *Server) report(ctx context.Context, about v1.ObjectReference, reason, version, message string) {
	client, err := s.config.Client.Clientset()
	if err != nil {
		return // watchCluster reports it
	}
	hash := sha256.Sum256([]byte(about.Name + version + message))
	now := metav1.Now()
	in := about.Namespace
	if in == "" {
		in = metav1.NamespaceDefault // where events about what is in no namespace are
	}
	event := &v1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: about.Name + "." + hex.EncodeToString(hash[:])[:12], Namespace: in},
		InvolvedObject: about,
		Type:           v1.EventTypeWarning,
		Reason:         reason,
		Message:        message,
		Source:         v1.EventSource{Component: layout.DNSManager, Host: s.config.NodeName},
		FirstTimestamp: now,
		LastTimestamp:  now,
		Count:          1,
	}
	// While lite starts the API may not be there yet.
	for wait := time.Second; wait < time.Minute; wait *= 2 {
		_, err = client.CoreV1().Events(in).Create(ctx, event, metav1.CreateOptions{})
		if err == nil || apierrors.IsAlreadyExists(err) || !kube.Sleep(ctx, wait) {
			return
		}
	}
	slog.Debug("Cannot post an event", "reason", reason, "err", err)
}
