package controlplane

import (
	_ "embed" // the policies
	"slices"
	"strings"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/kube"
)

var (
	//go:embed policies/audit.yaml
	auditPolicy string
	//go:embed policies/admission.yaml
	admissionConfig string
	//go:embed policies/admission-cis.yaml
	admissionConfigCIS string
)

// writePolicies writes those of ours that are in force.
func (c Config) writePolicies() error {
	if c.auditPolicyFile() == c.Dir.AuditPolicy() {
		if err := writeFile(c.Dir.AuditPolicy(), auditPolicy); err != nil {
			return err
		}
	}
	if c.admits() {
		return writeFile(c.Dir.Admission(), c.admission())
	}
	return nil
}

// auditPolicyFile says what is logged; "" = there is no audit log. Upstream writes
// nothing without a policy, and says nothing (1.37).
func (c Config) auditPolicyFile() string {
	log, hook := c.Node.AuditLog()
	file, own := kube.Value(c.Node.APIServerArgs, "audit-policy-file")
	switch {
	case log == "" && !hook:
		return ""
	case own:
		return file
	case c.Node.AuditPolicyFile != "":
		return c.Node.AuditPolicyFile
	}
	return c.Dir.AuditPolicy()
}

// auditArgs is what the API server is told of the audit log.
func (c Config) auditArgs() map[string]string {
	policy := c.auditPolicyFile()
	if policy == "" {
		return nil
	}
	args := map[string]string{"audit-policy-file": policy}
	if log, _ := c.Node.AuditLog(); log != "" {
		args["audit-log-path"] = log
		args["audit-log-maxage"] = "30" // days
		args["audit-log-maxbackup"] = "10"
		args["audit-log-maxsize"] = "100"   // MiB
		args["audit-log-compress"] = "true" // to a fifteenth
	}
	return args
}

// admits is whether admission plugins are set as we say: a user's file has all that
// there is to say.
func (c Config) admits() bool {
	_, theirs := kube.Value(c.Node.APIServerArgs, "admission-control-config-file")
	return !theirs
}

func (c Config) admission() string {
	if c.Cluster.Profile == config.ProfileCIS {
		return admissionConfig + admissionConfigCIS
	}
	return admissionConfig
}

// plugins is what we switch on besides what Kubernetes has on by itself.
// EventRateLimit cannot be without limits, which a user's file may not have.
// DenyServiceExternalIPs: who may write a Service could take over the traffic to any
// address by that field (CVE-2020-8554); addresses of type LoadBalancer are lite's to
// give.
func (c Config) plugins() string {
	on := []string{"DenyServiceExternalIPs", "EventRateLimit", "NodeRestriction"}
	if !c.admits() {
		on = slices.DeleteFunc(on, func(name string) bool { return name == "EventRateLimit" })
	}
	if c.Cluster.Profile == config.ProfileCIS {
		on = append(on, "AlwaysPullImages")
	}
	return strings.Join(on, ",")
}
