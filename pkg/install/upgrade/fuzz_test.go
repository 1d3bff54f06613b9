package upgrade

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/tests/harness/fuzz"
)

// Whatever is in the place of a journal: it is one with all that goes on from it, which is written as it was read, or an
// error that names the file and what to do. What is no journal never counts as an upgrade that is under way.
func FuzzJournal(f *testing.F) {
	for _, seed := range []string{
		`{"state":"swapped","from":"v0.1.0","to":"v0.2.0","role":"server","binary":"/usr/local/bin/lite","service":true,"began":"2026-05-01T12:00:00Z","healthTimeoutNanoseconds":600000000000,"runtime":"/run/lite/containerd/containerd.sock","containers":[{}],"images":["a.tar"]}`,
		`{"state":"rolled-back","from":"v0.1.0","to":"v0.2.0","role":"agent","binary":"/lite","reason":"x"}`, "", "null", "{}", "[]", "\x00\x00", `{"state":"prepared"}`, `{"state":"later","from":"v0.1.0","to":"v0.9.0","role":"server","binary":"/lite"}`,
		`{"state":"swapped","state":"healthy","From":"a","FROM":"b","binary":"../lite"}`, `{"state":"swapped"} {}`, `{"began":"2026-05-01T12:00:00+25:00"}`, `{"state":"started","from":"a","to":"b","role":"server","binary":"/x"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(layout.Data(dir).Journal(), data, 0o600); err != nil {
			t.Fatal(err)
		}
		var j *Journal
		var err error
		fuzz.AllocatesAtMost(t, 16+uint64(len(data))/1024, func() { j, err = ReadJournal(dir) })
		if err != nil {
			fuzz.OneLine(t, err)
			if j != nil || !strings.Contains(err.Error(), layout.Data(dir).Journal()) || !strings.Contains(err.Error(), "; ") && !strings.Contains(err.Error(), ": remove it") {
				t.Errorf("it does not say which file, or what to do: %v", err)
			}
			return
		}
		if j.State == "" || j.From == "" || j.To == "" || j.Binary == "" || j.Guard == "" {
			t.Errorf("%q counts as the journal %+v", data, *j)
		}
		if err := j.write(dir); err != nil {
			t.Fatal(err)
		}
		again, err := ReadJournal(dir)
		if err != nil || !again.Began.Equal(j.Began) {
			t.Fatalf("%+v is written, and read as %+v, %v", j, again, err)
		}
		again.Began = j.Began
		if len(j.Images) == 0 && len(j.Containers) == 0 {
			j.Images, j.Containers = again.Images, again.Containers // none, or nil
		}
		if !reflect.DeepEqual(j, again) {
			t.Errorf("%+v is written, and read as %+v", j, again)
		}
	})
}
