package policy

// table is one row per thing that a policy can say.
var table = []row{
	// Nothing, and everything.
	{"deny all ingress", []string{`{podSelector: {}, policyTypes: [Ingress]}`}, none, nil},
	{"deny all egress", []string{`{podSelector: {}, policyTypes: [Egress]}`}, nil, none},
	{"deny both", []string{`{podSelector: {}, policyTypes: [Ingress, Egress]}`}, none, none},
	{"allow all ingress", []string{`{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}`}, nil, nil},
	{"allow all egress", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{}]}`}, nil, nil},
	{"ingress is the default type", []string{`{podSelector: {}}`}, none, nil},
	{"egress rules make egress a type", []string{`{podSelector: {}, egress: [{to: [{podSelector: {}}]}]}`}, none, spaces(own)},
	{"type egress only leaves ingress", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {pod: a}}}]}]}`},
		nil, allow(spaces(own), pods("a"))},
	{"empty lists of peers and ports", []string{`{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [], ports: []}]}`}, nil, nil},

	// Whom it is about.
	{"one pod is selected", []string{`{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}`}, only([]string{"a"}, none), nil},
	{"expression In", []string{`{podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]}, policyTypes: [Ingress]}`},
		only([]string{"a", "b"}, none), nil},
	{"expression NotIn", []string{`{podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [a, b]}]}, policyTypes: [Egress]}`},
		nil, only([]string{"c"}, none)},
	{"expression Exists", []string{`{podSelector: {matchExpressions: [{key: pod, operator: Exists}]}, policyTypes: [Ingress]}`}, none, nil},
	{"expression DoesNotExist", []string{`{podSelector: {matchExpressions: [{key: pod, operator: DoesNotExist}]}, policyTypes: [Ingress]}`}, nil, nil},
	{"selects nothing", []string{`{podSelector: {matchLabels: {pod: none}}, policyTypes: [Ingress, Egress]}`}, nil, nil},

	// Peers.
	{"from pods of the namespace", []string{`{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`}, spaces(own), nil},
	{"from one pod", []string{`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}`}, allow(spaces(own), pods("b")), nil},
	{"from pods by expression", []string{`{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [b]}]}}]}]}`},
		allow(spaces(own), pods("a", "c")), nil},
	{"from all namespaces", []string{`{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`}, nil, nil},
	{"from another namespace", []string{`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: LEFT}}}]}]}`}, spaces(left), nil},
	{"from a namespace by its name", []string{`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: RIGHT}}}]}]}`},
		spaces(right), nil},
	{"from namespaces by expression", []string{`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [OWN]}]}}]}]}`},
		func(_, other end) bool { return !other.of(own) }, nil},
	{"from pods and namespace", []string{`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: LEFT}}, podSelector: {matchLabels: {pod: a}}}]}]}`},
		allow(spaces(left), pods("a")), nil},
	{"from pods or namespace", []string{`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: LEFT}}}, {podSelector: {matchLabels: {pod: a}}}]}]}`},
		either(spaces(left), allow(spaces(own), pods("a"))), nil},
	{"from pods of all namespaces", []string{`{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {pod: c}}}]}]}`}, pods("c"), nil},
	{"two rules", []string{`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}, {from: [{namespaceSelector: {matchLabels: {team: RIGHT}}}]}]}`},
		either(allow(spaces(own), pods("a")), spaces(right)), nil},
	{"to one pod", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]}`}, nil, allow(spaces(own), pods("b"))},
	{"to another namespace", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: LEFT}}}]}]}`}, nil, spaces(left)},
	{"to pods and namespace", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: RIGHT}}, podSelector: {matchLabels: {pod: c}}}]}]}`},
		nil, allow(spaces(right), pods("c"))},
	{"to pods or namespace", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: RIGHT}}}, {podSelector: {matchLabels: {pod: c}}}]}]}`},
		nil, either(spaces(right), allow(spaces(own), pods("c")))},

	// Blocks of addresses.
	{"from a block", []string{`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: LEFT.a/32}}]}]}`}, allow(spaces(left), pods("a")), nil},
	{"from everywhere except", []string{`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [LEFT.a/32, RIGHT.b/32]}}]}]}`},
		func(_, other end) bool { return !(other.of(left) && other.is("a") || other.of(right) && other.is("b")) }, nil},
	{"to a block", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: RIGHT.c/32}}]}]}`}, nil, allow(spaces(right), pods("c"))},
	{"to a block except", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.42.0.0/16, except: [LEFT.b/32]}}]}]}`},
		nil, func(_, other end) bool { return !(other.of(left) && other.is("b")) }},
	{"what one block excepts another has", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.42.0.0/16, except: [LEFT.b/32]}}, {ipBlock: {cidr: LEFT.b/32}}]}]}`},
		nil, nil},
	{"several blocks", []string{`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: LEFT.a/32}}, {ipBlock: {cidr: RIGHT.a/32}}, {ipBlock: {cidr: 192.0.2.0/24}}]}]}`},
		func(_, other end) bool { return other.is("a") && other.of(left, right) }, nil},

	// Ports.
	{"one port", []string{`{podSelector: {}, ingress: [{ports: [{port: 81}]}]}`}, ports(tcp81), nil},
	{"a protocol", []string{`{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}`}, ports(udp80), nil},
	{"port and protocol", []string{`{podSelector: {}, ingress: [{ports: [{protocol: UDP, port: 80}, {protocol: TCP, port: 81}]}]}`}, ports(udp80, tcp81), nil},
	{"a range", []string{`{podSelector: {}, ingress: [{ports: [{port: 81, endPort: 90}]}]}`}, ports(tcp81), nil},
	{"ranges that overlap", []string{`{podSelector: {}, ingress: [{ports: [{port: 1, endPort: 80}, {port: 70, endPort: 81}, {port: 75}]}]}`}, ports(tcp80, tcp81), nil},
	{"SCTP is not TCP", []string{`{podSelector: {}, ingress: [{ports: [{protocol: SCTP, port: 80}]}]}`}, none, nil},
	{"a port of one peer", []string{`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: LEFT}}}], ports: [{port: 80}]}]}`},
		allow(spaces(left), ports(tcp80)), nil},
	{"a named port", []string{`{podSelector: {}, ingress: [{ports: [{port: web}]}]}`}, named, nil},
	{"a named port of UDP", []string{`{podSelector: {}, ingress: [{ports: [{port: echo, protocol: UDP}]}]}`}, ports(udp80), nil},
	{"a name of another protocol", []string{`{podSelector: {}, ingress: [{ports: [{port: echo}]}]}`}, none, nil},
	{"a named port of one peer", []string{`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}], ports: [{port: web}]}]}`},
		allow(spaces(own), pods("a"), named), nil},
	{"to a named port", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}`}, nil, namedThere},
	{"to a named port of pods", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {pod: c}}}], ports: [{port: web}, {port: 80, protocol: UDP}]}]}`},
		nil, allow(pods("c"), either(namedThere, ports(udp80)))},
	{"to a range", []string{`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80, endPort: 80}, {protocol: UDP, port: 1, endPort: 65535}]}]}`},
		nil, ports(tcp80, udp80)},

	// Several at once.
	{"the union of two", []string{
		`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}`,
		`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: LEFT}}}], ports: [{port: 80}]}]}`,
	}, either(allow(spaces(own), pods("a")), allow(spaces(left), ports(tcp80))), nil},
	{"deny and allow", []string{
		`{podSelector: {}, policyTypes: [Ingress, Egress]}`,
		`{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{}]}`,
		`{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: [{}]}`,
	}, func(me, _ end) bool { return me.is("a") }, func(me, _ end) bool { return me.is("b") }},
	{"another policy for each pod", []string{
		`{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}`,
		`{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {matchLabels: {pod: c}}}]}]}`,
		`{podSelector: {matchLabels: {pod: c}}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}`,
	}, func(me, other end) bool {
		return other.of(own) && other.name == map[string]string{"a": "b", "b": "c", "c": "a"}[me.name]
	}, nil},
	{"both directions of one policy", []string{
		`{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {team: LEFT}}}]}], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 80}]}]}`,
	}, only([]string{"a"}, spaces(left)), only([]string{"a"}, allow(spaces(own), pods("b"), ports(tcp80)))},
	{"allowing all wins", []string{
		`{podSelector: {}, policyTypes: [Ingress]}`,
		`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}`,
		`{podSelector: {}, ingress: [{}]}`,
	}, nil, nil},
	{"the other side denies what one allows", []string{
		`{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]}`,
	}, allow(spaces(own), pods("a")), allow(spaces(own), pods("b"))},
	{"ports that no pod names", []string{`{podSelector: {}, ingress: [{ports: [{port: nobody}]}]}`}, none, nil},
}

// named lets through what goes to the port "web" of a pod of OWN.
func named(me, _ end) bool { return me.service == web(me.name) }

// namedThere lets through what goes to the port "web" of the other pod.
func namedThere(me, other end) bool { return me.service == web(other.name) }

func web(pod string) service {
	if pod == "c" {
		return tcp81
	}
	return tcp80
}
