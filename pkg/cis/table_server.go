package cis

import (
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

const (
	noStaticPod = "no static pod runs here: the component is part of the process"
	inProcess   = "lite runs it in its own process, so there is no file that describes a pod of it."
)

// chmod and chown are the remedies of files that were not looked at.
const (
	chmod600  = "take the rights away with `chmod 600`; lite makes its own files so"
	chmod644  = "take the rights away with `chmod 644`"
	chownRoot = "give it back with `chown root:root`"
)

const (
	readable = "Who can change or read such a file can become what it speaks for."
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
			"Who changes them decides how pods are connected.", chmod600},
		{"1.1.10", 1, Manual, "root owns the files of the pod network", roots(networkFiles), owned, chownRoot},
		{"1.1.11", 1, Automated, "Only its owner can enter etcd's directory", atMost(0o700, at(etcdDir)),
			"Every object of the cluster is in there.", "take the rights away with `chmod 700`"},
		{"1.1.12", 1, Automated, "A user of etcd's own owns etcd's directory", etcdOwner,
			"The user etcd is for an etcd that is a process of its own. lite's is part of a process of root's, so the directory is root's, and closed to all others (1.1.11).", chownRoot},
		{"1.1.13", 1, Automated, "Only root can read the administrators' kubeconfigs", atMost(0o600, at(administrators)),
			"Each is the key to the whole cluster.", "say --write-kubeconfig-mode 600, and give people kubeconfigs of their own"},
		{"1.1.14", 1, Automated, "root owns the administrators' kubeconfigs", roots(at(administrators)), owned, chownRoot},
		{"1.1.15", 1, Automated, "Only root can read the scheduler's kubeconfig", atMost(0o600, at(kubeconfigOf(schedulerPart, ofUser(pki.Scheduler)))), readable, chmod600},
		{"1.1.16", 1, Automated, "root owns the scheduler's kubeconfig", roots(at(kubeconfigOf(schedulerPart, ofUser(pki.Scheduler)))), owned, chownRoot},
		{"1.1.17", 1, Automated, "Only root can read the controller manager's kubeconfig", atMost(0o600, at(kubeconfigOf(controllerPart, ofUser(pki.ControllerManager)))), readable, chmod600},
		{"1.1.18", 1, Automated, "root owns the controller manager's kubeconfig", roots(at(kubeconfigOf(controllerPart, ofUser(pki.ControllerManager)))), owned, chownRoot},
		{"1.1.19", 1, Automated, "root owns the certificates and keys, and their directories", roots(pkiFiles("*", true)), owned, "give them back with `chown -R root:root`"},
		{"1.1.20", 1, Manual, "Only root can change certificates", atMost(0o644, pkiFiles("*.crt", false)),
			"Who changes the certificate of an authority decides who is trusted.", chmod644},
		{"1.1.21", 1, Manual, "Only root can read keys", atMost(0o600, pkiFiles("*.key", false)),
			"Who reads the key of an authority can be anybody; make new ones if somebody could.", chmod600},
	}
}

// removeArg and addArg are how arguments come and go.
func removeArg(flag, name string) string {
	return "remove `" + name + "` from `" + flag + "` in the configuration, and start lite again"
}

