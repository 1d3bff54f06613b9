package kubeproxy

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/server/flagz"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/statusz"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/configz"
	zpages "k8s.io/component-base/zpages/features"
	"k8s.io/kube-proxy/config/v1alpha1"
	kubeproxyconfig "k8s.io/kubernetes/pkg/proxy/apis/config"
	"k8s.io/kubernetes/pkg/proxy/apis/config/scheme"

	"lite.io/lite/pkg/component/series"
	"lite.io/lite/pkg/kube"
)

// figures is what upstream serves at metrics-bind-address. There it would be the figures and the
// settings of all that runs in the process, for everybody who can connect: nobody is asked who he is,
// and nothing of ours comes between (1.37).
type figures struct {
	address  string
	settings *kubeproxyconfig.KubeProxyConfiguration
	flags    *pflag.FlagSet
}

// takeFigures has upstream leave the address to us.
func takeFigures(settings *kubeproxyconfig.KubeProxyConfiguration, flags *pflag.FlagSet) figures {
	f := figures{settings.MetricsBindAddress, settings, flags}
	settings.MetricsBindAddress = ""
	return f
}

// handler answers what upstream's does, but of kube-proxy only, and without profiling.
func (f figures) handler() http.Handler {
	m := mux.NewPathRecorderMux("kube-proxy")
	healthz.InstallHandler(m)
	m.Handle("/metrics", series.KubeProxy.Handler())
	m.HandleFunc("/proxyMode", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		fmt.Fprint(w, f.settings.Mode)
	})
	m.HandleFunc(configz.DefaultConfigzPath, f.serveSettings)
	if utilfeature.DefaultFeatureGate.Enabled(zpages.ComponentFlagz) {
		flagz.Install(m, "kube-proxy", flagz.NamedFlagSetsReader{FlagSets: cliflag.NamedFlagSets{FlagSets: map[string]*pflag.FlagSet{"generic": f.flags}}})
	}
	if utilfeature.DefaultFeatureGate.Enabled(zpages.ComponentStatusz) {
		statusz.Install(m, "kube-proxy", statusz.NewRegistry(compatibility.DefaultBuildEffectiveVersion(),
			statusz.WithListedPaths(m.ListedPaths())))
	}
	return m
}

// versioned is the settings as a file has them.
func (f figures) versioned() (runtime.Object, error) {
	settings := f.settings.DeepCopy()
	settings.MetricsBindAddress = f.address
	return scheme.Scheme.ConvertToVersion(settings, v1alpha1.SchemeGroupVersion)
}

// serveSettings answers in the form of upstream's, which has the settings of all in it.
func (f figures) serveSettings(w http.ResponseWriter, _ *http.Request) {
	versioned, err := f.versioned()
	if err != nil {
		http.Error(w, "the settings cannot be converted: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_ = json.NewEncoder(w).Encode(map[string]any{kubeproxyconfig.GroupName: versioned}) // else whoever asked is gone
}

// serve serves until ctx is done. An address that cannot be listened on is tried again, as upstream
// does: Services do not depend on it.
func (f figures) serve(ctx context.Context) {
	if f.address == "" {
		return
	}
	handler := f.handler()
	for logged := false; ctx.Err() == nil; {
		l, err := net.Listen("tcp", f.address)
		if err == nil {
			server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 90 * time.Second}
			stop := context.AfterFunc(ctx, func() { server.Close() })
			err = server.Serve(l)
			stop()
		}
		if ctx.Err() == nil && !logged {
			logged = true
			slog.Warn("Cannot serve kube-proxy's metrics; free the address, or choose another one with kube-proxy-arg metrics-bind-address", "address", f.address, "err", err)
		}
		kube.Sleep(ctx, 5*time.Second)
	}
}
