package join

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAwaitAServerThatComesUpLater(t *testing.T) {
	a := newAPI(t)
	a.admit(sample, Agent.Group())
	a.answers[infoPath] = refuse(http.StatusServiceUnavailable)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s := &http.Server{
		Addr: addr, Handler: a, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{a.cert}},
	}
	t.Cleanup(func() { s.Close() })

	var said []string
	got, err := Await(t.Context(), sample, "https://"+addr, Agent, func(text string) {
		said = append(said, text)
		if len(said) == 1 {
			go func() { _ = s.ListenAndServeTLS("", "") }()
			return
		}
		a.Lock()
		delete(a.answers, infoPath)
		a.Unlock()
	})
	if err != nil || got.Server != "https://"+addr || string(got.CA) != string(encodeCerts(a.ca.certs())) {
		t.Errorf("got %+v, %v", got, err)
	}
	if len(said) != 2 || !strings.Contains(said[0], "connection refused") || !strings.Contains(said[1], "503") {
		t.Errorf("said %q", said)
	}
}

func TestAwaitGivesUpWhatDoesNotHeal(t *testing.T) {
	a := newAPI(t)
	a.admit(sample, Server.Group())
	begun := time.Now()
	_, err := Await(t.Context(), sample, a.start(), Agent, func(text string) { t.Errorf("said %q", text) })
	wants(t, err, false, "is for joining as server")
	if time.Since(begun) > settling {
		t.Errorf("took %s", time.Since(begun))
	}
}

// script is a try that fails with each of errs in turn, the last for ever, and
// succeeds after nil. It records when it was called.
func script(times *[]time.Duration, errs ...error) func() (Cluster, error) {
	begun := time.Now()
	return func() (Cluster, error) {
		*times = append(*times, time.Since(begun))
		err := errs[min(len(*times), len(errs))-1]
		return Cluster{Server: "found"}, err
	}
}

func TestPersistPausesLongerAndLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var times []time.Duration
		away := peer{server: "https://host:6443"}.unreachable("connection refused", nil)
		var said []string
		_, err := persist(ctx, func(text string) { said = append(said, text) }, script(&times, away))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v", err)
		}
		if len(said) != 1 {
			t.Errorf("said %q", said)
		}
		want := firstPause
		for i := range times[1:] {
			pause := times[i+1] - times[i]
			if pause < want*3/4 || pause > want*5/4 {
				t.Errorf("pause %d is %s, want about %s", i, pause, want)
			}
			want = min(2*want, longestPause)
		}
		if n := len(times); n < 12 || n > 20 {
			t.Errorf("%d tries in a minute", n)
		}
	})
}

func TestPersistSaysEachProblemOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Error{Problem: "a", Remedy: "r", Retry: true}
		b := &Error{Problem: "b", Remedy: "r", Retry: true}
		early := &Error{Problem: "12:00", Remedy: "r", Retry: true, topic: "clock"}
		late := &Error{Problem: "12:01", Remedy: "r", Retry: true, topic: "clock"}
		var times []time.Duration
		var said []string
		got, err := persist(t.Context(), func(text string) { said = append(said, text) }, script(&times, a, a, b, a, early, late, nil))
		if err != nil || got.Server != "found" {
			t.Errorf("got %+v, %v", got, err)
		}
		if text := strings.Join(said, ", "); text != "a; r, b; r, 12:00; r" {
			t.Errorf("said %s", text)
		}
	})
}

// The API server and the signer learn of a token a moment after it is made.
func TestPersistGivesANewTokenTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := func(text string) { t.Errorf("said %q", text) }
		unknown := &Error{Problem: "unknown", recent: true}
		var times []time.Duration
		if _, err := persist(t.Context(), silent, script(&times, unknown, unknown, nil)); err != nil {
			t.Errorf("got %v for a token that is known a moment later", err)
		}
		times = nil
		_, err := persist(t.Context(), silent, script(&times, unknown))
		if !errors.Is(err, unknown) {
			t.Errorf("got %v", err)
		}
		if took := times[len(times)-1]; took < settling || took > 3*settling {
			t.Errorf("took %s to give up", took)
		}
	})
}

func TestPersistStopsWhenItIsTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := persist(ctx, nil, func() (Cluster, error) { return Cluster{}, errors.New("x") })
	if err != context.Canceled {
		t.Errorf("got %v", err)
	}
	odd := errors.New("odd")
	if _, err := persist(t.Context(), nil, func() (Cluster, error) { return Cluster{}, odd }); err != odd {
		t.Errorf("got %v", err)
	}
}
