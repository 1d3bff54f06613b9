package images

import (
	"fmt"
	"sync/atomic"
	"time"
)

// reportEvery is how often the log shows that an import is still running.
const reportEvery = 15 * time.Second

// work is how far an import is.
type work struct {
	size  int64
	done  atomic.Int64           // bytes of the archive
	image atomic.Pointer[string] // that is unpacked, once the archive is read
}

func (w *work) read(sum int64) { w.done.Store(sum) }

func (w *work) unpack(image string) { w.image.Store(&image) }

func (w *work) String() string {
	if image := w.image.Load(); image != nil {
		return "unpacking " + *image
	}
	return fmt.Sprintf("reading, %s of %s", Bytes(w.done.Load()), Bytes(w.size))
}

// report reports the current step at intervals, until done is called.
func (w *work) report(every time.Duration, progress func(doing string)) (done func()) {
	tick, end, ended := time.NewTicker(every), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				progress(w.String())
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}