func addArg(flag, arg string) string {
	return "say `--" + flag + " " + arg + "`, or `" + flag + ": [" + arg + "]` in " + standard.Config.File() + ", and start lite again"
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
	const profiling = "What is profiled shows how the process works inside, and asking for it costs processor time."
	return []entry{
		{"1.2.1", 1, Manual, "Requests that show nothing are refused", told(apiserverPart, anonymous),
			"Load balancers ask whether the server is well, and a machine that joins asks for the cluster's authority; both have nothing to show. lite lets them in for that alone, and Kubernetes' default of everything is off.", addArg(apiArg, "anonymous-auth=false")},
		{"1.2.2", 1, Automated, "No file of tokens lets anybody in", unset(apiserverPart, "token-auth-file"),
			"Such tokens stand in the file as they are, never end, and cannot be taken back without a restart.", removeArg(apiArg, "token-auth-file")},
		{"1.2.3", 1, Manual, "Services cannot claim addresses that are not theirs", choice(plugin("DenyServiceExternalIPs", true, false)),
			"Whoever may make Services can draw traffic for any address to pods by externalIPs. Some clusters need that field.", addArg(apiArg, "enable-admission-plugins=DenyServiceExternalIPs")},
		{"1.2.4", 1, Automated, "The API server shows kubelets a certificate", set(apiserverPart, "kubelet-client-certificate", "kubelet-client-key"),
			"Otherwise kubelets would have to let everybody in.", removeArg(apiArg, "kubelet-client-…")},
		{"1.2.5", 1, Automated, "The API server knows whose kubelets' certificates are", set(apiserverPart, "kubelet-certificate-authority"),
			"Otherwise somebody between them could pose as a kubelet.", removeArg(apiArg, "kubelet-certificate-authority")},
		{"1.2.6", 1, Automated, "Not everybody may do everything", authorization("AlwaysAllow", false), "With AlwaysAllow whoever is known may do anything.", removeArg(apiArg, "authorization-mode")},
		{"1.2.7", 1, Automated, "A node may do what its pods need only", authorization("Node", true), "Without the authorizer Node each kubelet would need rights to all Secrets.", removeArg(apiArg, "authorization-mode")},
		{"1.2.8", 1, Automated, "Roles decide who may do what", authorization("RBAC", true), "RBAC is how rights are given one by one.", removeArg(apiArg, "authorization-mode")},
		{"1.2.9", 1, Manual, "A flood of events is held back", choice(plugin("EventRateLimit", true, false)),
			"Somebody who may write events could fill the datastore with them. What rate is right depends on the cluster.", addArg(apiArg, "enable-admission-plugins=EventRateLimit") + " with a file of limits (`admission-control-config-file`)"},
		{"1.2.10", 1, Automated, "No plugin admits everything", plugin("AlwaysAdmit", false, false), "The name says it.", removeArg(apiArg, "enable-admission-plugins")},
		{"1.2.11", 1, Manual, "A node asks the registry each time whether a pod may have an image", choice(plugin("AlwaysPullImages", true, false)),
			"Otherwise a pod can use a private image that another pod has brought to the node. With it no pod starts where the registry cannot be reached, as on machines without a network.", addArg(apiArg, "enable-admission-plugins=AlwaysPullImages")},
		{"1.2.12", 2, Automated, "The plugin ServiceAccount is on", plugin("ServiceAccount", true, true), "It gives each pod a service account, and checks that it may have it.", removeArg(apiArg, "disable-admission-plugins")},
		{"1.2.13", 2, Automated, "The plugin NamespaceLifecycle is on", plugin("NamespaceLifecycle", true, true), "It keeps objects out of namespaces that end or are not there.", removeArg(apiArg, "disable-admission-plugins")},
		{"1.2.14", 2, Automated, "The plugin NodeRestriction is on", plugin("NodeRestriction", true, false), "It keeps a node from changing other nodes and pods that are not its own.", removeArg(apiArg, "disable-admission-plugins")},
		{"1.2.15", 1, Automated, "Profiling of the API server is off", flag(apiserverPart, "profiling", false, true), profiling, removeArg(apiArg, "profiling")},
		{"1.2.16", 1, Automated, "There is an audit log", set(apiserverPart, "audit-log-path"), "Without it nobody can tell afterwards who has done what.", "say --audit-log-path, and start lite again"},
		{"1.2.17", 1, Automated, "The audit log is kept for 30 days", atLeast(apiserverPart, "audit-log-maxage", 30), "What is found out late has to be in it still.", "say --audit-log-path, which brings this, and leave `audit-log-maxage` out"},
		{"1.2.18", 1, Automated, "Ten files of the audit log are kept", atLeast(apiserverPart, "audit-log-maxbackup", 10), "What is found out late has to be in it still.", "say --audit-log-path, which brings this, and leave `audit-log-maxbackup` out"},
		{"1.2.19", 1, Automated, "A file of the audit log may have 100 MiB", atLeast(apiserverPart, "audit-log-maxsize", 100), "With smaller ones a flood of requests soon pushes out what was before.", "say --audit-log-path, which brings this, and leave `audit-log-maxsize` out"},
		{"1.2.20", 1, Manual, "Requests end after a time that fits", told(apiserverPart, func(_ *Node, a args) finding {
			return decide(a.shown("request-timeout") + " (Kubernetes' default is 1m0s)")
		}),
			"Slow links need more, and more lets few clients hold up the server. What fits is for you to say.", addArg(apiArg, "request-timeout=2m") + " if requests are cut off"},
		{"1.2.21", 1, Automated, "A token ends with its service account", flag(apiserverPart, "service-account-lookup", true, true), "Otherwise the token of an account that was deleted stays good.", removeArg(apiArg, "service-account-lookup")},
		{"1.2.22", 1, Automated, "Tokens of service accounts have a key of their own", told(apiserverPart, accountKey), "Otherwise they would be verified by the key that the API server serves with.", removeArg(apiArg, "service-account-key-file")},
		{"1.2.23", 1, Automated, "The API server shows etcd a certificate", set(apiserverPart, "etcd-certfile", "etcd-keyfile"), "Otherwise etcd would have to let everybody in.", removeArg(apiArg, "etcd-certfile and etcd-keyfile")},
		{"1.2.24", 1, Automated, "The API server serves by TLS", set(apiserverPart, "tls-cert-file", "tls-private-key-file"), "Otherwise what it sends could be read, and tokens with it.", removeArg(apiArg, "tls-cert-file and tls-private-key-file")},
		{"1.2.25", 1, Automated, "The API server knows the authority of clients' certificates", set(apiserverPart, "client-ca-file"), "Nodes and the control plane show certificates.", removeArg(apiArg, "client-ca-file")},
		{"1.2.26", 1, Automated, "The API server knows whose etcd's certificate is", set(apiserverPart, "etcd-cafile"), "Otherwise somebody between them could pose as etcd.", removeArg(apiArg, "etcd-cafile")},
		{"1.2.27", 1, Manual, "Secrets are encrypted in the datastore", set(apiserverPart, "encryption-provider-config"), "Otherwise who has a copy of the datastore can read them.", removeArg(apiArg, "encryption-provider-config")},
		{"1.2.28", 1, Manual, "Secrets are encrypted by a provider that is strong", told(apiserverPart, providers), "aescbc, kms and secretbox are; identity writes them as they are, and of aesgcm the key has to be changed often.", "put secretbox, kms or aescbc first among the providers of secrets in the file, keep the others after it, start lite again, and write all Secrets anew"},
		{"1.2.29", 1, Manual, "The API server offers strong cipher suites only", told(apiserverPart, serverCiphers),
			"Suites in CBC mode with SHA-1 are offered to old clients; none of Kubernetes' own needs them.", addArg(apiArg, "tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,…") + " with those that docs/cis.md lists"},
		{"1.2.30", 1, Automated, "Tokens of pods end when they say", flag(apiserverPart, "service-account-extend-token-expiration", false, true),
			"Kubernetes makes such tokens last a year, for clients that do not read them again; one that is stolen is as good for as long.", addArg(apiArg, "service-account-extend-token-expiration=false")},
	}
}

