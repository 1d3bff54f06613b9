package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
)

const (
	// wireguardOverhead is an IPv6, a UDP and a WireGuard header. Over IPv4 it is
	// 20 less; but 1420 is what all the world uses, and a node that is reached
	// over IPv6 one day must not need another MTU in every pod.
	wireguardOverhead = 40 + 8 + 32
)

// wireguard carries packets encrypted in UDP. The kernel takes from a peer only
// what comes from its own pods. No keepalives are sent: nodes reach each other
// directly, so nothing between them has to be kept open.
type wireguard struct {
	tunnel
	port    int
	keyFile string
	client  *wgctrl.Client
	key     wgtypes.Key
}

func newWireGuard(c Config, kernel *netlink.Handle) (*wireguard, error) {
	if c.KeyFile == "" {
		return nil, errors.New("WireGuard needs a file for its key")
	}
	// Asking for its family makes the kernel load the module.
	if _, err := netlink.GenlFamilyGet("wireguard"); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; or use --flannel-backend=%s", missingModule("wireguard"), VXLAN)
	} else if err != nil {
		return nil, fmt.Errorf("find wireguard in the kernel: %w", err)
	}
	client, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("open a socket for wireguard: %w", err)
	}
	w := &wireguard{
		tunnel:  newTunnel(kernel, layout.WireGuardDevice, wireguardOverhead, c.ranges()),
		port:    c.Port,
		keyFile: c.KeyFile,
		client:  client,
	}
	if w.port == 0 {
		w.port = layout.WireGuardPort
	}
	return w, nil
}

func (w *wireguard) close() { _ = w.client.Close() }

func (w *wireguard) setup(outer Iface) (Local, error) {
	var err error
	if w.key, err = loadKey(w.keyFile); err != nil {
		return Local{}, err
	}
	link, err := w.adopt()
	if err == nil && link == nil {
		if err := w.removeRenamed(w.mine); err != nil {
			return Local{}, err
		}
		link, err = w.add(&netlink.Wireguard{LinkAttrs: w.attrs(outer)}, "wireguard")
	}
	if err != nil {
		return Local{}, err
	}
	if err := w.configure(); err != nil {
		return Local{}, err
	}
	if err := w.finish(link, outer, w.port); err != nil {
		return Local{}, err
	}
	return Local{Backend: WireGuard, IP: outer.IP, PublicKey: w.key.PublicKey().String(), Port: w.port}, nil
}

// adopt returns the existing device if it is a WireGuard one; everything else can be
// changed.
func (w *wireguard) adopt() (netlink.Link, error) {
	link, err := find(w.kernel, w.name)
	if err != nil || link == nil {
		return nil, err
	}
	wrong := w.differs(link)
	if wrong == nil {
		return link, nil
	}
	slog.Info("Recreating a device of the pod network", "device", w.name, "because", wrong)
	if err := w.kernel.LinkDel(link); err != nil {
		return nil, fmt.Errorf("remove device %s: %w", w.name, err)
	}
	return nil, nil
}

// mine reports whether a device is this one, whatever it is called: it has our key.
func (w *wireguard) mine(link netlink.Link) bool {
	if link.Type() != "wireguard" {
		return false
	}
	have, err := w.client.Device(link.Attrs().Name)
	return err == nil && have.PrivateKey == w.key
}

func (w *wireguard) differs(link netlink.Link) error {
	if link.Type() != "wireguard" {
		return fmt.Errorf("device %s is of type %s instead of wireguard", w.name, link.Type())
	}
	return nil
}

// configure gives the device its key and port, if it does not have them.
func (w *wireguard) configure() error {
	if err := w.configured(); err == nil {
		return nil
	}
	err := w.client.ConfigureDevice(w.name, wgtypes.Config{PrivateKey: &w.key, ListenPort: &w.port})
	if errors.Is(err, unix.EADDRINUSE) { // of a device that is up; otherwise it is added later
		err = portTaken(w.port)
	}
	if err != nil {
		return fmt.Errorf("set the key and port of %s: %w", w.name, err)
	}
	return nil
}

func (w *wireguard) configured() error {
	have, err := w.client.Device(w.name)
	switch {
	case err != nil:
		return fmt.Errorf("inspect device %s: %w", w.name, err)
	case have.PrivateKey != w.key:
		return fmt.Errorf("device %s has another key than %s", w.name, w.keyFile)
	case have.ListenPort != w.port:
		return fmt.Errorf("device %s has the port %d instead of %d", w.name, have.ListenPort, w.port)
	}
	return nil
}

