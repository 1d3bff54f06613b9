// Command poser poses as a lite that does not work. What it is to say and to do
// stands at the end of its own file.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// mark is before what stands at the end. It is put together here so that it is
// nowhere else in the program.
var mark = []byte("\n#" + "pose:")

type role struct {
	Version json.RawMessage // the answer to `version`
	Refuse  string          // the answer to `config check`, "" = accepted
	Exec    string          // the program to become
	Write   string          // a file of the configuration to write before
	Content string
	Hang    bool
}

func main() {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		fail(err)
	}
	var r role
	if err := json.Unmarshal(self[bytes.LastIndex(self, mark)+len(mark):], &r); err != nil {
		fail(err)
	}
	switch {
	case len(os.Args) > 1 && os.Args[1] == "version":
		fmt.Println(string(r.Version))
	case len(os.Args) > 1 && os.Args[1] == "config":
		if r.Refuse != "" {
			fail(r.Refuse)
		}
	case r.Exec != "":
		if err := os.MkdirAll(filepath.Dir(r.Write), 0o700); err != nil {
			fail(err)
		}
		if err := os.WriteFile(r.Write, []byte(r.Content), 0o600); err != nil {
			fail(err)
		}
		fail(syscall.Exec(r.Exec, os.Args, os.Environ()))
	case r.Hang:
		time.Sleep(time.Hour)
	default:
		fail("this lite cannot start")
	}
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
