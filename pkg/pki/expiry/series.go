package expiry

import (
	"k8s.io/component-base/metrics"

	"lite.io/lite/pkg/layout"
)

// series is the metric: when each certificate ends. The kubelet serves it, which each
// node has.
type series struct {
	metrics.BaseStableCollector
	watch *Watch
	ends  *metrics.Desc
}

func newSeries(w *Watch) *series {
	return &series{watch: w, ends: metrics.NewDesc(layout.SeriesPrefix+"certificate_expiration_timestamp_seconds",
		"When a certificate in the files of this node expires, in seconds since 1970.",
		[]string{"path", "subject"}, nil, metrics.ALPHA, "")}
}

// DescribeWithStability implements metrics.StableCollector.
func (s *series) DescribeWithStability(to chan<- *metrics.Desc) { to <- s.ends }

// CollectWithStability implements metrics.StableCollector. Of several in a file for one
// subject, such as an authority that was made again, the first to end counts.
func (s *series) CollectWithStability(to chan<- metrics.Metric) {
	type key struct{ path, subject string }
	ends := map[key]int64{}
	for _, c := range s.watch.certificates() {
		k, end := key{c.Path, c.Subject.CommonName}, c.NotAfter.Unix()
		if known, ok := ends[k]; !ok || end < known {
			ends[k] = end
		}
	}
	for k, end := range ends {
		to <- metrics.NewLazyConstMetric(s.ends, metrics.GaugeValue, float64(end), k.path, k.subject)
	}
}
