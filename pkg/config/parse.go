package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/util/validation"
	kubeletapis "k8s.io/kubelet/pkg/apis"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/layout"
)

// bad is an error of a parser about a text.
func bad(problem, remedy string) *Error { return &Error{Problem: problem, Remedy: remedy} }

// because is bad with the reasons Kubernetes' validators give.
func because(reasons []string, remedy string) *Error {
	return bad("is not valid: "+strings.Join(reasons, ", "), remedy)
}

func configFile(text string) (string, *Error) {
	if text == "" {
		return "", bad("is empty", "specify a file, or leave it out to use the default")
	}
	return text, nil
}

// text takes any text of one line.
func text(text string) (string, *Error) {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return "", bad("contains control characters", "write it on one line")
	}
	return text, nil
}

// serverURL takes what people copy: with or without scheme and port. It returns
// the URL in full.
func serverURL(text string) (string, *Error) {
	if text == "" {
		return "", nil
	}
	remedy := "write it like https://192.0.2.1:" + layout.APIPortText
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", bad("is not a URL", remedy)
	case u.Scheme != "https":
		return "", bad("is not an https URL", remedy)
	case u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", bad("must be host:port", remedy)
	}
	number := cmp.Or(u.Port(), layout.APIPortText)
	if _, wrong := port(number); wrong != nil {
		return "", bad("has an invalid port", remedy)
	}
	return "https://" + net.JoinHostPort(u.Hostname(), number), nil
}

func absolutePath(text string) (string, *Error) {
	switch {
	case !filepath.IsAbs(text):
		return "", bad("is not an absolute path", "write the path from /")
	case strings.ContainsFunc(text, unicode.IsControl):
		return "", bad("contains control characters", "choose another path")
	}
	return filepath.Clean(text), nil
}

func optionalPath(text string) (string, *Error) { return optional(absolutePath)(text) }

// optional takes nothing as well.
func optional(parse parser[string]) parser[string] {
	return func(text string) (string, *Error) {
		if text == "" {
			return "", nil
		}
		return parse(text)
	}
}

// pathOrNone accepts a word for "", for sources that cannot set it: an empty variable
// counts as unset.
func pathOrNone(text string) (string, *Error) {
	if text == "none" {
		return "", nil
	}
	return absolutePath(text)
}

// dataDir refuses characters that separate the options of an overlay mount,
// which is where the paths of images and containers end up.
func dataDir(text string) (string, *Error) {
	dir, err := absolutePath(text)
	switch {
	case err != nil:
		return "", err
	case dir == "/":
		return "", bad("is the root directory", "specify a directory that only lite uses")
	case strings.ContainsAny(dir, `:,\"' `):
		return "", bad("contains a character that mount options do not allow", `choose a path without : , \ quotes and blanks`)
	}
	return dir, nil
}

// storageDir refuses the root directory: what is in it is not for pods.
func storageDir(text string) (string, *Error) {
	dir, err := absolutePath(text)
	if err == nil && dir == "/" {
		return "", bad("is the root directory", "specify a directory that only volumes use")
	}
	return dir, err
}

func truth(text string) (bool, *Error) {
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, bad("is not a boolean", "write true or false")
	}
	return value, nil
}

// oneOf parses words that are known.
func oneOf(words ...string) parser[string] {
	return func(text string) (string, *Error) {
		if !slices.Contains(words, text) {
			return "", bad("is not supported", "use one of "+strings.Join(words, ", "))
		}
		return text, nil
	}
}

// battery parses the name of one, lite's or k3s's.
func battery(text string) (addon.Name, *Error) {
	name, known := addon.Parse(text)
	if !known {
		_, err := oneOf(addon.Names()...)(text)
		return "", err
	}
	return name, nil
}

func logLevel(text string) (slog.Level, *Error) {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	word, err := oneOf("debug", "info", "warn", "error")(text)
	return levels[word], err
}

// nodeName allows what a Node may be named, and no more than fits in the label
// kubernetes.io/hostname, without which a kubelet cannot register.
func nodeName(text string) (string, *Error) {
	remedy := "use lower-case letters, digits, - and ., at most 63, starting and ending with a letter or digit"
	if reasons := validation.IsDNS1123Subdomain(text); len(reasons) > 0 {
		return "", because(reasons, remedy)
	}
	if len(text) > validation.LabelValueMaxLength {
		return "", bad("is longer than 63 characters", remedy)
	}
	return text, nil
}

func address(text string) (netip.Addr, *Error) {
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return addr, bad("is not an IP address", "write it like 192.0.2.1 or 2001:db8::1")
	case addr.Zone() != "":
		return addr, bad("has a zone", "remove "+"%"+addr.Zone())
	case addr.Is4In6():
		return addr, bad("is an IPv4 address in IPv6 form", "write "+addr.Unmap().String())
	}
	return addr, nil
}

// unicastAddress is one that other nodes can reach.
func unicastAddress(text string) (netip.Addr, *Error) {
	addr, err := address(text)
	if err == nil && !addr.IsGlobalUnicast() {
		return addr, bad("is unspecified, loopback, link-local or multicast", "use an address that other nodes can reach")
	}
	return addr, err
}

// optionalAddress is a unicastAddress, or none.
func optionalAddress(text string) (netip.Addr, *Error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	return unicastAddress(text)
}

// addressText is "" for none.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func port(text string) (int, *Error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 65535 {
		return 0, bad("is not a port", "use a number from 1 to 65535")
	}
	return n, nil
}

func count(text string) (int, *Error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, bad("is not a count", "use 0 or a positive integer")
	}
	return n, nil
}

