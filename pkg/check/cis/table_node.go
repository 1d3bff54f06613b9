package cis

import kubeletconfig "k8s.io/kubelet/config/v1beta1"

func nodeFiles() []entry {
	proxy := at(kubeconfigOf(proxyPart, ofNode))
	kubelet := at(kubeconfigOf(kubeletPart, ofNode))
	return []entry{
		{"4.1.1", 1, Automated, "Only root can read the service file", modes(unitMode, unitFiles), "Whoever changes it decides what root runs at the next boot. An OpenRC script must be executable for its owner.", "restrict it with `chmod 600`, or `chmod 700` for an OpenRC script"},
		{"4.1.2", 1, Automated, "root owns the service file", roots(unitFiles), owned, chownRoot},
		{"4.1.3", 1, Manual, "Only root can read kube-proxy's kubeconfig", atMost(0o600, proxy), readable, chmod600},
		{"4.1.4", 1, Manual, "root owns kube-proxy's kubeconfig", roots(proxy), owned, chownRoot},
		{"4.1.5", 1, Automated, "Only root can read the kubelet's kubeconfig", atMost(0o600, kubelet), readable, chmod600},
		{"4.1.6", 1, Automated, "root owns the kubelet's kubeconfig", roots(kubelet), owned, chownRoot},
		{"4.1.7", 1, Manual, "Only root can change the authority of the kubelet's clients", atMost(0o644, at(clientCA)), "Whoever changes it decides who may use the kubelet.", chmod644},
		{"4.1.8", 1, Manual, "root owns the authority of the kubelet's clients", roots(at(clientCA)), owned, chownRoot},
		{"4.1.9", 1, Automated, "Only root can read the kubelet's configuration file", atMost(0o600, kubeletFiles), "There is a file only if you set one with `kubelet-arg: config=…` or `config-dir=…`.", chmod600},
		{"4.1.10", 1, Automated, "root owns the kubelet's configuration file", roots(kubeletFiles), "There is a file only if you set one with `kubelet-arg: config=…` or `config-dir=…`.", chownRoot},
	}
}

func kubelet() []entry {
	type c = kubeletconfig.KubeletConfiguration
	return []entry{
		{"4.2.1", 1, Automated, "The kubelet refuses requests without credentials",
			is("authentication.anonymous.enabled", func(k *c) *bool { return k.Authentication.Anonymous.Enabled }, false, true), "Whoever gets in can read logs and run programs in every pod of the node.", removeArg(kubeletArg, "anonymous-auth")},
		{"4.2.2", 1, Automated, "The kubelet asks the API who may do what", field(authorizes), "With AlwaysAllow, anybody with a certificate of the cluster may use every pod of the node.", removeArg(kubeletArg, "authorization-mode")},
		{"4.2.3", 1, Automated, "The kubelet knows the authority of its clients", field(knowsClients), "The kubelet needs it to verify the API server's certificate.", removeArg(kubeletArg, "client-ca-file")},
		{"4.2.4", 1, Manual, "The kubelet answers nobody that it has not authenticated", field(noReadOnlyPort), "The read-only port shows the specs of all pods of the node to everybody.", removeArg(kubeletArg, "read-only-port")},
		{"4.2.5", 1, Manual, "Idle streams end", field(endsIdleStreams), "Each takes memory and a connection, and with 0 they stay forever.", removeArg(kubeletArg, "streaming-connection-idle-timeout")},
		{"4.2.6", 1, Automated, "The kubelet maintains its packet filter rules",
			is("makeIPTablesUtilChains", func(k *c) *bool { return k.MakeIPTablesUtilChains }, true, true), "They keep strangers from reaching what listens on the node's loopback.", removeArg(kubeletArg, "make-iptables-util-chains")},
		{"4.2.7", 1, Manual, "The node has the name of its machine", choice(unset(kubeletPart, "hostname-override")),
			"lite stores a node's name, so that it stays the same node when the machine gets another one; certificates and approver use that name.", ""},
		{"4.2.8", 2, Manual, "The kubelet may write enough events to show what happens", field(events), "Dropped events are missing when you look for what went wrong.", removeArg(kubeletArg, "event-qps")},
		{"4.2.9", 1, Manual, "The kubelet serves with a certificate of the cluster", field(servesWithCertificate), "Nobody can verify a self-signed one.", removeArg(kubeletArg, "tls-cert-file and tls-private-key-file")},
		{"4.2.10", 1, Automated, "The kubelet renews its certificate", field(rotates), "A node whose certificate has expired drops out of the cluster. A server has the authority's key, so lite renews its certificates without asking the cluster.", removeArg(kubeletArg, "rotate-certificates")},
		{"4.2.11", 1, Manual, "The kubelet renews its serving certificate", field(rotatesServing), "With an expired one, logs and exec do not work. A server has the authority's key, so lite renews its certificates without asking the cluster.", removeArg(kubeletArg, "feature-gates=RotateKubeletServerCertificate=false")},
		{"4.2.12", 1, Manual, "The kubelet offers strong cipher suites only", field(kubeletCiphers), "By default the kubelet offers CBC suites with SHA-1 for old clients; the API server needs none of them.", addArg(kubeletArg, "tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,…") + " with those that docs/cis.md lists"},
		{"4.2.13", 1, Manual, "The number of processes in a pod is limited", field(limitsPIDs), "Otherwise one pod can use up all process IDs of the node.", addArg(kubeletArg, "pod-max-pids=4096")},
		{"4.2.14", 1, Manual, "Pods have a seccomp profile by default",
			is("seccompDefault", func(k *c) *bool { return k.SeccompDefault }, true, false), "Otherwise they can use every system call of the kernel.", addArg(kubeletArg, "seccomp-default=true")},
	}
}

func kubeProxy() []entry {
	return []entry{
		{"4.3.1", 1, Automated, "kube-proxy serves its metrics only on this machine", proxyFigures, "It does not authenticate clients.", removeArg(proxyArg, "metrics-bind-address")},
	}
}
