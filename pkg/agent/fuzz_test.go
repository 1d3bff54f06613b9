package agent

import (
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/fuzz"
)

// Whatever is in the place of what a machine remembers of its cluster: it is a member with all that a node needs, which
// is remembered as it was, or it is none, and the error names the file.
func FuzzMembership(f *testing.F) {
	const facts = `"facts":{"clusterCIDR":["10.42.0.0/16","fd42::/56"],"serviceCIDR":["10.43.0.0/16"],"clusterDNS":"10.43.0.10","clusterDomain":"cluster.local","backend":"vxlan","disable":["dns"]}`
	for _, seed := range []string{
		`{"servers":["https://192.0.2.1:6443","https://[2001:db8::1]:6443"],` + facts + `}`, "", "null", "{}", `{"servers":["x y"]}`, `{"servers":["https://192.0.2.1:6443"]}`, `{"servers":["https://:6443"],` + facts + `}`,
		`{"servers":["https://u:p@a.test:6443/x?y#z"],` + facts + `}`, `{"servers":["https://a.test:0"],` + facts + `}`, `{"servers":["https://a.test:6443"],"facts":{"clusterCIDR":[""],"serviceCIDR":[""],"clusterDNS":"0.0.0.0"}}`,
		`{"servers":["https://a.test:6443"],"facts":{"clusterCIDR":["10.42.3.4/16"],"serviceCIDR":["10.43.0.0/16"],"clusterDNS":"fe80::1%eth0\n"}}`, `{"servers":[null],"facts":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := memberOf(t, "n1", time.Now().Add(time.Hour))
		if err := os.WriteFile(m.file(), data, 0o600); err != nil {
			t.Fatal(err)
		}
		var member bool
		var err error
		fuzz.AllocatesAtMost(t, 16+uint64(len(data))/1024, func() { member, err = m.load() })
		if !member {
			if err == nil || !strings.Contains(err.Error(), m.file()) {
				t.Errorf("the error does not say which file: %v", err)
			} else {
				fuzz.OneLine(t, err)
			}
			if !reflect.DeepEqual(m, Membership{dir: m.dir}) {
				t.Errorf("of what is none, %+v is left", m)
			}
			return
		}
		for _, server := range m.Servers {
			if u, err := url.Parse(server); err != nil || u.Hostname() == "" || u.User != nil {
				t.Errorf("%q counts as a server", server)
			}
		}
		for _, prefix := range append(m.Facts.ClusterCIDR, m.Facts.ServiceCIDR...) {
			if !prefix.IsValid() {
				t.Errorf("%q counts as a range", prefix)
			}
		}
		before := m
		if before.Facts.Disable != nil && len(before.Facts.Disable) == 0 {
			before.Facts.Disable = nil
		}
		if err := m.save(); err != nil {
			t.Fatal(err)
		}
		again := Membership{dir: m.dir}
		if member, err := again.load(); !member || err != nil || !reflect.DeepEqual(before, again) {
			t.Errorf("%+v is remembered as %+v, %v", before, again, err)
		}
	})
}