func (w *wireguard) check(outer Iface) error {
	link, err := w.find()
	if err != nil {
		return err
	}
	if err := w.differs(link); err != nil {
		return err
	}
	if err := w.configured(); err != nil {
		return err
	}
	return w.finished(link, outer)
}

func (w *wireguard) refuse(_ Iface, p Peer) error {
	key, err := wgtypes.ParseKey(p.PublicKey)
	switch {
	case err != nil || key == (wgtypes.Key{}):
		return fmt.Errorf("has %.60q as its WireGuard key", p.PublicKey)
	case key == w.key.PublicKey():
		return fmt.Errorf("has the same WireGuard key as this node: remove %s on one of them and start it again", w.keyFile)
	case p.Port < 1 || p.Port > 65535:
		return fmt.Errorf("has %d as its WireGuard port", p.Port)
	}
	return nil
}

func (w *wireguard) hop(link int, _ Peer, _ netip.Prefix) hop { return hop{link: link} }

func (w *wireguard) set(_ int, peers []Peer) error {
	have, err := w.client.Device(w.name)
	if err != nil {
		return fmt.Errorf("inspect device %s: %w", w.name, err)
	}
	changes := peerChanges(have.Peers, peers)
	if len(changes) == 0 {
		return nil
	}
	if err := w.client.ConfigureDevice(w.name, wgtypes.Config{Peers: changes}); err != nil {
		return fmt.Errorf("change the peers of %s: %w", w.name, err)
	}
	return nil
}

// peerChanges is what leads from the peers that the device has to those wanted.
// Removals come first: a range belongs to one peer at a time.
func peerChanges(have []wgtypes.Peer, peers []Peer) []wgtypes.PeerConfig {
	want := map[wgtypes.Key]wgtypes.PeerConfig{}
	for _, p := range peers {
		c := peerConfig(p)
		want[c.PublicKey] = c
	}
	var changes []wgtypes.PeerConfig
	same := map[wgtypes.Key]bool{}
	for _, h := range have {
		c, wanted := want[h.PublicKey]
		if !wanted {
			changes = append(changes, wgtypes.PeerConfig{PublicKey: h.PublicKey, Remove: true})
		}
		same[h.PublicKey] = wanted && samePeer(h, c)
	}
	for _, p := range peers {
		if c := peerConfig(p); !same[c.PublicKey] {
			changes = append(changes, c)
		}
	}
	return changes
}

func peerConfig(p Peer) wgtypes.PeerConfig {
	key, _ := wgtypes.ParseKey(p.PublicKey) // refuse has checked it
	c := wgtypes.PeerConfig{
		PublicKey:         key,
		Endpoint:          net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.IP, uint16(p.Port))),
		ReplaceAllowedIPs: true,
	}
	for _, pods := range p.Pods {
		c.AllowedIPs = append(c.AllowedIPs, *netOf(pods))
	}
	return c
}

func samePeer(have wgtypes.Peer, want wgtypes.PeerConfig) bool {
	return have.Endpoint != nil && have.Endpoint.Port == want.Endpoint.Port && have.Endpoint.IP.Equal(want.Endpoint.IP) &&
		slices.Equal(sorted(have.AllowedIPs), sorted(want.AllowedIPs))
}

func sorted(nets []net.IPNet) []string {
	var texts []string
	for _, n := range nets {
		texts = append(texts, n.String())
	}
	slices.Sort(texts)
	return texts
}

// loadKey reads the private key, or makes one.
func loadKey(path string) (wgtypes.Key, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("read the WireGuard key %s: %w", path, err)
	}
	key, err := wgtypes.ParseKey(strings.TrimSpace(string(text)))
	if err != nil || key == (wgtypes.Key{}) {
		// The reason is left out: it could repeat what is in the file.
		return wgtypes.Key{}, fmt.Errorf("%s does not contain a WireGuard key: remove it, and lite creates a new one", path)
	}
	return key, nil
}

func makeKey(path string) (wgtypes.Key, error) {
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("generate a WireGuard key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return wgtypes.Key{}, fmt.Errorf("make %s: %w", filepath.Dir(path), err)
	}
	if err := file.Write(path, []byte(key.String()+"\n"), 0o600); err != nil {
		return wgtypes.Key{}, fmt.Errorf("write the WireGuard key %s: %w", path, err)
	}
	return key, nil
}
