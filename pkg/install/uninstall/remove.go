package uninstall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lite.io/lite/pkg/file"
)

// maxFailures is how many files are named that cannot be removed.
const maxFailures = 3

// remove deletes path, with all below it if it is a directory. Mounts stay.
func (w *work) remove(path string) {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		w.Fail(err)
		return
	}
	defer dir.Close()
	failures := 0
	w.Fail(file.Remove(context.Background(), dir, filepath.Base(path), func(where string, err error) error {
		where = filepath.Join(filepath.Dir(path), where)
		if errors.Is(err, file.ErrMounted) {
			w.Leave("%s: something that is not lite's is mounted there", where)
			return nil
		}
		if failures++; failures <= maxFailures {
			w.Fail(fmt.Errorf("remove %s: %w", where, err))
		}
		return nil
	}))
	if failures > maxFailures {
		w.Fail(fmt.Errorf("%d more files below %s could not be removed", failures-maxFailures, path))
	}
}
