package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/component-base/configz"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/validation"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/component/series"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/pki"
)

// Scheduler is the component kube-scheduler.
type Scheduler struct {
	options *options.Options
	args    []string
	config  []byte // what its configuration file is to hold; nil if it has none
	probe   kube.Probe
}

// NewScheduler parses the arguments; nothing is touched before Run.
func NewScheduler(c Config) (*Scheduler, error) {
	o := options.NewOptions()
	if err := kube.CheckArgs("kube-scheduler", c.Node.SchedulerArgs); err != nil {
		return nil, err
	}
	args := schedulerArgs(c)
	if err := kube.Parse("kube-scheduler", *o.Flags, args); err != nil {
		return nil, err
	}
	// What upstream says of flags when it runs; of its configuration that is said below.
	if errs := slices.Concat(o.SecureServing.Validate(), o.Authentication.Validate(), o.Authorization.Validate(),
		o.Metrics.Validate()); len(errs) > 0 {
		return nil, fmt.Errorf("kube-scheduler-arg: %w", utilerrors.NewAggregate(errs))
	}
	url, err := healthURL("kube-scheduler", o.SecureServing, "/readyz")
	if err != nil {
		return nil, err
	}
	s := &Scheduler{options: o, args: args, probe: c.probe(url)}
	if o.ConfigFile != "" {
		if s.config, err = schedulerConfig(c, o.ConfigFile); err != nil {
			return nil, err
		}
		o.ConfigFile = c.Dir.Scheduler()
	}
	return s, nil
}

// schedulerConfig is a user's file on top of what lite says by flags otherwise.
func schedulerConfig(c Config, path string) ([]byte, error) {
	f, err := kube.ReadConfigFile("kube-scheduler", "config", path, scheme.Codecs.UniversalDeserializer(), "KubeSchedulerConfiguration")
	if err != nil {
		return nil, err
	}
	kubeconfig := c.Dir.Kubeconfig(pki.Scheduler)
	if err := f.Claim([]kube.Owned{
		{Field: "clientConnection.kubeconfig", Value: kubeconfig, Remedy: "remove it"},
		{Field: "leaderElection.leaderElect", Value: false, Remedy: "remove it: lite runs one scheduler"},
	}); err != nil {
		return nil, err
	}
	f.Prune()
	base, err := json.Marshal(map[string]any{
		"clientConnection": map[string]any{"kubeconfig": kubeconfig},
		"leaderElection":   map[string]any{"leaderElect": false},
		"enableProfiling":  false,
	})
	if err != nil {
		return nil, err
	}
	merged, err := f.Over(base)
	if err != nil {
		return nil, err
	}
	var cfg config.KubeSchedulerConfiguration
	if err := runtime.DecodeInto(scheme.Codecs.UniversalDecoder(), merged, &cfg); err != nil {
		return nil, f.Wrong(err)
	}
	if err := validation.ValidateKubeSchedulerConfiguration(&cfg); err != nil {
		return nil, f.Wrong(err)
	}
	return merged, nil
}

func schedulerArgs(c Config) []string {
	kubeconfig := c.Dir.Kubeconfig(pki.Scheduler)
	return kube.Args("kube-scheduler", map[string]string{
		"authentication-kubeconfig":  kubeconfig,
		"authentication-skip-lookup": "true",
		"authorization-kubeconfig":   kubeconfig,
		"bind-address":               "127.0.0.1",
		"client-ca-file":             c.PKI.CA(pki.ClusterCA),
		"kubeconfig":                 kubeconfig,
		// Its own election ends the process when it loses; ours does not.
		"leader-elect":         "false",
		"profiling":            "false",
		"tls-cert-file":        c.PKI.Cert(pki.Scheduler),
		"tls-cipher-suites":    strings.Join(kube.CipherSuites(), ","),
		"tls-min-version":      kube.MinTLSVersion,
		"tls-private-key-file": c.PKI.Key(pki.Scheduler),
	}, c.Node.SchedulerArgs)
}

// Name implements component.Component.
func (*Scheduler) Name() string { return "scheduler" }

// Run implements component.Component.
func (s *Scheduler) Run(ctx context.Context) error {
	// The name is taken in a process-wide table; a second term of leadership
	// must find it free.
	defer configz.Delete("componentconfig")
	if s.config != nil {
		if err := writeFile(s.options.ConfigFile, string(s.config)); err != nil {
			return err
		}
	}
	s.options.SecureServing.Listener = nil // of the last term
	cc, sched, err := app.Setup(ctx, s.options)
	if err != nil {
		return err
	}
	cc.Authentication.Authenticator = series.Scheduler.Narrow(cc.Authentication.Authenticator)
	return untilDone(ctx, app.Run(ctx, cc, sched))
}

// Settings implements component.Configured.
func (s *Scheduler) Settings() (component.Settings, error) {
	return component.Settings{Arguments: s.args, Configuration: s.config}, nil
}

// Ready implements component.Component.
func (s *Scheduler) Ready(ctx context.Context) error { return s.probe.Check(ctx) }

// untilDone drops the error that upstream returns for having been told to stop.
func untilDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
