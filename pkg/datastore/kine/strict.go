package kine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/k3s-io/kine/pkg/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lite.io/lite/pkg/log"
)

// strict is a backend on SQL that answers truly when the store does not work. kine (0.17.5) does not: a create that
// failed is acknowledged, an update or delete that failed is a conflict, over which the API server retries without end;
// a list whose connection broke half-way is a list of half the objects, and a watch that began so has lost events.
type strict struct {
	server.Backend
	write func(ctx context.Context, size int) error // why writes fail, of which kine keeps the reason to itself
}

// Get implements server.Backend. Of all that read, a stream alone tells of a broken connection.
func (s *strict) Get(ctx context.Context, key string, revision int64, keysOnly bool) (int64, *server.KeyValue, error) {
	current, kvs, err := s.read(ctx, key, "", 1, revision, keysOnly)
	if err != nil || len(kvs) == 0 {
		return current, nil, err
	}
	return current, kvs[0], nil
}

// List implements server.Backend.
func (s *strict) List(ctx context.Context, key, end string, limit, revision int64, keysOnly bool) (int64, []*server.KeyValue, error) {
	return s.read(ctx, key, end, limit, revision, keysOnly)
}

func (s *strict) read(ctx context.Context, key, end string, limit, revision int64, keysOnly bool) (int64, []*server.KeyValue, error) {
	// Who leaves has the stream end.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := s.ListStream(ctx, key, end, limit, revision, keysOnly)
	var all []*server.KeyValue
	for kv := range stream.KVc {
		all = append(all, kv)
	}
	current := stream.CurrentRevision
	err := <-stream.Errorc
	if err == nil && current == 0 {
		current, err = s.CurrentRevision(ctx)
	}
	if err != nil {
		return current, nil, err
	}
	return current, all, nil
}

// Create implements server.Backend. What has been created is there at its revision, whatever others have done since.
func (s *strict) Create(ctx context.Context, key string, value []byte, lease int64) (int64, error) {
	revision, err := s.Backend.Create(ctx, key, value, lease)
	switch {
	case errors.Is(err, server.ErrKeyExists):
		if _, kv, err := s.Get(ctx, key, 0, true); err != nil || kv == nil {
			return 0, s.refused(ctx, err, len(value))
		}
		return revision, err
	case err != nil:
		return 0, err
	}
	if _, kv, err := s.Get(ctx, key, revision, true); err != nil || kv == nil || kv.ModRevision != revision {
		return 0, s.refused(ctx, err, len(value))
	}
	return revision, nil
}

// Update implements server.Backend. A conflict is about another revision than the one that was to be changed.
func (s *strict) Update(ctx context.Context, key string, value []byte, revision, lease int64) (int64, *server.KeyValue, bool, error) {
	now, kv, updated, err := s.Backend.Update(ctx, key, value, revision, lease)
	if err == nil && !updated && kv != nil && kv.ModRevision == revision {
		return 0, nil, false, s.refused(ctx, nil, len(value))
	}
	return now, kv, updated, err
}

// Delete implements server.Backend.
func (s *strict) Delete(ctx context.Context, key string, revision int64) (int64, *server.KeyValue, bool, error) {
	now, kv, deleted, err := s.Backend.Delete(ctx, key, revision)
	if err == nil && !deleted && kv != nil && kv.ModRevision == revision {
		return 0, nil, false, s.refused(ctx, nil, 0)
	}
	return now, kv, deleted, err
}

// refused is why a write has failed: the error that is known, or what the store says to another write as large.
func (s *strict) refused(ctx context.Context, err error, size int) error {
	if err == nil {
		err = s.write(ctx, size)
	}
	if err == nil {
		err = errors.New("a write failed")
	}
	return &refusedError{err}
}

// refusedError is that the store has not taken a write, or has not said that it has.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// Watch implements server.Backend. What has happened since the revision that it begins with is read at once: all of it
// is there if it ends with the revision that the store has.
func (s *strict) Watch(ctx context.Context, revision int64) server.WatchResult {
	ctx, cancel := context.WithCancel(ctx)
	result := s.Backend.Watch(ctx, revision)
	inner := result.Eventc
	first := <-inner
	if result.CompactRevision == 0 && len(result.Errorc) == 0 && !whole(first, revision) {
		failed := make(chan error, 1)
		failed <- errors.New("the connection to the datastore broke while a watch began")
		result.Errorc = failed
	}
	events := make(chan server.EventBatch, cap(inner))
	events <- first
	broken := len(result.Errorc) > 0
	go func() {
		defer cancel()
		defer close(events)
		if broken {
			return
		}
		for batch := range inner {
			select {
			case events <- batch:
			case <-ctx.Done():
				return
			}
		}
	}()
	result.Eventc = events
	return result
}

// whole reports whether a batch has all from a revision on.
func whole(batch server.EventBatch, from int64) bool {
	n := len(batch.Events)
	switch {
	case from == 0:
		return true
	case n > 0:
		return batch.Events[n-1].KV.ModRevision == batch.CurrentRev
	}
	return batch.CurrentRev != 0 && batch.CurrentRev <= max(from-1, 1)
}

// answer is around every request but streams: it knows how the store is doing, and keeps a transaction that upstream
// gives up on from ending more than the request.
func (k *Kine) answer(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (response any, err error) {
	const kv = "/etcdserverpb.KV/"
	response, err = contained(ctx, request, handle)
	if strings.HasPrefix(info.FullMethod, kv) {
		write := info.FullMethod != kv+"Range"
		switch {
		case err == nil:
			k.health.Saw(write, nil)
		case failed(ctx, err):
			k.health.Saw(write, err)
		}
	}
	return response, err
}

func contained(ctx context.Context, request any, handle grpc.UnaryHandler) (response any, err error) {
	defer recovered(&err)
	return handle(ctx, request)
}

// recovered makes an error of what upstream would have ended the process for.
func recovered(err *error) {
	r := recover()
	if r == nil {
		return
	}
	fatal, ok := r.(log.Fatal)
	if !ok {
		panic(r)
	}
	*err = fmt.Errorf("the datastore: %w", fatal)
}

// failed reports whether an error is the store's rather than an answer, or of a client that has gone.
func failed(ctx context.Context, err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(ctx.Err(), context.Canceled) {
		return false
	}
	code := status.Code(err)
	return code == codes.Unknown || code == codes.Internal || code == codes.DeadlineExceeded || code == codes.Unavailable
}
