package upgrade

import (
	"errors"
	"fmt"

	utilversion "k8s.io/apimachinery/pkg/util/version"

	"lite.io/lite/pkg/version"
)

// member is another node of the cluster, as far as versions matter.
type member struct {
	Name    string
	Server  bool
	Kubelet string // version of Kubernetes
	Ready   bool
}

// olderKubelets is how many minor versions a kubelet may be behind the API
// server. This rule and those below are from Kubernetes' version skew policy,
// https://kubernetes.io/releases/version-skew-policy/.
const olderKubelets = 3

// checkVersions refuses what no order of upgrades makes right: another way than
// forward, and, for what keeps the datastore, more than one minor version of
// Kubernetes or of etcd at a time.
func checkVersions(now, next version.Info, server bool) error {
	from, to, err := parse(now.Version, next.Version)
	if err != nil {
		return err
	}
	if to.LessThan(from) {
		return fmt.Errorf("lite %s is older than %s, which is running; an upgrade only goes forward: `lite rollback` restores what the last upgrade has backed up", next.Version, now.Version)
	}
	for _, part := range []struct{ name, from, to, steps string }{
		{"Kubernetes", now.Kubernetes, next.Kubernetes, "the servers of Kubernetes go one minor version at a time"},
		{"etcd", now.Etcd, next.Etcd, "a datastore goes one minor version at a time"},
	} {
		from, to, err := parse(part.from, part.to)
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		switch step := distance(from, to); {
		case step < 0:
			return fmt.Errorf("lite %s has %s %s, which is older than %s, which is running; choose a lite with %d.%d or later", next.Version, part.name, part.to, part.from, from.Major(), from.Minor())
		case step > 1 && server:
			return fmt.Errorf("lite %s has %s %s and %s is running: %s; upgrade to a lite with %s %d.%d first", next.Version, part.name, part.to, part.from, part.steps, part.name, from.Major(), from.Minor()+1)
		}
	}
	return nil
}

// checkServerSkew refuses an API server that the other nodes do not go with:
// kubelets are never newer and at most three minor versions older, API servers
// at most one minor version apart.
func checkServerSkew(next string, others []member) error {
	to, err := utilversion.ParseSemantic(next)
	if err != nil {
		return fmt.Errorf("Kubernetes: %q is not a version", next)
	}
	var errs []error
	for _, m := range others {
		theirs, err := utilversion.ParseSemantic(m.Kubelet)
		if err != nil {
			errs = append(errs, fmt.Errorf("node %s reports %q, which is not a version of Kubernetes; restart lite on it, or delete the node if it is gone", m.Name, m.Kubelet))
			continue
		}
		behind := distance(theirs, to)
		switch {
		case m.Server && !m.Ready:
			errs = append(errs, fmt.Errorf("server %s is not ready; upgrade servers one by one while all others work: fix it first", m.Name))
		case m.Server && behind > 1:
			errs = append(errs, fmt.Errorf("server %s has Kubernetes %s, two or more minor versions behind %s; upgrade it first: servers may be one apart", m.Name, m.Kubelet, next))
		case !m.Server && behind > olderKubelets:
			errs = append(errs, fmt.Errorf("agent %s has Kubernetes %s, more than %d minor versions behind %s; upgrade it first", m.Name, m.Kubelet, olderKubelets, next))
		case behind < 0:
			errs = append(errs, fmt.Errorf("node %s has Kubernetes %s, which is newer than %s: no node may be newer than a server; choose a later version for the server", m.Name, m.Kubelet, next))
		}
	}
	return errors.Join(errs...)
}

// apiServer is one of the servers that an agent knows.
type apiServer struct{ Address, Version string }

// checkAgentSkew refuses an agent that is newer than a server, or too old for
// one.
func checkAgentSkew(next string, servers []apiServer) error {
	to, err := utilversion.ParseSemantic(next)
	if err != nil {
		return fmt.Errorf("Kubernetes: %q is not a version", next)
	}
	if len(servers) == 0 {
		return errors.New("no server has reported its version; an agent must not be newer than a server: see `lite status`")
	}
	var errs []error
	for _, s := range servers {
		theirs, err := utilversion.ParseSemantic(s.Version)
		if err != nil {
			errs = append(errs, fmt.Errorf("server %s reports %q, which is not a version of Kubernetes", s.Address, s.Version))
			continue
		}
		switch behind := distance(to, theirs); {
		case behind < 0:
			errs = append(errs, fmt.Errorf("server %s has Kubernetes %s and an agent must not be newer (%s); upgrade all servers first, then the agents", s.Address, s.Version, next))
		case behind > olderKubelets:
			errs = append(errs, fmt.Errorf("server %s has Kubernetes %s, more than %d minor versions ahead of %s; choose a later version", s.Address, s.Version, olderKubelets, next))
		}
	}
	return errors.Join(errs...)
}

// distance is how many minor versions b is ahead of a; another major version
// counts as far away.
func distance(a, b *utilversion.Version) int {
	const far = 100
	return far*(int(b.Major())-int(a.Major())) + int(b.Minor()) - int(a.Minor())
}

func parse(a, b string) (va, vb *utilversion.Version, err error) {
	if va, err = utilversion.ParseSemantic(a); err != nil {
		return nil, nil, fmt.Errorf("%q, which is running, is not a version; install a release with install.sh", a)
	}
	if vb, err = utilversion.ParseSemantic(b); err != nil {
		return nil, nil, fmt.Errorf("the artifact reports the version %q, which is not a version; use a release", b)
	}
	return va, vb, nil
}
