package cis

import (
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

const (
	noStaticPod = "no static pod runs here: the component is part of the process"
	inProcess   = "lite runs it in its own process, so it has no pod manifest."
)

// chmod and chown are the remedies of files that were not looked at.
const (
	chmod600  = "restrict it with `chmod 600`, the mode that lite gives its own files"
	chmod644  = "restrict it with `chmod 644`"
	chownRoot = "restore the owner with `chown root:root`"
)

const (
	readable = "Whoever can change or read such a file can act as the user in it."
	owned    = "The owner of a file can change it, whatever its mode is."
)

func controlPlaneFiles() []entry {
	return []entry{
		{"1.1.1", 1, Automated, "Only root can change the pod file of the API server", never(noStaticPod), inProcess, ""},
		{"1.1.2", 1, Automated, "root owns the pod file of the API server", never(noStaticPod), inProcess, ""},
		{"1.1.3", 1, Automated, "Only root can change the pod file of the controller manager", never(noStaticPod), inProcess, ""},
		{"1.1.4", 1, Automated, "root owns the pod file of the controller manager", never(noStaticPod), inProcess, ""},
		{"1.1.5", 1, Automated, "Only root can change the pod file of the scheduler", never(noStaticPod), inProcess, ""},
		{"1.1.6", 1, Automated, "root owns the pod file of the scheduler", never(noStaticPod), inProcess, ""},
		{"1.1.7", 1, Automated, "Only root can change the pod file of etcd", never(noStaticPod), inProcess, ""},
		{"1.1.8", 1, Automated, "root owns the pod file of etcd", never(noStaticPod), inProcess, ""},
		{"1.1.9", 1, Manual, "Only root can read the files of the pod network", atMost(0o600, networkFiles),
			"Whoever changes them decides how pods are connected.", chmod600},
		{"1.1.10", 1, Manual, "root owns the files of the pod network", roots(networkFiles), owned, chownRoot},
		{"1.1.11", 1, Automated, "Only its owner can enter etcd's directory", atMost(0o700, at(etcdDir)),
			"Every object of the cluster is in there.", "restrict it with `chmod 700`"},
		{"1.1.12", 1, Automated, "A user of etcd's own owns etcd's directory", etcdOwner,
			"The user etcd is for an etcd that is a separate process. lite's etcd is part of a root process, so root owns the directory, and nobody else has access (1.1.11).", chownRoot},
		{"1.1.13", 1, Automated, "Only root can read the administrators' kubeconfigs", atMost(0o600, at(administrators)),
			"Each is the key to the whole cluster.", "set --write-kubeconfig-mode 600, and give people their own kubeconfigs"},
		{"1.1.14", 1, Automated, "root owns the administrators' kubeconfigs", roots(at(administrators)), owned, chownRoot},
		{"1.1.15", 1, Automated, "Only root can read the scheduler's kubeconfig", atMost(0o600, at(kubeconfigOf(schedulerPart, ofUser(pki.Scheduler)))), readable, chmod600},
		{"1.1.16", 1, Automated, "root owns the scheduler's kubeconfig", roots(at(kubeconfigOf(schedulerPart, ofUser(pki.Scheduler)))),
			owned, chownRoot},
		{"1.1.17", 1, Automated, "Only root can read the controller manager's kubeconfig", atMost(0o600, at(kubeconfigOf(controllerPart, ofUser(pki.ControllerManager)))), readable, chmod600},
		{"1.1.18", 1, Automated, "root owns the controller manager's kubeconfig", roots(at(kubeconfigOf(controllerPart, ofUser(pki.ControllerManager)))), owned, chownRoot},
		{"1.1.19", 1, Automated, "root owns the certificates and keys, and their directories", roots(pkiFiles("*", true)), owned, "restore the owner with `chown -R root:root`"},
		{"1.1.20", 1, Manual, "Only root can change certificates", atMost(0o644, pkiFiles("*.crt", false)),
			"Whoever changes the certificate of an authority decides who is trusted.", chmod644},
		{"1.1.21", 1, Manual, "Only root can read keys", atMost(0o600, pkiFiles("*.key", false)),
			"Whoever reads the key of an authority can pose as anybody; if somebody could, create new keys.", chmod600},
	}
}

// removeArg and addArg are how arguments come and go.
func removeArg(flag, name string) string {
	return "remove `" + name + "` from `" + flag + "` in the configuration, and restart lite"
}

func addArg(flag, arg string) string {
	return "set `--" + flag + " " + arg + "`, or `" + flag + ": [" + arg + "]` in " + layout.Default().Config.File() + ", and restart lite"
}

const (
	apiArg        = "kube-apiserver-arg"
	controllerArg = "kube-controller-manager-arg"
	schedulerArg  = "kube-scheduler-arg"
	etcdArg       = "etcd-arg"
	kubeletArg    = "kubelet-arg"
	proxyArg      = "kube-proxy-arg"
)

func apiServer() []entry {
	const profiling = "Profiles show how the process works inside, and taking them costs processor time."
	return []entry{
		{"1.2.1", 1, Manual, "Requests without credentials are refused", withArguments(apiserverPart, anonymous),
			"Load balancers check the health of the server, and a machine that joins reads the cluster's authority; neither has credentials. lite allows only this, unlike Kubernetes' default.", addArg(apiArg, "anonymous-auth=false")},
		{"1.2.2", 1, Automated, "No token file lets anybody in", unset(apiserverPart, "token-auth-file"),
			"Such tokens are in the file in plain text, never expire, and cannot be revoked without a restart.", removeArg(apiArg, "token-auth-file")},
		{"1.2.3", 1, Manual, "Services cannot claim addresses that are not theirs", choice(plugin("DenyServiceExternalIPs", true, false)),
			"Whoever may create Services can divert traffic for any address to pods through externalIPs. Some clusters need that field.", addArg(apiArg, "enable-admission-plugins=DenyServiceExternalIPs")},
		{"1.2.4", 1, Automated, "The API server presents a certificate to kubelets", set(apiserverPart, "kubelet-client-certificate", "kubelet-client-key"),
			"Otherwise kubelets would have to accept everybody.", removeArg(apiArg, "kubelet-client-…")},
		{"1.2.5", 1, Automated, "The API server knows who signs kubelets' certificates", set(apiserverPart, "kubelet-certificate-authority"),
			"Otherwise somebody in between could pose as a kubelet.", removeArg(apiArg, "kubelet-certificate-authority")},
		{"1.2.6", 1, Automated, "Not everybody may do everything", authorization("AlwaysAllow", false), "With AlwaysAllow, every authenticated user may do anything.", removeArg(apiArg, "authorization-mode")},
		{"1.2.7", 1, Automated, "A node may do only what its pods need", authorization("Node", true), "Without the authorizer Node, each kubelet would need access to all Secrets.", removeArg(apiArg, "authorization-mode")},
		{"1.2.8", 1, Automated, "Roles decide who may do what", authorization("RBAC", true), "RBAC grants individual rights.",
			removeArg(apiArg, "authorization-mode")},
		{"1.2.9", 1, Manual, "A flood of events is throttled", choice(plugin("EventRateLimit", true, false)),
			"Anybody who may write events could fill the datastore with them. The right rate depends on the cluster.", addArg(apiArg, "enable-admission-plugins=EventRateLimit") + " with limits in a file (`admission-control-config-file`)"},
		{"1.2.10", 1, Automated, "No plugin admits everything", plugin("AlwaysAdmit", false, false), "It admits every request.",
			removeArg(apiArg, "enable-admission-plugins")},
		{"1.2.11", 1, Manual, "A node asks the registry each time whether a pod may have an image", choice(plugin("AlwaysPullImages", true, false)),
			"Otherwise a pod can use a private image that another pod has pulled to the node. But with the plugin no pod starts if the registry is unreachable, as on machines without a network.", addArg(apiArg, "enable-admission-plugins=AlwaysPullImages")},
		{"1.2.12", 2, Automated, "The plugin ServiceAccount is on", plugin("ServiceAccount", true, true), "It gives each pod a service account, and checks that the pod may use it.", removeArg(apiArg, "disable-admission-plugins")},
		{"1.2.13", 2, Automated, "The plugin NamespaceLifecycle is on", plugin("NamespaceLifecycle", true, true), "It keeps objects out of namespaces that are being deleted or do not exist.", removeArg(apiArg, "disable-admission-plugins")},
		{"1.2.14", 2, Automated, "The plugin NodeRestriction is on", plugin("NodeRestriction", true, false), "It prevents a node from changing other nodes and their pods.", removeArg(apiArg, "disable-admission-plugins")},
		{"1.2.15", 1, Automated, "Profiling of the API server is off", flag(apiserverPart, "profiling", false, true), profiling, removeArg(apiArg, "profiling")},
		{"1.2.16", 1, Automated, "There is an audit log", set(apiserverPart, "audit-log-path"), "Without it, nobody can find out afterwards who did what.", "set --audit-log-path, and restart lite"},
		{"1.2.17", 1, Automated, "The audit log is kept for 30 days", atLeast(apiserverPart, "audit-log-maxage", 30), "An incident that is discovered late must still be in it.", "set --audit-log-path, which implies this, and leave `audit-log-maxage` out"},
		{"1.2.18", 1, Automated, "Ten audit log files are kept", atLeast(apiserverPart, "audit-log-maxbackup", 10), "An incident that is discovered late must still be in it.", "set --audit-log-path, which implies this, and leave `audit-log-maxbackup` out"},
		{"1.2.19", 1, Automated, "An audit log file may have 100 MiB", atLeast(apiserverPart, "audit-log-maxsize", 100), "With smaller files, a flood of requests soon displaces earlier entries.", "set --audit-log-path, which implies this, and leave `audit-log-maxsize` out"},
		{"1.2.20", 1, Manual, "Requests have a suitable time limit", withArguments(apiserverPart, func(_ *Node, a args) finding {
			return decide(a.shown("request-timeout") + " (Kubernetes' default is 1m0s)")
		}),
			"Slow links need more time, but more time lets a few clients block the server. You decide what is suitable.", addArg(apiArg, "request-timeout=2m") + " if requests are cut off"},
		{"1.2.21", 1, Automated, "A token becomes invalid with its service account", flag(apiserverPart, "service-account-lookup", true, true), "Otherwise the token of a deleted account stays valid.", removeArg(apiArg, "service-account-lookup")},
		{"1.2.22", 1, Automated, "Service account tokens have their own key", withArguments(apiserverPart, accountKey), "Otherwise they would be verified with the API server's serving key.", removeArg(apiArg, "service-account-key-file")},
		{"1.2.23", 1, Automated, "The API server presents a certificate to etcd", set(apiserverPart, "etcd-certfile", "etcd-keyfile"), "Otherwise etcd would have to accept everybody.", removeArg(apiArg, "etcd-certfile and etcd-keyfile")},
		{"1.2.24", 1, Automated, "The API server serves over TLS", set(apiserverPart, "tls-cert-file", "tls-private-key-file"), "Otherwise others could read what it sends, including tokens.", removeArg(apiArg, "tls-cert-file and tls-private-key-file")},
		{"1.2.25", 1, Automated, "The API server knows the authority of clients' certificates", set(apiserverPart, "client-ca-file"), "Nodes and the control plane authenticate with certificates.", removeArg(apiArg, "client-ca-file")},
		{"1.2.26", 1, Automated, "The API server knows who signs etcd's certificate", set(apiserverPart, "etcd-cafile"), "Otherwise somebody in between could pose as etcd.", removeArg(apiArg, "etcd-cafile")},
		{"1.2.27", 1, Manual, "Secrets are encrypted in the datastore", set(apiserverPart, "encryption-provider-config"), "Otherwise anybody with a copy of the datastore can read them.", removeArg(apiArg, "encryption-provider-config")},
		{"1.2.28", 1, Manual, "Secrets are encrypted by a strong provider", withArguments(apiserverPart, providers), "aescbc, kms and secretbox are strong; identity writes plain text, and aesgcm needs frequent changes of its key.", "put secretbox, kms or aescbc first among the providers of secrets in the file, keep the others after it, restart lite, and write all Secrets again"},
		{"1.2.29", 1, Manual, "The API server offers strong cipher suites only", withArguments(apiserverPart, serverCiphers),
			"By default the API server offers CBC suites with SHA-1 for old clients; none of Kubernetes' own needs them.", addArg(apiArg, "tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,…") + " with those that docs/cis.md lists"},
		{"1.2.30", 1, Automated, "Pod tokens expire at the time in them",
			flag(apiserverPart, "service-account-extend-token-expiration", false, true),
			"By default Kubernetes extends such tokens to a year, for clients that do not read them again; a stolen token is valid for as long.", addArg(apiArg, "service-account-extend-token-expiration=false")},
	}
}

// accountKey: a signer outside has the keys.
func accountKey(n *Node, a args) finding {
	if outside, _ := a.value("service-account-signing-endpoint"); outside != "" {
		return pass(a.shown("service-account-signing-endpoint"))
	}
	return set(apiserverPart, "service-account-key-file")(n)
}

func controllerManager() []entry {
	return []entry{
		{"1.3.1", 1, Manual, "Terminated pods are removed in time", choice(atLeast(controllerPart, "terminated-pod-gc-threshold", 1)),
			"They fill the datastore. Kubernetes keeps 12500, which a cluster of lite's size can hold; you decide how many you want to keep.", addArg(controllerArg, "terminated-pod-gc-threshold=500")},
		{"1.3.2", 1, Automated, "Profiling of the controller manager is off", flag(controllerPart, "profiling", false, true), "Profiles show how the process works inside.", removeArg(controllerArg, "profiling")},
		{"1.3.3", 1, Automated, "Each controller has its own account", flag(controllerPart, "use-service-account-credentials", true, false), "Otherwise each of them has the rights of all.", removeArg(controllerArg, "use-service-account-credentials")},
		{"1.3.4", 1, Automated, "The controller manager has the key that signs service accounts' tokens", set(controllerPart, "service-account-private-key-file"), "Tokens that are verified with another key are useless.", removeArg(controllerArg, "service-account-private-key-file")},
		{"1.3.5", 1, Automated, "Pods get the cluster's authority", set(controllerPart, "root-ca-file"), "A pod needs it to verify the API server.", removeArg(controllerArg, "root-ca-file")},
		{"1.3.6", 1, Automated, "Serving certificates of kubelets may be renewed", gate("RotateKubeletServerCertificate"), "With an expired one, logs and exec do not work.", removeArg("…-arg", "feature-gates=RotateKubeletServerCertificate=false")},
		{"1.3.7", 1, Automated, "The controller manager listens only on this machine", loopback(controllerPart, "bind-address"), "Its metrics and health are for this machine.", removeArg(controllerArg, "bind-address")},
	}
}

func scheduler() []entry {
	return []entry{
		{"1.4.1", 1, Automated, "Profiling of the scheduler is off", schedulerProfiles, "Profiles show how the process works inside.", removeArg(schedulerArg, "profiling, or enableProfiling in its file,")},
		{"1.4.2", 1, Automated, "The scheduler listens only on this machine", loopback(schedulerPart, "bind-address"), "Its metrics and health are for this machine.", removeArg(schedulerArg, "bind-address")},
	}
}

func etcd() []entry {
	return []entry{
		{"2.1", 1, Automated, "etcd serves by TLS", set(etcdPart, "cert-file", "key-file"), "Otherwise others could read what it sends.", removeArg(etcdArg, "cert-file and key-file")},
		{"2.2", 1, Automated, "etcd requires a certificate from its clients", flag(etcdPart, "client-cert-auth", true, false), "Whoever reaches etcd can read and write every object.", removeArg(etcdArg, "client-cert-auth")},
		{"2.3", 1, Automated, "etcd does not sign certificates for clients itself", flag(etcdPart, "auto-tls", false, false), "Nobody could distinguish such a certificate from somebody else's.", removeArg(etcdArg, "auto-tls")},
		{"2.4", 1, Automated, "etcd members communicate over TLS", set(etcdPart, "peer-cert-file", "peer-key-file"), "Otherwise others could read what they send each other.", removeArg(etcdArg, "peer-cert-file and peer-key-file")},
		{"2.5", 1, Automated, "etcd members require certificates from each other", flag(etcdPart, "peer-client-cert-auth", true, false), "Otherwise anybody could become a member.", removeArg(etcdArg, "peer-client-cert-auth")},
		{"2.6", 1, Automated, "etcd members do not sign certificates for each other", flag(etcdPart, "peer-auto-tls", false, false), "Nobody could distinguish such a certificate from somebody else's.", removeArg(etcdArg, "peer-auto-tls")},
		{"2.7", 2, Manual, "etcd trusts its own authority", withArguments(etcdPart, ownAuthority), "Otherwise every certificate of the cluster would give access to the datastore.", removeArg(etcdArg, "trusted-ca-file")},
	}
}

func controlPlane() []entry {
	const people = "You decide how people authenticate. "
	return []entry{
		{"3.1.1", 1, Manual, "People have no client certificates", withArguments(apiserverPart, users), people + "A certificate cannot be revoked before it expires.", "set up OIDC (`--kube-apiserver-arg oidc-issuer-url=…`), and keep the administrator's kubeconfig for emergencies"},
		{"3.1.2", 1, Manual, "People do not use service account tokens", withArguments(apiserverPart, users), people + "Such a token does not identify the person.", "set up OIDC (`--kube-apiserver-arg oidc-issuer-url=…`)"},
		{"3.1.3", 1, Manual, "People do not use bootstrap tokens", withArguments(apiserverPart, func(_ *Node, a args) finding {
			return decide(a.shown("enable-bootstrap-token-auth") + "; lite's own are good for joining alone")
		}),
			people + "lite admits machines with bootstrap tokens.", "make sure that only lite's role is bound to " + layout.BootstrapGroup + "; set up OIDC for people"},
		{"3.2.1", 1, Manual, "The audit log has a policy", withArguments(apiserverPart, auditPolicy), "Without a policy, nothing is logged.", "set --audit-log-path, which comes with lite's policy, and restart lite"},
		{"3.2.2", 2, Manual, "The audit log contains what matters for security, and no secret content", withArguments(apiserverPart, auditCovers),
			"It must show who read Secrets, who changed pods and Deployments, and who used exec, port-forward and proxy, without the content of Secrets, ConfigMaps and tokens.", "set --audit-policy-file to a policy that logs the metadata of these requests; lite's own does"},
	}
}