// accountKey: a signer outside has the keys.
func accountKey(n *Node, a args) finding {
	if outside, _ := a.said("service-account-signing-endpoint"); outside != "" {
		return pass(a.shown("service-account-signing-endpoint"))
	}
	return set(apiserverPart, "service-account-key-file")(n)
}

func controllerManager() []entry {
	return []entry{
		{"1.3.1", 1, Manual, "Pods that have ended are removed in time", choice(atLeast(controllerPart, "terminated-pod-gc-threshold", 1)),
			"They fill the datastore. Kubernetes keeps 12500, which a cluster of lite's size holds without trouble; what you want to keep for looking at is for you to say.", addArg(controllerArg, "terminated-pod-gc-threshold=500")},
		{"1.3.2", 1, Automated, "Profiling of the controller manager is off", flag(controllerPart, "profiling", false, true), "What is profiled shows how the process works inside.", removeArg(controllerArg, "profiling")},
		{"1.3.3", 1, Automated, "Each controller has an account of its own", flag(controllerPart, "use-service-account-credentials", true, false), "Otherwise all of them have the rights of all.", removeArg(controllerArg, "use-service-account-credentials")},
		{"1.3.4", 1, Automated, "The controller manager has the key that signs service accounts' tokens", set(controllerPart, "service-account-private-key-file"), "Tokens that are verified by another key are not good for anything.", removeArg(controllerArg, "service-account-private-key-file")},
		{"1.3.5", 1, Automated, "Pods are given the cluster's authority", set(controllerPart, "root-ca-file"), "By it a pod knows that it speaks with the API server.", removeArg(controllerArg, "root-ca-file")},
		{"1.3.6", 1, Automated, "Serving certificates of kubelets may be renewed", gate("RotateKubeletServerCertificate"), "One that has ended keeps logs and exec from working.", removeArg("…-arg", "feature-gates=RotateKubeletServerCertificate=false")},
		{"1.3.7", 1, Automated, "The controller manager listens on this machine alone", loopback(controllerPart, "bind-address"), "Its figures and health are for this machine.", removeArg(controllerArg, "bind-address")},
	}
}

