package check

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

const (
	ufwOn = "# /etc/ufw/ufw.conf\nENABLED=yes\nLOGLEVEL=low\n"
	// As ufw 0.36 writes them.
	ufwHead = "*filter\n:ufw-user-input - [0:0]\n### RULES ###\n\n"
	ufwAll  = ufwHead + `### tuple ### allow tcp 6443 0.0.0.0/0 any 0.0.0.0/0 in comment=6c697465
-A ufw-user-input -p tcp --dport 6443 -j ACCEPT

### tuple ### allow tcp 10250 0.0.0.0/0 any 192.0.2.0/24 in
-A ufw-user-input -p tcp --dport 10250 -s 192.0.2.0/24 -j ACCEPT

### tuple ### allow udp 8472 0.0.0.0/0 any 192.0.2.0/24 in
### tuple ### allow any any 0.0.0.0/0 any 10.42.0.0/16 in
### tuple ### allow any any 0.0.0.0/0 any 10.43.0.0/16 in
### END RULES ###
`
)

func withUFW(rules string) map[string]string {
	return map[string]string{"/etc/ufw/ufw.conf": ufwOn, "/etc/ufw/user.rules": rules, "/etc/ufw/user6.rules": ufwHead}
}

// zoneOf is the output of `firewall-cmd --list-all` (1.3).
func zoneOf(name, target, ports, sources string, rich ...string) string {
	text := name + " (active)\n  target: " + target + "\n  icmp-block-inversion: no\n  interfaces: eth0\n  sources: " + sources +
		"\n  services: dhcpv6-client ssh\n  ports: " + ports + "\n  protocols: \n  forward: yes\n  masquerade: no\n  forward-ports: \n  source-ports: \n  icmp-blocks: \n  rich rules: \n"
	for _, r := range rich {
		text += "\t" + r + "\n"
	}
	return text
}

func withFirewalld(now, later, trustedNow, trustedLater string) func(*bed) {
	return func(b *bed) {
		b.process(33, "firewalld", "/usr/sbin/firewalld", "--nofork")
		b.answers["firewall-cmd --get-zone-of-interface=eth0"] = "public\n"
		b.answers["firewall-cmd --zone=public --list-all"] = now
		b.answers["firewall-cmd --permanent --zone=public --list-all"] = later
		b.answers["firewall-cmd --zone=trusted --list-all"] = trustedNow
		b.answers["firewall-cmd --permanent --zone=trusted --list-all"] = trustedLater
	}
}

