// Package changes records what a machine was like before lite changed it: settings of the kernel, modules, tables of
// the packet filter, and what `lite check --fix` has done. Whoever changes the machine records it here first; uninstall
// reads it, and brings back what was.
package changes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
)

// Record is what the machine was like before lite ran on it for the first time
// since boot. A reboot makes it worthless, and what it is about too.
type Record struct {
	Boot string `json:"boot"`
	// DataDirs are of all that have run since boot.
	DataDirs []string `json:"dataDirs"`
	// Settings are those of the kernel, by their paths below /proc/sys.
	Settings map[string]string `json:"settings"`
	// Set is what lite has made of those that it has changed; nil if none has been
	// ready since boot.
	Set     map[string]string `json:"set"`
	Modules []string          `json:"modules"`
	// Tables and chains of nftables that programs named iptables have made. Nil
	// if that is not known.
	Tables []string `json:"tables"`
}

// Read returns an empty one if there is none of this boot.
func Read(runDir layout.Run) (Record, error) {
	var r Record
	data, err := os.ReadFile(runDir.Before())
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return Record{}, fmt.Errorf("read the recorded state of the machine: %w", err)
	}
	if r.Boot != probe.This.BootID() {
		return Record{}, nil
	}
	return r, nil
}

func (r Record) write(runDir layout.Run) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(runDir), file.Passable); err != nil {
		return fmt.Errorf("record the state of the machine: %w", err)
	}
	if err := file.Write(runDir.Before(), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("record the state of the machine: %w", err)
	}
	return nil
}