func scheduler() []entry {
	return []entry{
		{"1.4.1", 1, Automated, "Profiling of the scheduler is off", schedulerProfiles, "What is profiled shows how the process works inside.", removeArg(schedulerArg, "profiling, or enableProfiling in its file,")},
		{"1.4.2", 1, Automated, "The scheduler listens on this machine alone", loopback(schedulerPart, "bind-address"), "Its figures and health are for this machine.", removeArg(schedulerArg, "bind-address")},
	}
}

func etcd() []entry {
	return []entry{
		{"2.1", 1, Automated, "etcd serves by TLS", set(etcdPart, "cert-file", "key-file"), "Otherwise what it sends could be read.", removeArg(etcdArg, "cert-file and key-file")},
		{"2.2", 1, Automated, "etcd wants a certificate of its clients", flag(etcdPart, "client-cert-auth", true, false), "Who reaches etcd can read and write every object.", removeArg(etcdArg, "client-cert-auth")},
		{"2.3", 1, Automated, "etcd does not sign certificates for clients itself", flag(etcdPart, "auto-tls", false, false), "Nobody could tell such a certificate from another's.", removeArg(etcdArg, "auto-tls")},
		{"2.4", 1, Automated, "Members of etcd speak by TLS", set(etcdPart, "peer-cert-file", "peer-key-file"), "Otherwise what they tell each other could be read.", removeArg(etcdArg, "peer-cert-file and peer-key-file")},
		{"2.5", 1, Automated, "Members of etcd want a certificate of each other", flag(etcdPart, "peer-client-cert-auth", true, false), "Otherwise anybody could become a member.", removeArg(etcdArg, "peer-client-cert-auth")},
		{"2.6", 1, Automated, "Members of etcd do not sign certificates for each other", flag(etcdPart, "peer-auto-tls", false, false), "Nobody could tell such a certificate from another's.", removeArg(etcdArg, "peer-auto-tls")},
		{"2.7", 2, Manual, "etcd trusts an authority of its own", told(etcdPart, ownAuthority), "Otherwise each certificate of the cluster would open the datastore.", removeArg(etcdArg, "trusted-ca-file")},
	}
}

func controlPlane() []entry {
	const people = "How people prove who they are is for you to arrange. "
	return []entry{
		{"3.1.1", 1, Manual, "People have no client certificates", told(apiserverPart, users), people + "A certificate cannot be taken back before it ends.", "set up OIDC (`--kube-apiserver-arg oidc-issuer-url=…`), and keep the administrator's kubeconfig for emergencies"},
		{"3.1.2", 1, Manual, "People do not use tokens of service accounts", told(apiserverPart, users), people + "Such a token says nothing of the person.", "set up OIDC (`--kube-apiserver-arg oidc-issuer-url=…`)"},
		{"3.1.3", 1, Manual, "People do not use bootstrap tokens", told(apiserverPart, func(_ *Node, a args) finding {
			return decide(a.shown("enable-bootstrap-token-auth") + "; lite's own are good for joining alone")
		}),
			people + "lite admits machines by bootstrap tokens.", "see that no role is bound to " + layout.BootstrapGroup + " but lite's; set up OIDC for people"},
		{"3.2.1", 1, Manual, "The audit log has a policy", told(apiserverPart, auditPolicy), "Without a policy nothing is written into it.", "say --audit-log-path, which brings a policy of lite's, and start lite again"},
		{"3.2.2", 2, Manual, "The audit log has what matters for security, and no content that is secret", told(apiserverPart, auditCovers),
			"It has to tell who read Secrets, who changed pods and Deployments, and who used exec, port-forward and proxy, without what is in Secrets, ConfigMaps and tokens.", "say --audit-policy-file with a policy that has these requests by their metadata; lite's own has"},
	}
}
