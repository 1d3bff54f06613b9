package apiproxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// watchHealth checks the servers when it begins, when something has failed, and after each
// pause.
func (b *Balancer) watchHealth(ctx context.Context, client *http.Client) {
	defer client.CloseIdleConnections()
	due := time.NewTimer(0)
	defer due.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.kick:
			// Connections may fail by the hundred.
			due.Reset(time.Until(last.Add(b.timing.search)))
			continue
		case <-due.C:
		}
		b.askAll(ctx, client)
		last = time.Now()
		if pause := b.pause(); pause > 0 {
			due.Reset(pause)
		} else {
			client.CloseIdleConnections()
		}
	}
}

// pause is how long the next look may wait; 0 is until something fails. There
// is nothing to find out about a healthy server without an alternative.
func (b *Balancer) pause() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.order()[0].state != Healthy:
		return b.timing.search
	case len(b.candidates()) > 1:
		return b.timing.every
	}
	return 0
}

// candidates are the servers whose health matters now: seeds only while no
// learnt server is healthy. The lock must be held.
func (b *Balancer) candidates() (some []*server) {
	best := b.order()[0]
	seeds := !best.learnt || best.state != Healthy
	for _, s := range b.servers {
		if s.learnt || seeds {
			some = append(some, s)
		}
	}
	return some
}

// askAll asks the candidates, all at once. It waits for all before it settles,
// so that not the server that answers first gets all agents of a cluster.
func (b *Balancer) askAll(ctx context.Context, client *http.Client) {
	b.mu.Lock()
	candidates := b.candidates()
	b.mu.Unlock()

	var asking sync.WaitGroup
	for _, s := range candidates {
		asking.Go(func() {
			err := ask(ctx, client, s.address)
			if ctx.Err() == nil {
				b.probed(s, err)
			}
		})
	}
	asking.Wait()

	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle()
}

// ask is whether a server of the cluster answers at address.
func ask(ctx context.Context, client *http.Client, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	// Unread, the rest would cost the connection.
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	switch res.StatusCode {
	case http.StatusOK, http.StatusUnauthorized, http.StatusForbidden:
		// A user may have closed /readyz to anonymous requests; the server answers.
		return err
	}
	return errors.New("answers " + res.Status)
}
