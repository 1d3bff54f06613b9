package uninstall

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// unloadModule unloads a module that nobody uses; it says why not.
func unloadModule(name string) error {
	err := unix.DeleteModule(name, unix.O_NONBLOCK)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EBUSY):
		return errors.New("others use it")
	case errors.Is(err, unix.EPERM):
		return errors.New("it may not be unloaded from within a container")
	}
	return fmt.Errorf("unload it: %w", err)
}