func TestFirewalls(t *testing.T) {
	const (
		kubelet  = `rule family="ipv4" source address="192.0.2.0/24" port port="10250" protocol="tcp" accept`
		overlay  = `rule family="ipv4" source address="192.0.2.0/24" port port="8472" protocol="udp" accept`
		networks = "10.42.0.0/16 10.43.0.0/16"
	)
	open := zoneOf("public", "default", "6443/tcp", "", kubelet, overlay)
	shut := zoneOf("public", "default", "", "")
	trustedOpen, trustedShut := zoneOf("trusted", "ACCEPT", "", networks), zoneOf("trusted", "ACCEPT", "", "")
	nftTable := func(policy, rules string) func(*bed) {
		return func(b *bed) {
			b.answers["nft -j list ruleset"] = `{"nftables": [{"metainfo": {}}, {"table": {"family": "inet", "name": "filter", "handle": 1}},
				{"chain": {"family": "inet", "table": "filter", "name": "input", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "` + policy + `"}}` + rules + `]}`
		}
	}
	for name, c := range map[string]struct {
		files  map[string]string
		change func(*bed)
		want   Status
		words  []string
	}{
		"ufw, off":                  {map[string]string{"/etc/ufw/ufw.conf": "ENABLED=no\n"}, nil, Pass, []string{"ufw is installed and not active"}},
		"ufw, on":                   {withUFW(ufwHead), nil, Fail, []string{"ufw is active and blocks 6443/tcp (API server), 10250/tcp (kubelet) from 192.0.2.0/24, 8472/udp", "ufw allow 6443/tcp comment 'lite: API server'", "ufw allow proto udp from 192.0.2.0/24 to any port 8472", "ufw allow from 10.42.0.0/16", "ufw allow from 10.43.0.0/16"}},
		"ufw, open":                 {withUFW(ufwAll), nil, Pass, []string{"ufw is active and allows what a node needs"}},
		"ufw, one missing":          {withUFW(strings.Replace(ufwAll, "udp 8472", "udp 8473", 1)), nil, Fail, []string{"blocks 8472/udp (pods of other nodes) from 192.0.2.0/24"}},
		"ufw, denied first":         {withUFW(strings.Replace(ufwAll, "### tuple", "### tuple ### deny udp 8472 0.0.0.0/0 any 0.0.0.0/0 in\n### tuple", 1)), nil, Fail, []string{"blocks 8472/udp"}},
		"ufw, broader":              {withUFW(ufwHead + "### tuple ### allow any any 0.0.0.0/0 any 0.0.0.0/0 in\n"), nil, Pass, nil},
		"ufw, other ports":          {withUFW(strings.Replace(ufwAll, "tcp 6443", "tcp 80,6000:7000", 1)), nil, Pass, nil},
		"ufw, narrower":             {withUFW(strings.Replace(ufwAll, "10.42.0.0/16", "10.42.0.0/24", 1)), nil, Fail, []string{"blocks pods from 10.42.0.0/16"}},
		"ufw, lets all in":          {map[string]string{"/etc/ufw/ufw.conf": ufwOn, "/etc/ufw/user.rules": ufwHead, "/etc/ufw/user6.rules": ufwHead, "/etc/default/ufw": `DEFAULT_INPUT_POLICY="ACCEPT"`}, nil, Pass, []string{"allows everything"}},
		"ufw, an agent":             {withUFW(ufwHead), (*bed).agent, Fail, []string{"blocks 10250/tcp", "networks are the defaults"}},
		"ufw, other ranges":         {withUFW(ufwAll), func(b *bed) { b.facts.ClusterCIDR, b.Config.HTTPSListenPort = prefixes("10.60.0.0/16"), 7443 }, Fail, []string{"blocks 7443/tcp (API server), pods from 10.60.0.0/16"}},
		"ufw, wireguard":            {withUFW(ufwAll), func(b *bed) { b.facts.Backend = "wireguard-native" }, Fail, []string{"blocks 51820/udp"}},
		"ufw, host-gw":              {withUFW(strings.Replace(ufwAll, "udp 8472", "udp 1", 1)), func(b *bed) { b.facts.Backend = "host-gw" }, Pass, nil},
		"ufw, nodes elsewhere":      {withUFW(ufwAll), func(b *bed) { b.Nodes = prefixes("198.51.100.0/24") }, Fail, []string{"10250/tcp (kubelet) from 198.51.100.0/24"}},
		"ufw, no network around":    {withUFW(ufwHead), func(b *bed) { b.Interfaces = interfacesOf("192.0.2.10/32") }, Fail, []string{"ufw allow 8472/udp"}},
		"firewalld, off":            {map[string]string{"/etc/firewalld/firewalld.conf": ""}, nil, Pass, []string{"firewalld is installed and not active"}},
		"firewalld, on":             {nil, withFirewalld(shut, shut, trustedShut, trustedShut), Fail, []string{"firewalld (zone public) is active and blocks 6443/tcp", "firewall-cmd --permanent --zone=public --add-port=6443/tcp", "firewall-cmd --zone=public '--add-rich-rule=" + overlay + "'", "--zone=trusted --add-source=10.42.0.0/16"}},
		"firewalld, open":           {nil, withFirewalld(open, open, trustedOpen, trustedOpen), Pass, []string{"allows what a node needs"}},
		"firewalld, not for later":  {nil, withFirewalld(open, shut, trustedOpen, trustedOpen), Fail, []string{"6443/tcp"}},
		"firewalld, not yet":        {nil, withFirewalld(open, open, trustedShut, trustedOpen), Fail, []string{"blocks pods from"}},
		"firewalld, broader":        {nil, withFirewalld(zoneOf("public", "default", "6443/tcp 10250/tcp 8472/udp", ""), zoneOf("public", "default", "6443/tcp 10250/tcp 8472/udp", ""), trustedOpen, trustedOpen), Pass, nil},
		"firewalld, a zone for all": {nil, withFirewalld(zoneOf("public", "ACCEPT", "", ""), shut, trustedOpen, trustedOpen), Pass, nil},
		"firewalld, as a user":      {nil, func(b *bed) { withFirewalld(shut, shut, trustedShut, trustedShut)(b); b.UID = 1000 }, Skip, []string{"firewalld is active", "only root"}},
		"firewalld, mute": {nil, func(b *bed) {
			withFirewalld(shut, shut, trustedShut, trustedShut)(b)
			b.answers["firewall-cmd --zone=public --list-all"] = "error: no answer within 20s"
		}, Skip, []string{"does not answer", "no answer"}},
		"iptables": {nil, func(b *bed) { b.answers["iptables -w 5 -S"] = "-P INPUT DROP\n-P FORWARD ACCEPT\n" }, Fail, []string{"iptables (policy DROP of INPUT)", "iptables -w 5 -I INPUT -p tcp -m tcp --dport 6443 -m comment --comment 'lite: API server' -j ACCEPT", "until a reboot"}},
		"iptables, a rule": {nil, func(b *bed) {
			b.answers["iptables -w 5 -S"] = "-P INPUT ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n"
		}, Fail, []string{"its rule -j REJECT --reject-with icmp-host-prohibited"}},
		"iptables, open":       {nil, iptablesOpen, Pass, []string{"allows what a node needs"}},
		"docker's FORWARD":     {nil, func(b *bed) { b.answers["iptables -w 5 -S"] = "-P INPUT ACCEPT\n-P FORWARD DROP\n-N DOCKER\n" }, Pass, []string{"drops forwarded packets (docker's)", "lets its pods through before"}},
		"nftables":             {nil, nftTable("drop", ""), Fail, []string{"nftables (chain input of table inet filter)", "nft insert rule inet filter input tcp dport 6443 accept comment", "/etc/nftables.conf"}},
		"nftables, a rule":     {nil, nftTable("accept", `, {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 4, "expr": [{"reject": {"type": "icmpx"}}]}}`), Fail, []string{"chain input"}},
		"nftables, harmless":   {nil, nftTable("accept", `, {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 4, "expr": [{"match": {}}, {"drop": null}]}}`), Pass, []string{"none filters"}},
		"no program, no rules": {nil, noPrograms, Pass, []string{"none filters"}},
		"no program, rules": {nil, func(b *bed) {
			noPrograms(b)
			b.Tables = func() ([]string, error) { return []string{"user", "filter"}, nil }
		}, Skip, []string{"tables user, filter", "no program to read them"}},
		"lite's own program": {map[string]string{"/var/lib/lite/bundle/abc/netfilter/nft/nft": ""}, func(b *bed) {
			nftTable("drop", "")(b)
			for command, answer := range b.answers {
				if rest, ok := strings.CutPrefix(command, "nft "); ok {
					b.byPath = map[string]string{rest: answer}
				}
			}
			noPrograms(b)
		}, Fail, []string{"chain input of table inet filter"}},
		"nft, not permitted": {nil, func(b *bed) { b.answers["nft -j list ruleset"] = "error: Operation not permitted" }, Skip, []string{"not permitted"}},
		"firewalld, dead and its rules there": {nil, func(b *bed) {
			b.answers["nft -j list ruleset"] = `{"nftables": [{"chain": {"family": "inet", "table": "firewalld", "name": "filter_INPUT", "hook": "input", "policy": "accept"}},
				{"rule": {"family": "inet", "table": "firewalld", "chain": "filter_INPUT", "expr": [{"reject": {"type": "icmpx"}}]}}]}`
		}, Fail, []string{"chain filter_INPUT of table inet firewalld"}},
		"docker's FORWARD, older rules": {map[string]string{"/proc/net/ip_tables_names": "filter\n"}, func(b *bed) {
			b.answers["iptables-legacy -w 5 -S"] = "-P INPUT ACCEPT\n-P FORWARD DROP\n-N DOCKER\n"
		}, Pass, []string{"iptables-legacy drops forwarded packets (docker's)"}},
		"rules, as a user": {nil, func(b *bed) { b.UID = 1000 }, Skip, []string{"only root can see the rules"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := healthy(t)
			for file, content := range c.files {
				b.files[file] = content
			}
			if c.change != nil {
				c.change(b)
			}
			r := b.run(t)
			expect(t, r, "firewall", c.want, c.words...)
			complete(t, r)
		})
	}
}

