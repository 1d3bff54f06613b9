package cis

import (
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// fewer is the remedy about rights.
const fewer = "check whether they need it, and give them a role with fewer rights"

func roles() []entry {
	const people = "You decide whom to trust with it."
	read, write := []string{"get", "list", "watch"}, []string{"create", "update", "patch", "delete"}
	hooks := func(resource string) right { return right{write, "admissionregistration.k8s.io", resource, ""} }
	return []entry{
		{"5.1.1", 1, Manual, "Few have the role cluster-admin", onlyGiven(func(kind, name string, _ []rbacv1.PolicyRule) bool {
			return kind == "ClusterRole" && name == "cluster-admin"
		}), "Whoever has it may do everything. " + people, fewer},
		{"5.1.2", 1, Manual, "Few may read Secrets", rarely(right{read, "", "secrets", ""}), "Whoever reads the tokens in them can act as their owners. " + people, fewer},
		{"5.1.3", 1, Manual, "Few roles use *", among(wildcards), "It also covers whatever the next version adds. You decide what a role is for.", "list the groups, resources and verbs that it needs"},
		{"5.1.4", 1, Manual, "Few may create pods", rarely(right{[]string{"create"}, "", "pods", ""}), "A pod can use every Secret and service account of its namespace. " + people, fewer},
		{"5.1.5", 1, Manual, "Service accounts named default are not used", among(unmounted), "Every pod that names none uses the one of its namespace, and gets its token with everything bound to it.", "set `automountServiceAccountToken: false` on each, and give pods that need the API their own accounts"},
		{"5.1.6", 1, Manual, "Pods have a token only where they need it", among(tokens), "Whoever breaks into a pod has its token. You decide which pods use the API.", "set `automountServiceAccountToken: false` in the pods, or on their service accounts"},
		{"5.1.7", 1, Manual, "Nobody uses the group system:masters", among(superusers), "No role can restrict it. lite writes its own objects with it, and its administrator's kubeconfig has it, so that you can repair a cluster with broken roles.", "give people their own users, and keep the administrator's kubeconfig for emergencies"},
		{"5.1.8", 1, Manual, "Few may bind, impersonate or escalate", rarely(
			right{[]string{"impersonate"}, "", "users", ""}, right{[]string{"impersonate"}, "", "groups", ""},
			right{[]string{"impersonate"}, "", "serviceaccounts", ""},
			right{[]string{"bind", "escalate"}, rbacv1.GroupName, "clusterroles", ""},
			right{[]string{"bind", "escalate"}, rbacv1.GroupName, "roles", ""}),
			"Each of these lets a user become somebody with more rights. " + people, fewer},
		{"5.1.9", 1, Manual, "Few may create PersistentVolumes", rarely(right{[]string{"create"}, "", "persistentvolumes", ""}), "A hostPath volume gives access to the files of a node. " + people, fewer},
		{"5.1.10", 1, Manual, "Few may use kubelets through the API server", rarely(right{[]string{"get", "create", "update", "patch", "delete"}, "", "nodes", "proxy"}), "This allows running programs in every pod of a node, past admission and most of the audit log. " + people, fewer},
		{"5.1.11", 1, Manual, "Few may approve certificates", rarely(right{[]string{"update", "patch"}, "certificates.k8s.io", "certificatesigningrequests", "approval"}), "Whoever may approve them can get a certificate for any user. " + people, fewer},
		{"5.1.12", 1, Manual, "Few may change webhooks", rarely(hooks("validatingwebhookconfigurations"), hooks("mutatingwebhookconfigurations")), "A webhook sees, and can change, every object that is written. " + people, fewer},
		{"5.1.13", 1, Manual, "Few may create service account tokens", rarely(right{[]string{"create"}, "", "serviceaccounts", "token"}), "Such a token has the rights of its account. " + people, fewer},
	}
}

func podSecurity() []entry {
	const (
		yours  = "You decide what your pods need; lite runs none of its own."
		remedy = "label the namespaces of users: `kubectl label namespace NAME "
	)
	baseline, restricted := remedy+enforceLabel+"=baseline`", remedy+enforceLabel+"=restricted`"
	return []entry{
		{"5.2.1", 1, Manual, "Something decides which pods may be created", among(guarded), yours, baseline},
		{"5.2.2", 1, Manual, "Privileged containers are kept out", keptOut("baseline", "is privileged", anyContainer(privileged)),
			"Such a container is root on the node. " + yours, baseline},
		{"5.2.3", 1, Manual, "Pods among the node's processes are kept out", keptOut("baseline", "has hostPID", func(p *corev1.Pod) bool { return p.Spec.HostPID }), "They see the memory and the variables of everything that runs there. " + yours, baseline},
		{"5.2.4", 1, Manual, "Pods in the node's IPC are kept out", keptOut("baseline", "has hostIPC", func(p *corev1.Pod) bool { return p.Spec.HostIPC }), "They share memory with everything that runs there. " + yours, baseline},
		{"5.2.5", 1, Manual, "Pods in the node's network are kept out", keptOut("baseline", "has hostNetwork", func(p *corev1.Pod) bool { return p.Spec.HostNetwork }), "They reach what listens on the node's loopback, and no NetworkPolicy applies to them. " + yours, baseline},
		{"5.2.6", 1, Manual, "Containers that can gain rights are kept out", keptOut("restricted", "sets allowPrivilegeEscalation", anyContainer(escalates)), "A setuid program makes its user root. " + yours, restricted},
		{"5.2.7", 2, Manual, "Containers that run as root are kept out", keptOut("restricted", "", nil), "Whoever escapes from such a container is root on the node. " + yours, restricted},
		{"5.2.8", 1, Manual, "Containers with NET_RAW are kept out", keptOut("restricted", "", nil), "They can send packets with the addresses of other pods of the node. " + yours, restricted},
		{"5.2.9", 2, Manual, "Containers with capabilities are kept out", keptOut("restricted", "adds capabilities", anyContainer(addsCapabilities)), "Each capability is a part of root's rights. " + yours, restricted},
		{"5.2.10", 1, Manual, "HostProcess containers of Windows are kept out", never("nodes of lite run Linux"), "There are none on Linux.", ""},
		{"5.2.11", 1, Manual, "hostPath volumes are kept out", keptOut("baseline", "has a volume of the kind hostPath", hostPaths), "They give access to the files of the node. " + yours, baseline},
		{"5.2.12", 1, Manual, "Containers with host ports are kept out", keptOut("baseline", "has a host port", anyContainer(hostPorts)), "They use a port of the node, past Services and their rules. " + yours, baseline},
	}
}

func policies() []entry {
	return []entry{
		{"5.3.1", 1, Manual, "The pod network enforces NetworkPolicies", enforcesPolicies, "Without an engine they have no effect.", "remove networkpolicy from --disable, or make sure that your network plugin has an engine"},
		{"5.3.2", 2, Manual, "Every namespace has a NetworkPolicy", among(isolated), "Without one, all pods of the cluster can communicate with each other. You decide which of them must.", "write one for each namespace that allows what is needed"},
		{"5.4.1", 2, Manual, "Secrets come as files, not as variables", listPods("take Secrets as variables", anyContainer(secretInEnvironment)), "Variables appear in logs and in child processes. You decide how your programs read Secrets.", "mount them as volumes"},
		{"5.4.2", 2, Manual, "Secrets are stored elsewhere", withArguments(apiserverPart, func(n *Node, a args) finding {
			f := providers(n, a)
			if f.status != Unknown {
				f.status = Decide
			}
			return f
		}), "A separate store can rotate them and record who has read them. You decide whether you need that.", "use a CSI driver for such a store, or a kms provider"},
		{"5.5.1", 2, Manual, "Images of unknown origin are kept out", choice(plugin("ImagePolicyWebhook", true, false)), "You decide which registries and signatures to trust. ValidatingAdmissionPolicies and webhooks can do this too; they are not checked.", "set up the plugin ImagePolicyWebhook, or a policy"},
		{"5.6.1", 1, Manual, "Namespaces separate what belongs to different people", among(boundaries), "You decide how to divide your work.", "create namespaces for teams and purposes, and bind roles in them"},
		{"5.6.2", 2, Manual, "Pods set a seccomp profile", listPods("set none", unconfined), "You decide which profile a program needs. 4.2.14 covers what the kubelet does with pods that set none.", "set `seccompProfile: {type: RuntimeDefault}` in the pods' securityContext"},
		{"5.6.3", 2, Manual, "Pods and containers have security contexts", listPods("have none", bare), "You decide which user, groups and file systems a program needs.", "set `securityContext` in the pods"},
		{"5.6.4", 2, Manual, "The namespace default is not used", among(func(_ *Node, o *Objects) finding {
			return listPods("are there", func(p *corev1.Pod) bool { return p.Namespace == corev1.NamespaceDefault })(&Node{Objects: o})
		}), "Roles and policies for it apply to everything that nobody has assigned elsewhere. Other kinds of objects are not checked.", "create namespaces for what is there"},
	}
}
