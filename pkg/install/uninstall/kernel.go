package uninstall

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/host/probe"
)

// restoreKernel restores the settings that still have lite's values, and unloads the
// modules that it has loaded.
func (w *work) restoreKernel() {
	if w.other != "" {
		return // it needs them as they are
	}
	if w.record.Boot == "" {
		if w.hadRun {
			w.Leave("kernel settings: their previous values are not known; they last until the next boot (docs/files.md lists them)")
		}
		return
	}
	undo := w.record.Undo()
	for _, what := range undo.Left {
		w.Leave("%s", what)
	}
	if len(undo.Settings) > 0 {
		w.Step("Restoring %d kernel settings", len(undo.Settings))
	}
	for _, s := range undo.Settings {
		w.Fail(s.Write())
	}
	for _, s := range undo.Drifted() {
		w.Fail(s.Write())
	}
	w.unloadModules()
}

// unloadModules unloads what lite has loaded and nobody uses.
func (w *work) unloadModules() {
	now := probe.This.LoadedModules()
	for _, f := range probe.Features() {
		if slices.Contains(w.record.Modules, f.Module) || !slices.Contains(now, f.Module) {
			continue
		}
		if err := unloadModule(f.Module); err != nil {
			w.Leave("module %s, which lite has loaded: %v", f.Module, err)
			continue
		}
		w.Step("Unloaded module %s", f.Module)
	}
}

// unloadModule unloads a module that nobody uses, or returns why not.
func unloadModule(name string) error {
	err := unix.DeleteModule(name, unix.O_NONBLOCK)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EBUSY):
		return errors.New("others use it")
	case errors.Is(err, unix.EPERM):
		return errors.New("it cannot be unloaded from within a container")
	}
	return fmt.Errorf("unload it: %w", err)
}

func readText(path string) string {
	data, _ := os.ReadFile(path)
	return strings.TrimSpace(string(data))
}
