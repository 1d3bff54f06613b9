package metrics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/apiserver/pkg/util/compatibility"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/metrics-server/pkg/api"
	"sigs.k8s.io/metrics-server/pkg/api/generated/openapi"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// handler is the API of metrics-server. It leaves out what metrics-server's own server
// adds: TLS authenticates the API server, the only client, which has authorized the
// request; health, profiles and metrics would repeat those of the process.
func handler(figures api.MetricsGetter, pods cache.GenericLister, nodes listers.NodeLister) (http.Handler, error) {
	c := genericapiserver.NewConfig(api.Codecs)
	c.ExternalAddress = Address()
	c.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	c.LoopbackClientConfig = &rest.Config{} // New insists; nothing here uses it
	c.EnableIndex, c.EnableProfiling, c.EnableMetrics = false, false, false
	c.SkipOpenAPIInstallation = true
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, openapinamer.NewDefinitionNamer(api.Scheme))
	c.BuildHandlerChainFunc = func(h http.Handler, c *genericapiserver.Config) http.Handler {
		return genericapifilters.WithRequestInfo(h, c.RequestInfoResolver)
	}
	s, err := c.Complete(nil).New("metrics", genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, fmt.Errorf("create the metrics API: %w", err)
	}
	if err := api.Install(figures, pods, nodes, s, nil); err != nil {
		return nil, fmt.Errorf("create the metrics API: %w", err)
	}
	routes.OpenAPI{V3Config: c.OpenAPIV3Config}.InstallV3(s.Handler.GoRestfulContainer, s.Handler.NonGoRestfulMux)
	s.Handler.NonGoRestfulMux.HandleFunc("/openapi/v2", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, emptyV2)
	})
	return s.Handler, nil
}

// emptyV2 is all of the API in OpenAPI v2, which the API server would merge into
// its own, the largest thing that it holds. Version 3 has it, which kubectl reads.
// Without an answer the API server complains once a minute (1.37).
const emptyV2 = `{"swagger":"2.0","info":{"title":"metrics","version":"v1beta1"},"paths":{}}`

// listen waits for the port if another program has it, which is no reason for a
// server to end; nil when ctx is done before.
func (m *Metrics) listen(ctx context.Context, address string) net.Listener {
	for {
		listener, err := net.Listen("tcp", address)
		if err == nil {
			return listener
		}
		m.waitsFor(err.Error() + "; stop what uses that port, or disable this component (--disable metrics)")
		if !kube.Sleep(ctx, time.Second) {
			return nil
		}
	}
}

// serve answers until ctx is done; an error that ends it before is sent.
func (m *Metrics) serve(ctx context.Context, running *sync.WaitGroup, h http.Handler) (<-chan error, error) {
	cfg, err := m.tls()
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	listener := m.listen(ctx, Address())
	if listener == nil {
		return failed, nil
	}
	server := &http.Server{
		Handler: h, TLSConfig: cfg,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		// The client knows that it is refused, and anybody on the machine could fill the
		// log.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	running.Go(func() {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serve the metrics API: %w", err)
		}
	})
	running.Go(func() {
		<-ctx.Done()
		_ = server.Close() // answers take milliseconds, none is worth waiting for
	})
	return failed, nil
}

// tls lets nobody in but the aggregation layer of the API server.
func (m *Metrics) tls() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(m.config.CertFile, m.config.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the metrics API's certificate: %w", err)
	}
	ca, err := os.ReadFile(m.config.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("read the authority of the aggregation layer: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s: does not contain a certificate", m.config.ClientCAFile)
	}
	config := kube.ServerTLS()
	config.Certificates = []tls.Certificate{cert}
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, clients
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if name := s.PeerCertificates[0].Subject.CommonName; name != m.config.ClientName {
			return fmt.Errorf("the client is %q, not the aggregation layer", name)
		}
		return nil
	}
	return config, nil
}

// apiService is the object that the manifests bring.
const apiService = "v1beta1.metrics.k8s.io"

// writeAuthority writes what a manifest cannot know: the cluster's CA.
func writeAuthority(ctx context.Context, client rest.Interface, ca []byte) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"caBundle": ca}})
	if err != nil {
		return err
	}
	return client.Patch(types.MergePatchType).
		AbsPath("/apis/apiregistration.k8s.io/v1/apiservices", apiService).
		Param("fieldManager", layout.MetricsManager).Body(patch).Do(ctx).Error()
}