// noPrograms is a machine without any for packet filters.
func noPrograms(b *bed) {
	maps.DeleteFunc(b.answers, func(command, _ string) bool {
		return strings.HasPrefix(command, "nft ") || strings.HasPrefix(command, "iptables ")
	})
}

// iptablesOpen has every rule that is asked for.
func iptablesOpen(b *bed) {
	b.answers["iptables -w 5 -S"] = "-P INPUT DROP\n"
	for _, rule := range []string{
		"-p tcp -m tcp --dport 6443", "-s 192.0.2.0/24 -p tcp -m tcp --dport 10250", "-s 192.0.2.0/24 -p udp -m udp --dport 8472", "-s 10.42.0.0/16", "-s 10.43.0.0/16",
	} {
		b.answers["iptables -w 5 -C INPUT "+rule+" -j ACCEPT"] = ""
	}
}

// TestFixRunsWhatItPrints: what --fix does is the commands that are shown, and each
// has its way back.
func TestFixRunsWhatItPrints(t *testing.T) {
	b := healthy(t)
	for file, content := range withUFW(ufwHead) {
		b.files[file] = content
	}
	r := b.run(t)
	line := expect(t, r, "firewall", Fail, "ufw")
	for _, command := range line.Commands {
		b.answers[strings.ReplaceAll(command, "'", "")] = ""
	}
	b.ran = nil
	var reported []Done
	done := Fix(t.Context(), b.Machine, r, func(d Done) { reported = append(reported, d) })
	if !slices.Equal(reported, done) || len(done) != len(line.Commands) || FixErr(done) != nil {
		t.Fatalf("did %+v", done)
	}
	for i, command := range line.Commands {
		if !slices.Contains(b.ran, strings.ReplaceAll(command, "'", "")) {
			t.Errorf("%s was not run, only %q", command, b.ran)
		}
		if want := strings.Replace(command, "ufw ", "ufw delete ", 1); !strings.HasPrefix(want, done[i].Undo) {
			t.Errorf("%s is undone by %s", command, done[i].Undo)
		}
	}
	delete(b.answers, "ufw allow 6443/tcp comment lite: API server")
	if err := FixErr(Fix(t.Context(), b.Machine, r, func(Done) {})); err == nil || !strings.Contains(err.Error(), "6443") {
		t.Errorf("a command that fails: %v", err)
	}
	b.UID = 1000
	if line := expect(t, b.run(t), "firewall", Fail, "ufw"); line.Fixable {
		t.Error("who is not root can fix")
	}
}

