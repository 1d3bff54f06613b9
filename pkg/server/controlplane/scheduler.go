package controlplane

import (
	"context"

	"k8s.io/component-base/configz"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/pki"
)

// Scheduler is the component kube-scheduler.
type Scheduler struct {
	options *options.Options
	probe   kube.Probe
}

// NewScheduler parses the arguments; nothing is touched before Run.
func NewScheduler(c Config) (*Scheduler, error) {
	o := options.NewOptions()
	if err := kube.Parse("kube-scheduler", *o.Flags, schedulerArgs(c)); err != nil {
		return nil, err
	}
	return &Scheduler{o, kube.NewProbe("https://127.0.0.1:10259/readyz")}, nil
}

func schedulerArgs(c Config) []string {
	kubeconfig := c.Kubeconfig(pki.Scheduler)
	return kube.Args(map[string]string{
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
	cc, sched, err := app.Setup(ctx, s.options)
	if err != nil {
		return err
	}
	return untilDone(ctx, app.Run(ctx, cc, sched))
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
