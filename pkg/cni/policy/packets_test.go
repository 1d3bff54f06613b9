package policy

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// machine is a network namespace: a node, a pod or what is outside.
type machine struct {
	netns.NsHandle
	links *netlink.Handle
}

// within runs f on a thread in the namespace.
func (m machine) within(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := netns.Set(m.NsHandle); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func newMachine(t *testing.T) machine {
	t.Helper()
	made := make(chan error)
	var m machine
	go func() {
		runtime.LockOSThread()
		var err error
		m.NsHandle, err = netns.New()
		made <- err
	}()
	must(t, <-made)
	t.Cleanup(func() { m.Close() })
	var err error
	m.links, err = netlink.NewHandleAt(m.NsHandle)
	must(t, err)
	t.Cleanup(m.links.Close)
	m.up(t, "lo")
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// up gives a link addresses and sets it up.
func (m machine) up(t *testing.T, name string, addrs ...string) {
	t.Helper()
	link, err := m.links.LinkByName(name)
	must(t, err)
	for _, text := range addrs {
		addr, err := netlink.ParseAddr(text)
		must(t, err)
		must(t, m.links.AddrAdd(link, addr))
	}
	must(t, m.links.LinkSetUp(link))
}

// route adds one; to "" is the default.
func (m machine) route(t *testing.T, to, by string) {
	t.Helper()
	r := &netlink.Route{Gw: net.ParseIP(by)}
	if to != "" {
		_, r.Dst, _ = net.ParseCIDR(to)
	}
	must(t, m.links.RouteAdd(r))
}

// wire joins two machines; on a the end is put on a bridge, if one is named.
func wire(t *testing.T, a machine, nameA, bridge string, b machine, nameB string) {
	t.Helper()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.NsHandle)}
	must(t, a.links.LinkAdd(pair))
	if bridge != "" {
		master, err := a.links.LinkByName(bridge)
		must(t, err)
		must(t, a.links.LinkSetMaster(pair, master))
		must(t, a.links.LinkSetUp(pair))
		must(t, a.links.LinkSetHairpin(pair, true))
	}
}

// linkLocal begins the address that IPv6 has given eth0, once nobody else has it.
func (m machine) linkLocal(t *testing.T) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		link, err := m.links.LinkByName("eth0")
		must(t, err)
		addrs, err := m.links.AddrList(link, netlink.FAMILY_V6)
		must(t, err)
		for _, a := range addrs {
			if a.Flags&unix.IFA_F_TENTATIVE == 0 {
				return "[" + a.IP.String()
			}
		}
	}
	t.Fatal("eth0 has no link-local address")
	return ""
}

// zone is the number of eth0; its name has another one in every machine.
func (m machine) zone(t *testing.T) string {
	t.Helper()
	link, err := m.links.LinkByName("eth0")
	must(t, err)
	return strconv.Itoa(link.Attrs().Index)
}

func (m machine) listen(t *testing.T, address string) {
	t.Helper()
	var l net.Listener
	must(t, m.within(func() (err error) { l, err = net.Listen("tcp", address); return err }))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 10)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					_, _ = conn.Write(buffer[:n])
				}
			}()
		}
	}()
}

func (m machine) dial(address string) (conn net.Conn, err error) {
	err = m.within(func() error { conn, err = net.DialTimeout("tcp", address, 2*time.Second); return err })
	return conn, err
}

// associates reports whether the packet by which SCTP begins arrives. It is sent and
// read as it is: not every kernel has the protocol itself.
func associates(t *testing.T, from, to machine, ip string, port uint16) bool {
	t.Helper()
	packet := binary.BigEndian.AppendUint16(nil, 40000+port)
	packet = binary.BigEndian.AppendUint16(packet, port)
	packet = append(packet, make([]byte, 8)...)                                                          // tag and checksum
	packet = append(packet, 1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)                 // INIT
	binary.LittleEndian.PutUint32(packet[8:], crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli))) // as RFC 9260 has it
	var in, out net.PacketConn
	must(t, to.within(func() (err error) { in, err = net.ListenPacket("ip4:132", ip); return err }))
	defer in.Close()
	must(t, from.within(func() (err error) { out, err = net.ListenPacket("ip4:132", "0.0.0.0"); return err }))
	defer out.Close()
	_, err := out.WriteTo(packet, &net.IPAddr{IP: net.ParseIP(ip)})
	must(t, err)
	must(t, in.SetReadDeadline(time.Now().Add(time.Second)))
	buffer := make([]byte, 100)
	n, _, err := in.ReadFrom(buffer)
	return err == nil && bytes.Equal(buffer[:n], packet)
}

