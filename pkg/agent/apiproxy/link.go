package apiproxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"lite.io/lite/pkg/kube"
)

// link is a client's connection and the server's that belongs to it.
type link struct{ client, server *net.TCPConn }

func (l *link) close() {
	l.client.Close()
	l.server.Close()
}

// accept takes connections until ctx is done and the listener is closed.
func (b *Balancer) accept(ctx context.Context, l net.Listener, running *sync.WaitGroup) {
	var pause time.Duration
	for {
		c, err := l.Accept()
		if err == nil {
			pause = 0
			running.Go(func() { b.serve(ctx, c.(*net.TCPConn)) })
			continue
		}
		if ctx.Err() != nil {
			return
		}
		// Such as no more open files: retrying immediately would only take
		// the processor from those who could close some.
		if pause == 0 {
			slog.Warn("The load balancer cannot accept a connection; retrying", "err", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		if !kube.Sleep(ctx, pause) {
			return
		}
	}
}

// serve connects one client to a server until both are done.
func (b *Balancer) serve(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	s, l := b.connect(ctx, client)
	if l == nil {
		return
	}
	answered := l.pass()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(s.links, l)
	// The kernel accepts connections for a server that hangs. When there is
	// only one server, this is how that is noticed.
	if !answered {
		b.checkSoon()
	}
}

// connect tries the servers, the best first; nil if none accepts. Why is in
// the log and in Servers.
func (b *Balancer) connect(ctx context.Context, client *net.TCPConn) (*server, *link) {
	dialer := net.Dialer{Timeout: b.timing.dial}
	b.mu.Lock()
	order := b.order()
	b.mu.Unlock()
	for _, s := range order {
		c, err := dialer.DialContext(ctx, "tcp", s.address)
		if ctx.Err() == nil && err != nil {
			b.refused(s, err)
		}
		if err != nil {
			continue
		}
		l := &link{client, c.(*net.TCPConn)}
		if b.attach(ctx, s, l) {
			return s, l
		}
		c.Close()
	}
	return nil, nil
}

// attach registers a link, unless the server was removed or everything ended
// while it was dialed.
func (b *Balancer) attach(ctx context.Context, s *server, l *link) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Err() != nil || b.servers[s.address] != s {
		return false
	}
	s.links[l] = struct{}{}
	b.settle()
	return true
}

// closeAll closes all links. attach refuses later ones.
func (b *Balancer) closeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.servers {
		s.closeLinks()
	}
}

// pass copies both ways until both sides have sent everything, or one is gone. It reports
// whether the server has sent anything.
func (l *link) pass() bool {
	defer l.close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		l.copy(l.server, l.client)
	}()
	n := l.copy(l.client, l.server)
	<-sent
	return n > 0
}

// copy passes on what src sends, and the end of that, which does not end the other
// direction. Between TCP connections io.Copy is splice(2): the bytes do not pass through
// this process.
func (l *link) copy(dst, src *net.TCPConn) int64 {
	n, err := io.Copy(dst, src)
	if err != nil || dst.CloseWrite() != nil {
		l.close()
	}
	return n
}