func tlsSAN(text string) (string, *Error) {
	if _, err := netip.ParseAddr(text); err == nil {
		return text, nil
	}
	if strings.HasPrefix(text, "*.") && len(validation.IsWildcardDNS1123Subdomain(text)) == 0 {
		return text, nil
	}
	if reasons := validation.IsDNS1123Subdomain(text); len(reasons) > 0 {
		return "", bad("is neither a DNS name nor an IP address", "write it without scheme and port, in lower case")
	}
	return text, nil
}

func prefix(text string) (netip.Prefix, *Error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, bad("is not a CIDR", "write it like 10.42.0.0/16 or fd00:42::/56")
	case p.Addr().Is4In6():
		return p, bad("is an IPv4 range in IPv6 form", "write it like 10.42.0.0/16")
	case p != p.Masked():
		return p, bad("has host bits set", "write "+p.Masked().String())
	case !p.Addr().IsGlobalUnicast():
		return p, bad("is unspecified, loopback, link-local or multicast", "use a private range, like 10.42.0.0/16 or fd00:42::/56")
	}
	return p, nil
}

// podRange must be divisible into nodes' ranges by the controller manager,
// whose allocator counts at most 2^16 of them.
func podRange(text string) (netip.Prefix, *Error) {
	p, err := prefix(text)
	if err != nil {
		return p, err
	}
	node := 24
	if p.Addr().Is6() {
		node = 64
	}
	remedy := fmt.Sprintf("use a mask from /%d to /%d", node-16, node)
	switch {
	case p.Bits() > node:
		return p, bad(fmt.Sprintf("is too small for the /%d of one node", node), remedy)
	case p.Bits() < node-16:
		return p, bad(fmt.Sprintf("contains more than 65536 ranges of /%d", node), remedy)
	}
	return p, nil
}

// serviceRange must have at most 20 host bits, kube-apiserver's limit.
func serviceRange(text string) (netip.Prefix, *Error) {
	p, err := prefix(text)
	if err != nil {
		return p, err
	}
	all := p.Addr().BitLen()
	remedy := fmt.Sprintf("use a mask from /%d to /%d", all-20, all-4)
	switch {
	case p.Bits() < all-20:
		return p, bad(fmt.Sprintf("is larger than the /%d that kube-apiserver allows", all-20), remedy)
	case p.Bits() > all-4:
		return p, bad("has fewer than 16 addresses", remedy)
	}
	return p, nil
}

// clusterDomain is without the dot at the end by which a name is absolute, and in
// lower case, as names of Kubernetes are.
func clusterDomain(text string) (string, *Error) {
	text = strings.ToLower(strings.TrimSuffix(text, "."))
	if reasons := validation.IsDNS1123Subdomain(text); len(reasons) > 0 {
		return "", because(reasons, "write it like cluster.local")
	}
	return text, nil
}

// fileMode lets nobody but the owner write: who writes the administrator's
// kubeconfig decides what its readers connect to.
func fileMode(text string) (fs.FileMode, *Error) {
	mode, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	switch {
	case err != nil || mode > 0o777:
		return 0, bad("is not an octal file mode", `write it like "0600"`)
	case mode&0o022 != 0:
		return 0, bad("lets users other than the owner write", fmt.Sprintf("use %04o", mode&^0o022))
	}
	return fs.FileMode(mode), nil
}

func endpoint(text string) (string, *Error) {
	path, err := optionalPath(strings.TrimPrefix(text, "unix://"))
	switch {
	case err != nil || path == "" && text != "":
		return "", bad("is not a socket", "write it like unix:///run/containerd/containerd.sock")
	case path == "":
		return "", nil
	}
	return "unix://" + path, nil
}

func argument(text string) (string, *Error) {
	text = strings.TrimLeft(text, "-")
	key, _, ok := strings.Cut(text, "=")
	switch {
	case key == "" || strings.ContainsFunc(key, unicode.IsSpace):
		return "", bad("does not name an argument", "write key=value")
	case !ok:
		return "", bad("has no value", "write "+key+"=value")
	}
	return text, nil
}

// nodeLabel refuses the labels a kubelet would refuse to start with, with the
// kubelet's own list.
func nodeLabel(text string) (string, *Error) {
	key, value, ok := strings.Cut(text, "=")
	if !ok {
		return "", bad("has no =", "write key=value")
	}
	if reasons := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(reasons) > 0 {
		return "", because(reasons, "write key=value")
	}
	namespace, _, _ := strings.Cut(key, "/")
	if namespace == layout.Domain {
		return "", bad("is a label that a node must not set on itself", "set it with kubectl label node: only administrators may set what affects the whole cluster")
	}
	reserved := strings.HasSuffix("."+namespace, ".kubernetes.io") || strings.HasSuffix("."+namespace, ".k8s.io")
	if namespace != key && reserved && !kubeletapis.IsKubeletLabel(key) {
		return "", bad("is a label that a node must not set on itself", "set it with kubectl label node, or use a prefix like "+
			strings.Join(kubeletapis.KubeletLabelNamespaces(), "/ or ")+"/")
	}
	return text, nil
}

func nodeTaint(text string) (string, *Error) {
	remedy := "write key=value:Effect, with NoSchedule, PreferNoSchedule or NoExecute"
	spec, effect, _ := strings.Cut(text, ":")
	if !slices.Contains([]string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, effect) {
		return "", bad(fmt.Sprintf("has the effect %q", effect), remedy)
	}
	key, value, _ := strings.Cut(spec, "=")
	if reasons := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(reasons) > 0 {
		return "", because(reasons, remedy)
	}
	return text, nil
}