// TestFixIsWrittenDown, once, for uninstalling to take back, and is no installation.
func TestFixIsWrittenDown(t *testing.T) {
	b := healthy(t)
	b.files["/proc/sys/fs/inotify/max_user_instances"] = "128\n"
	b.files["/proc/sys/fs/inotify/max_user_watches"] = "1000000\n"
	r := b.run(t)
	expect(t, r, "inotify", Warn, "128 instances")
	const undo = `{"did":"write /etc/sysctl.d/90-lite.conf and raise the limits of inotify","undo":"rm -f /etc/sysctl.d/90-lite.conf && { rmdir /etc/sysctl.d 2>/dev/null || true; } && { [ $(cat /proc/sys/fs/inotify/max_user_instances) != 1024 ] || echo 128 >/proc/sys/fs/inotify/max_user_instances; }"}`
	for range 2 {
		if err := FixErr(Fix(t.Context(), b.Machine, r, func(Done) {})); err != nil {
			t.Fatal(err)
		}
		if got := b.text("/etc/lite/fixes"); got != undo {
			t.Errorf("it is written down as %s", got)
		}
	}
	for file, want := range map[string]string{
		"/proc/sys/fs/inotify/max_user_instances": "1024",
		"/proc/sys/fs/inotify/max_user_watches":   "1000000", // more than is wanted
		layout.Default().Host.Sysctl:              "# Written by `lite check --fix`.\nfs.inotify.max_user_instances = 1024",
	} {
		if got := b.text(file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	expect(t, Run(t.Context(), b.Machine, b.Subject), "node", Skip, "is not running yet")
}

func TestOpeningsOfTwoFamilies(t *testing.T) {
	b := healthy(t)
	b.Config.NodeIP = append(b.Config.NodeIP, netip.MustParseAddr("2001:db8::10"))
	b.facts.ClusterCIDR, b.facts.ServiceCIDR = prefixes("10.42.0.0/16", "fd42::/56"), prefixes("10.43.0.0/16", "fd43::/112")
	b.Interfaces = interfacesOf("192.0.2.10/24", "2001:db8::10/64")
	b.run(t)
	var got []string
	for _, o := range newEnv(t.Context(), b.Machine, b.Subject).openings() {
		got = append(got, o.String())
	}
	want := []string{"6443/tcp (API server)", "10250/tcp (kubelet) from 192.0.2.0/24", "8472/udp (pods of other nodes) from 192.0.2.0/24", "10250/tcp (kubelet) from 2001:db8::/64",
		"pods from 10.42.0.0/16", "pods from fd42::/56", "services from 10.43.0.0/16", "services from fd43::/112"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestRoleOf(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  config.Role
	}{
		"nothing":       {nil, config.Server},
		"a unit":        {map[string]string{"/etc/systemd/system/lite.service": "[Service]\nExecStart=/usr/local/bin/lite agent\n"}, config.Agent},
		"OpenRC":        {map[string]string{"/etc/init.d/lite": "command=/usr/local/bin/lite\ncommand_args=\"agent\"\n"}, config.Agent},
		"a server's":    {map[string]string{"/var/lib/lite/server/etcd/x": "", "/var/lib/lite/agent/cluster.json": ""}, config.Server},
		"an agent's":    {map[string]string{"/var/lib/lite/agent/cluster.json": ""}, config.Agent},
		"one that runs": {map[string]string{"/proc/9/comm": "lite\n", "/proc/9/cmdline": "lite\x00agent\x00"}, config.Agent},
	} {
		b := healthy(t)
		for file, content := range c.files {
			b.files[file] = content
		}
		b.run(t)
		if got, why := b.RoleOf("/var/lib/lite"); got != c.want || why == "" {
			t.Errorf("%s: got %s (%s)", name, got, why)
		}
	}
}
