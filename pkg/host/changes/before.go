package changes

import (
	"context"
	"slices"
	"strings"

	"lite.io/lite/pkg/host/netfilter"
	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
)

// Before is how the machine is before a start of lite.
type Before struct {
	runDir layout.Run
	now    Record
	// tables delivers the tables of nftables: to list them takes longer than all else.
	tables <-chan []string
	// settings are those that this start has found.
	settings map[string]string
}

// Inspect records how the machine is, unless that was done since boot. Call it before
// anything is changed. Packet filter rules may be changed after Keep.
func Inspect(runDir layout.Run) *Before {
	b := &Before{runDir: runDir}
	if r, err := Read(runDir); err == nil && r.Boot != "" {
		return b
	}
	b.now = Record{Boot: probe.This.BootID(), Settings: ReadSettings(), Modules: probe.This.LoadedModules()}
	tables := make(chan []string, 1)
	b.tables = tables
	go func() {
		found, _ := netfilter.Programs{}.XTables(context.Background()) // nil if they cannot be found out
		tables <- found
	}()
	return b
}

// Changed reports whether a module has been loaded since.
func (b *Before) Changed() bool {
	return b.now.Boot != "" && !slices.Equal(b.now.Modules, probe.This.LoadedModules())
}

// Keep records how the machine was, for an uninstall to restore, unless a start since boot
// has done so. Call it before kernel settings are changed. dataDir is recorded, too; "" if
// there is none yet.
func (b *Before) Keep(dataDir string) error {
	if b.tables != nil {
		b.now.Tables, b.tables = <-b.tables, nil
	}
	r, err := Read(b.runDir)
	first := err != nil || r.Boot == ""
	if first {
		if r = b.now; r.Boot == "" {
			return nil // it was there a moment ago; an uninstall is under way
		}
	}
	// Those that came with a module are as the module has made them. Interfaces that
	// came later are as lite has made the kernel make them.
	b.settings = ReadSettings()
	for path, value := range b.settings {
		if _, known := r.Settings[path]; !known && (first || !strings.Contains(path, "/conf/")) {
			r.Settings[path] = value
		}
	}
	if dataDir != "" && !slices.Contains(r.DataDirs, dataDir) {
		r.DataDirs = append(r.DataDirs, dataDir)
	}
	return r.write(b.runDir)
}

// Ready writes down which settings of the kernel this start has changed, once lite is
// ready: only what is still so is lite's to undo. What differs from the start before
// was changed by somebody else. After starts that did not get as far, all that
// differs from the time before lite counts as lite's.
func (b *Before) Ready() error {
	r, err := Read(b.runDir)
	if err != nil || r.Boot == "" {
		return err
	}
	was := b.settings
	if r.Set == nil {
		was, r.Set = r.Settings, map[string]string{}
	}
	for path, value := range ReadSettings() {
		if before, known := was[path]; known && value != before {
			r.Set[path] = value
		}
	}
	return r.write(b.runDir)
}
