package series

import (
	"context"
	"net/url"
	"slices"
	"time"

	clients "k8s.io/client-go/tools/metrics"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// clientFamilies is what is measured of clients, with the names and labels of Kubernetes' own.
const (
	clientRequests  = "rest_client_requests_total"
	clientLatency   = "rest_client_request_duration_seconds"
	clientRateLimit = "rest_client_rate_limiter_duration_seconds"
)

func isClients(family string) bool {
	return slices.Contains([]string{clientRequests, clientLatency, clientRateLimit}, family)
}

// measureClients measures the clients of all components. Whoever comes first in a process gets what
// they do, and CoreDNS' plugin kubernetes comes before Kubernetes (1.15): all requests would count
// as its own, and dashboards of Kubernetes would stay empty.
func measureClients() {
	requests := metrics.NewCounterVec(&metrics.CounterOpts{
		Name: clientRequests, StabilityLevel: metrics.ALPHA,
		Help: "HTTP requests of all clients in the process, by status code, method and host.",
	}, []string{"code", "method", "host"})
	histogram := func(name, help string) latencies {
		return latencies{metrics.NewHistogramVec(&metrics.HistogramOpts{
			Name: name, StabilityLevel: metrics.ALPHA, Help: help,
			Buckets: []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60},
		}, []string{"verb", "host"})}
	}
	latency := histogram(clientLatency, "How long requests of all clients in the process took, by verb and host.")
	limit := histogram(clientRateLimit, "How long clients in the process held requests back, by verb and host.")
	legacyregistry.MustRegister(requests, latency.HistogramVec, limit.HistogramVec)
	clients.RequestResult, clients.RequestLatency, clients.RateLimiterLatency = results{requests}, latency, limit
}

type results struct{ *metrics.CounterVec }

// Increment implements clients.ResultMetric.
func (r results) Increment(_ context.Context, code, method, host string) {
	r.WithLabelValues(code, method, host).Inc()
}

type latencies struct{ *metrics.HistogramVec }

// Observe implements clients.LatencyMetric.
func (l latencies) Observe(_ context.Context, verb string, u url.URL, d time.Duration) {
	l.WithLabelValues(verb, u.Host).Observe(d.Seconds())
}