// TestPackets sends packets through the rules: between pods on the bridge of one
// node, to pods of another, from nodes and from outside through a port of a node.
func TestPackets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs the program nft")
	}
	if _, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables"); err != nil {
		t.Skip("needs the kernel module br_netfilter")
	}
	places := map[string]machine{"outside": newMachine(t)}
	outside := places["outside"]
	must(t, outside.links.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "net"}}))
	outside.up(t, "net", "192.0.2.254/24")
	f := newFilter(only4)
	f.setNamespace("a", labels.Set{})
	for n := 1; n <= 2; n++ {
		node, own := newMachine(t), fmt.Sprintf("192.0.2.%d", n)
		places[fmt.Sprintf("node%d", n)] = node
		wire(t, outside, fmt.Sprintf("node%d", n), "net", node, "eth0")
		node.up(t, "eth0", own+"/24")
		must(t, node.links.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}))
		node.up(t, "cni0", fmt.Sprintf("10.42.%d.1/24", n))
		node.route(t, fmt.Sprintf("10.42.%d.0/24", 3-n), fmt.Sprintf("192.0.2.%d", 3-n))
		must(t, node.within(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }))
		f.setNode(fmt.Sprintf("node%d", n), []netip.Addr{netip.MustParseAddr(own)})
		for i, name := range []string{"web", "db"} {
			name, ip := fmt.Sprintf("%s%d", name, n), fmt.Sprintf("10.42.%d.%d", n, i+2)
			pod := newMachine(t)
			places[name] = pod
			wire(t, node, name, "cni0", pod, "eth0")
			pod.up(t, "eth0", ip+"/24")
			pod.route(t, "", fmt.Sprintf("10.42.%d.1", n))
			pod.listen(t, ip+":80")
			f.setPod(newPod("a", name, "app="+strings.TrimRight(name, "12"), ip))
		}
		node.listen(t, own+":80")
	}
	// What kube-proxy does: to a NodePort of node 2 for a pod of node 1, masqueraded, and
	// from a pod to its own Service.
	for node, rules := range map[string]string{"node1": `
table ip nat {
	chain pre { type nat hook prerouting priority -100; ip daddr 10.43.0.1 dnat to 10.42.1.3; }
	chain post { type nat hook postrouting priority 100; ip saddr 10.42.1.3 ip daddr 10.42.1.3 masquerade; }
}`, "node2": `
table ip nat {
	chain pre { type nat hook prerouting priority -100; ip daddr 192.0.2.2 tcp dport 30000 dnat to 10.42.1.3:80; }
	chain post { type nat hook postrouting priority 100; ct status dnat masquerade; }
}`} {
		must(t, places[node].within(func() error {
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(rules)
			return cmd.Run()
		}))
	}

	write := func() {
		t.Helper()
		c := f.next()
		for _, node := range []string{"node1", "node2"} {
			must(t, places[node].within(func() error {
				tab, err := openTable(only4)
				if err == nil {
					err = tab.write(t.Context(), c)
				}
				return err
			}))
		}
	}
	const db1, self, nodePort = "10.42.1.3:80", "10.43.0.1:80", "192.0.2.2:30000"
	expect := func(when, allowed string) {
		t.Helper()
		var all sync.WaitGroup
		for _, from := range []string{"web1", "db1", "web2", "db2", "node1", "node2", "outside"} {
			address := map[string]string{"db1": self, "outside": nodePort}[from]
			all.Go(func() {
				conn, err := places[from].dial(cmp.Or(address, db1))
				if err == nil {
					conn.Close()
				}
				if want := strings.Contains(allowed, from); (err == nil) != want {
					t.Errorf("%s: %s connects: %t, want %t", when, from, err == nil, want)
				}
			})
		}
		all.Wait()
	}
	f.setPolicy(newPolicy(t, "b", "other", `{podSelector: {}}`))
	write()
	expect("not isolated", "web1 db1 web2 db2 node1 node2 outside")
	kept, err := places["web2"].dial(db1)
	must(t, err)
	defer kept.Close()

	// Link-local addresses, which no policy can name.
	places["web1"].linkLocal(t) // it dials from it, which it cannot before it has it
	linkLocal := places["db1"].linkLocal(t)
	places["db1"].listen(t, linkLocal+"%"+places["db1"].zone(t)+"]:81")
	byLinkLocal := linkLocal + "%" + places["web1"].zone(t) + "]:81"
	if conn, err := places["web1"].dial(byLinkLocal); err == nil {
		conn.Close()
		t.Error("a pod reaches another by a link-local address")
	}
	// On another bridge of the machine they work.
	guests := [2]machine{newMachine(t), newMachine(t)}
	must(t, places["node1"].links.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "virbr0"}}))
	places["node1"].up(t, "virbr0")
	for i, guest := range guests {
		wire(t, places["node1"], fmt.Sprintf("guest%d", i), "virbr0", guest, "eth0")
		guest.up(t, "eth0")
	}
	guests[0].linkLocal(t)
	guest := guests[1].linkLocal(t)
	guests[1].listen(t, guest+"%"+guests[1].zone(t)+"]:81")
	if conn, err := guests[0].dial(guest + "%" + guests[0].zone(t) + "]:81"); err != nil {
		t.Errorf("policies reach a bridge that is not of pods: %v", err)
	} else {
		conn.Close()
	}
	must(t, places["node1"].within(func() error { return Remove(t.Context()) }))
	if conn, err := places["web1"].dial(byLinkLocal); err != nil {
		t.Errorf("without a table: %v", err)
	} else {
		conn.Close()
	}

	f.setPolicy(newPolicy(t, "a", "p", `{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress]}`))
	f.startOver()
	write()
	expect("isolated", "db1 node1 node2")
	if conn, err := places["db1"].dial("192.0.2.2:80"); err == nil {
		conn.Close()
		t.Error("an isolated pod reaches another node")
	}
	if conn, err := places["db1"].dial("192.0.2.1:80"); err != nil {
		t.Errorf("a pod to its own node: %v", err)
	} else {
		conn.Close()
	}
	_ = kept.SetDeadline(time.Now().Add(5 * time.Second))
	buffer := make([]byte, 1)
	if _, err := kept.Write([]byte("?")); err != nil {
		t.Error(err)
	} else if _, err := kept.Read(buffer); err != nil || !bytes.Equal(buffer, []byte("?")) {
		t.Errorf("a connection from before the policy: %v", err)
	}

	f.setPolicy(newPolicy(t, "a", "p", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}`))
	write()
	expect("open to web", "web1 db1 web2 node1 node2")
	f.setPolicy(newPolicy(t, "a", "p", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.254/32}}, {ipBlock: {cidr: 10.42.0.0/16, except: [10.42.1.2/32]}}]}]}`))
	write()
	expect("open to blocks", "db1 web2 db2 node1 node2 outside")
	db := newPod("a", "db1", "app=db", "10.42.1.3")
	db.UID = "anew" // ports are those of a pod's life
	db.Spec.Containers = []v1.Container{{Ports: []v1.ContainerPort{{Name: "signals", ContainerPort: 95, Protocol: v1.ProtocolSCTP}}}}
	f.setPod(db)
	f.setPolicy(newPolicy(t, "a", "p", `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{protocol: SCTP, port: 80, endPort: 90}, {protocol: SCTP, port: signals}]}]}`))
	write()
	expect("open to SCTP", "db1 node1 node2")
	for port, want := range map[uint16]bool{79: false, 80: true, 90: true, 91: false, 95: true, 96: false} {
		for _, from := range []string{"web1", "web2"} { // of the same node and of another
			if got := associates(t, places[from], places["db1"], "10.42.1.3", port); got != want {
				t.Errorf("open to SCTP: %s to port %d: %t, want %t", from, port, got, want)
			}
		}
	}
	f.deletePolicy("a/p")
	write()
	expect("open again", "web1 db1 web2 db2 node1 node2 outside")
}
