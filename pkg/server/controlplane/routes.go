package controlplane

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"

	"lite.io/lite/pkg/layout"
)

// Route answers a request with an object, which is sent as JSON, or an error, which is sent as a Status. The request
// has been authenticated, authorized and logged, as all that the API server answers.
type Route func(w http.ResponseWriter, r *http.Request) (object any, err error)

// longestBody is more than any request of ours has.
const longestBody = 64 << 10

// ServeHTTP implements http.Handler.
func (route Route) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, longestBody)
	object, err := route(w, r)
	if err != nil {
		responsewriters.ErrorNegotiated(err, scheme.Codecs, schema.GroupVersion{Version: "v1"}, w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err := json.NewEncoder(w).Encode(object); err != nil {
		slog.Debug("Cannot send an answer", "path", r.URL.Path, "err", err)
	}
}

// serveRoutes has the API server answer below layout.APIPrefix.
func serveRoutes(cfg *app.Config, routes map[string]Route) {
	mux := http.NewServeMux()
	for pattern, route := range routes {
		mux.Handle(pattern, route)
	}
	chain := cfg.Aggregator.GenericConfig.BuildHandlerChainFunc
	cfg.Aggregator.GenericConfig.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		return chain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, layout.APIPrefix) {
				mux.ServeHTTP(w, r)
				return
			}
			api.ServeHTTP(w, r)
		}), c)
	}
}
