package cis

import (
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// fewer is what there is to do about rights.
const fewer = "look whether they need it, and give them a role that has less"

func roles() []entry {
	const people = "Whom you trust with it is for you to say."
	read, write := []string{"get", "list", "watch"}, []string{"create", "update", "patch", "delete"}
	hooks := func(resource string) right { return right{write, "admissionregistration.k8s.io", resource, ""} }
	return []entry{
		{"5.1.1", 1, Manual, "Few have the role cluster-admin", onlyGiven(func(kind, name string, _ []rbacv1.PolicyRule) bool {
			return kind == "ClusterRole" && name == "cluster-admin"
		}), "Who has it may do everything. " + people, fewer},
		{"5.1.2", 1, Manual, "Few may read Secrets", rarely(right{read, "", "secrets", ""}), "Who reads the tokens in them can be their owners. " + people, fewer},
		{"5.1.3", 1, Manual, "Few roles say *", among(wildcards), "It takes in what comes with the next version, too. What a role is for is for you to say.", "write down the groups, resources and verbs that are needed"},
		{"5.1.4", 1, Manual, "Few may make pods", rarely(right{[]string{"create"}, "", "pods", ""}), "A pod can have every Secret and service account of its namespace. " + people, fewer},
		{"5.1.5", 1, Manual, "Service accounts named default are not used", among(unmounted), "Every pod that names none has the one of its namespace, and its token with all that was bound to it.", "say `automountServiceAccountToken: false` on each, and give pods that need the API accounts of their own"},
		{"5.1.6", 1, Manual, "Pods have a token only where they need it", among(tokens), "Who breaks into a pod has its token. Which pods use the API is for you to say.", "say `automountServiceAccountToken: false` in the pods, or on their service accounts"},
		{"5.1.7", 1, Manual, "Nobody uses the group system:masters", among(superusers), "No role can take anything from it. lite writes its own objects by it, and its administrator's kubeconfig has it, so that a cluster with broken roles can be mended.", "give people users of their own, and keep the administrator's kubeconfig for emergencies"},
		{"5.1.8", 1, Manual, "Few may bind, impersonate or escalate", rarely(
			right{[]string{"impersonate"}, "", "users", ""}, right{[]string{"impersonate"}, "", "groups", ""}, right{[]string{"impersonate"}, "", "serviceaccounts", ""},
			right{[]string{"bind", "escalate"}, rbacv1.GroupName, "clusterroles", ""}, right{[]string{"bind", "escalate"}, rbacv1.GroupName, "roles", ""}),
			"Each makes one able to become somebody with more. " + people, fewer},
		{"5.1.9", 1, Manual, "Few may make PersistentVolumes", rarely(right{[]string{"create"}, "", "persistentvolumes", ""}), "A volume of the kind hostPath opens the files of a node. " + people, fewer},
		{"5.1.10", 1, Manual, "Few may use kubelets through the API server", rarely(right{[]string{"get", "create", "update", "patch", "delete"}, "", "nodes", "proxy"}), "It runs programs in every pod of a node, past admission and most of the audit log. " + people, fewer},
		{"5.1.11", 1, Manual, "Few may approve certificates", rarely(right{[]string{"update", "patch"}, "certificates.k8s.io", "certificatesigningrequests", "approval"}), "Who may can have a certificate for any user. " + people, fewer},
		{"5.1.12", 1, Manual, "Few may change webhooks", rarely(hooks("validatingwebhookconfigurations"), hooks("mutatingwebhookconfigurations")), "A webhook sees, and may change, each object that is written. " + people, fewer},
		{"5.1.13", 1, Manual, "Few may make tokens of service accounts", rarely(right{[]string{"create"}, "", "serviceaccounts", "token"}), "Such a token has the rights of its account. " + people, fewer},
	}
}

func podSecurity() []entry {
	const (
		yours  = "What your pods need is for you to say; lite runs none of its own."
		remedy = "label the namespaces of users: `kubectl label namespace NAME "
	)
	baseline, restricted := remedy+enforceLabel+"=baseline`", remedy+enforceLabel+"=restricted`"
	return []entry{
		{"5.2.1", 1, Manual, "Something decides which pods may be made", among(guarded), yours, baseline},
		{"5.2.2", 1, Manual, "Privileged containers are kept out", keptOut("baseline", "is privileged", anyContainer(privileged)),
			"Such a container is root on the node. " + yours, baseline},
		{"5.2.3", 1, Manual, "Pods among the node's processes are kept out", keptOut("baseline", "has hostPID", func(p *corev1.Pod) bool { return p.Spec.HostPID }), "They see the memory and the variables of all that runs there. " + yours, baseline},
		{"5.2.4", 1, Manual, "Pods in the node's IPC are kept out", keptOut("baseline", "has hostIPC", func(p *corev1.Pod) bool { return p.Spec.HostIPC }), "They share memory with all that runs there. " + yours, baseline},
		{"5.2.5", 1, Manual, "Pods in the node's network are kept out", keptOut("baseline", "has hostNetwork", func(p *corev1.Pod) bool { return p.Spec.HostNetwork }), "They reach what listens on the node's loopback, and no NetworkPolicy is about them. " + yours, baseline},
		{"5.2.6", 1, Manual, "Containers that can gain rights are kept out", keptOut("restricted", "says allowPrivilegeEscalation", anyContainer(escalates)), "A program that is setuid makes its user root. " + yours, restricted},
		{"5.2.7", 2, Manual, "Containers of root are kept out", keptOut("restricted", "", nil), "Who gets out of such a container is root on the node. " + yours, restricted},
		{"5.2.8", 1, Manual, "Containers with NET_RAW are kept out", keptOut("restricted", "", nil), "They can send packets in the name of other pods of the node. " + yours, restricted},
		{"5.2.9", 2, Manual, "Containers with capabilities are kept out", keptOut("restricted", "adds capabilities", anyContainer(addsCapabilities)), "Each is a part of what root may do. " + yours, restricted},
		{"5.2.10", 1, Manual, "HostProcess containers of Windows are kept out", never("nodes of lite run Linux"), "There are none on Linux.", ""},
		{"5.2.11", 1, Manual, "Volumes of the kind hostPath are kept out", keptOut("baseline", "has a volume of the kind hostPath", hostPaths), "They open the files of the node. " + yours, baseline},
		{"5.2.12", 1, Manual, "Containers with host ports are kept out", keptOut("baseline", "has a host port", anyContainer(hostPorts)), "They take a port of the node, past Services and their rules. " + yours, baseline},
	}
}

func policies() []entry {
	return []entry{
		{"5.3.1", 1, Manual, "The pod network puts NetworkPolicies into force", enforcesPolicies, "Without an engine they are words.", "remove networkpolicy from --disable, or see that your network plugin has one"},
		{"5.3.2", 2, Manual, "Every namespace has a NetworkPolicy", among(isolated), "Without one all pods of the cluster may speak with each other. Who has to is for you to say.", "write one for each namespace that lets in what is needed"},
		{"5.4.1", 2, Manual, "Secrets come as files, not as variables", tellPods("take Secrets as variables", anyContainer(secretInEnvironment)), "Variables are told in logs and to child processes. How your programs read Secrets is for you to say.", "mount them as volumes"},
		{"5.4.2", 2, Manual, "Secrets are kept elsewhere", told(apiserverPart, func(n *Node, a args) finding {
			f := providers(n, a)
			if f.status != Unknown {
				f.status = Decide
			}
			return f
		}), "A store of its own can rotate them and tell who has read them. Whether that is worth having is for you to say.", "use a CSI driver for such a store, or a provider of the kind kms"},
		{"5.5.1", 2, Manual, "Images of unknown origin are kept out", choice(plugin("ImagePolicyWebhook", true, false)), "Which registries and signatures you trust is for you to say. ValidatingAdmissionPolicies and webhooks can do this too, which is not looked at.", "set up the plugin ImagePolicyWebhook, or a policy"},
		{"5.6.1", 1, Manual, "Namespaces part what belongs to different people", among(boundaries), "How your work is divided is for you to say.", "make namespaces for teams and purposes, and bind roles in them"},
		{"5.6.2", 2, Manual, "Pods say a seccomp profile", tellPods("say none", unconfined), "Which profile a program needs is for you to say. What the kubelet does with pods that say none is 4.2.14.", "say `seccompProfile: {type: RuntimeDefault}` in the pods' securityContext"},
		{"5.6.3", 2, Manual, "Pods and containers have security contexts", tellPods("have none", bare), "Which user, groups and file systems a program needs is for you to say.", "say `securityContext` in the pods"},
		{"5.6.4", 2, Manual, "The namespace default is not used", among(func(_ *Node, o *Objects) finding {
			return tellPods("are there", func(p *corev1.Pod) bool { return p.Namespace == corev1.NamespaceDefault })(&Node{Objects: o})
		}), "Roles and policies for it are about everything that nobody has thought of. Other kinds of objects are not looked at.", "make namespaces for what is there"},
	}
}
