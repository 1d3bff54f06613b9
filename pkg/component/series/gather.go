package series

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/component-base/metrics/legacyregistry"
)

// path is where all of them serve their series.
const path = "/metrics"

// Handler serves o's series.
func (o Owner) Handler() http.Handler {
	return promhttp.HandlerFor(o.gatherer(), promhttp.HandlerOpts{ProcessStartTime: legacyregistry.GetProcessStart()})
}

// Before serves o's series where next would serve those of all.
func (o Owner) Before(next http.Handler) http.Handler {
	own := o.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path && r.Method == http.MethodGet {
			own.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// gatherer has the series of a component of Kubernetes.
func (o Owner) gatherer() prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		all, err := legacyregistry.DefaultGatherer.Gather()
		all = slices.DeleteFunc(all, func(f *dto.MetricFamily) bool {
			return !o.serves(f.GetName()) || o == APIServer && isQueues(f.GetName())
		})
		if err != nil || o != APIServer {
			return all, err
		}
		own, err := queuesOfAPIServer()
		return append(all, own...), err
	})
}

// Narrow makes a server of upstream's serve o's series alone, by its authenticator: the one thing of
// ours that sees a request before it is answered. It has the handler asked for the families by name,
// which is how anybody may ask it (client_golang 1.24).
func (o Owner) Narrow(a authenticator.Request) authenticator.Request {
	if a == nil {
		return nil
	}
	return authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		if r.URL.Path == path {
			o.narrow(r)
		}
		return a.AuthenticateRequest(r)
	})
}

// narrow leaves of the families that a request asks for those that o serves. Filters pass on copies
// of a request, which share its URL.
func (o Owner) narrow(r *http.Request) {
	const key = "name[]"
	query := r.URL.Query()
	asked := query[key]
	query[key] = []string{""} // no family's: none would ask for all
	for _, name := range names(legacyregistry.Registerer()) {
		if o.serves(name) && (len(asked) == 0 || slices.Contains(asked, name)) {
			query.Add(key, name)
		}
	}
	r.URL.RawQuery = query.Encode()
}

// names is the families of a registry. That costs much less than gathering them.
func names(r prometheus.Registerer) (all []string) {
	registry, ok := r.(prometheus.Collector)
	if !ok {
		return nil
	}
	descs := make(chan *prometheus.Desc, 64)
	go func() {
		defer close(descs)
		registry.Describe(descs)
	}()
	for d := range descs {
		all = append(all, nameOf(d))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// nameOf is the family that a description is of, which it tells only as a text (client_golang 1.24).
func nameOf(d *prometheus.Desc) (name string) {
	text := strings.TrimPrefix(d.String(), "Desc{fqName: ")
	_, _ = fmt.Sscanf(text, "%q", &name) // one that is not valid belongs to nobody
	return name
}
