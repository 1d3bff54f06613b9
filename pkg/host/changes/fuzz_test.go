package changes

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
)

// Whatever is in the place of what a machine was like before lite: it is read as it is written, or not at all.
func FuzzMachineRecord(f *testing.F) {
	boot := probe.This.BootID()
	for _, seed := range []string{
		"", "null", "{}", "[]", `{"boot":"BOOT"}`, `{"boot":"BOOT","dataDirs":["/var/lib/lite"],"settings":{"net/ipv4/ip_forward":"0"},"set":{},"modules":["br_netfilter"],"tables":[]}`, `{"boot":"other","settings":{"a":"b"}}`, `{"boot":"BOOT","settings":{"../../x":"y"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := layout.Run(t.TempDir())
		data = []byte(strings.ReplaceAll(string(data), "BOOT", boot))
		if err := os.WriteFile(dir.Before(), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Read(dir)
		if err != nil || r.Boot == "" {
			if !reflect.DeepEqual(r, Record{}) {
				t.Errorf("%v, and %+v is left", err, r)
			}
			return
		}
		if err := r.write(dir); err != nil {
			t.Fatal(err)
		}
		if again, err := Read(dir); err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("%+v is written, and read as %+v, %v", r, again, err)
		}
	})
}
