package cni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/layout"
)

// setting is one of the kernel's that has to be on.
type setting struct{ path, module string }

// kernel is those that packets of pods need.
func kernel(ranges []netip.Prefix) []setting {
	all := []setting{
		{"/proc/sys/net/ipv4/ip_forward", ""},
		{"/proc/sys/net/bridge/bridge-nf-call-iptables", "br_netfilter"},
	}
	for _, r := range ranges {
		if r.Addr().Is6() {
			all = append(all, setting{"/proc/sys/net/ipv6/conf/all/forwarding", ""},
				setting{"/proc/sys/net/bridge/bridge-nf-call-ip6tables", "br_netfilter"})
		}
	}
	return all
}

// localnet lets packets from a loopback address pass to pods, from clients of a hostPort on
// the machine itself. The plugin portmap switches it on, with a pod's rules.
const localnet = "/proc/sys/net/ipv4/conf/" + layout.Bridge + "/route_localnet"

// settings looks after those of the kernel.
type settings struct {
	all []setting
	// local reports whether a pod needs localnet.
	local func() bool
	watch *sentinel // nil = the kernel reports forwarding only
}

// notify has the watcher check when somebody writes a setting, until ctx is done.
func (s *settings) notify(ctx context.Context, watcher *firewall.Watcher) {
	if watcher == nil {
		return
	}
	watch, err := newSentinel()
	if err != nil {
		slog.Debug("Cannot watch kernel settings", "err", err)
		return
	}
	s.watch = watch
	s.follow()
	go watch.notify(ctx, watcher.CheckSettings)
}

// follow watches the files that exist now: a bridge that was recreated has others.
func (s *settings) follow() {
	if s.watch == nil {
		return
	}
	paths := []string{localnet}
	for _, one := range s.all {
		paths = append(paths, one.path)
	}
	s.watch.follow(paths)
}

// missing names those that are off. Changes of the packet filter are a reason to look as
// well: nothing is heard of what is written by another mount of /proc, as a container's.
func (s *settings) missing(_ context.Context, lost firewall.Lost) (gone []string, err error) {
	if lost.Link(layout.Bridge) {
		s.follow()
	}
	if !lost.Settings && !lost.Link(layout.Bridge) && len(lost.Changes) == 0 {
		return nil, nil
	}
	for _, path := range s.off() {
		gone = append(gone, "the setting "+strings.ReplaceAll(strings.TrimPrefix(path, "/proc/sys/"), "/", "."))
	}
	return gone, nil
}

func (s *settings) off() (paths []string) {
	for _, one := range s.all {
		if on, err := isOn(one.path); err == nil && !on {
			paths = append(paths, one.path)
		}
	}
	// For an interface it is on if it is on for all.
	everywhere, _ := isOn(strings.Replace(localnet, layout.Bridge, "all", 1))
	if on, err := isOn(localnet); err == nil && !on && !everywhere && s.local() {
		paths = append(paths, localnet)
	}
	return paths
}

func (s *settings) restore(context.Context) error {
	var errs []error
	for _, path := range s.off() {
		if err := enable(path); err != nil {
			errs = append(errs, fmt.Errorf("switch on %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// enable writes 1 unless the file has it: in a container it may be read-only and already
// right.
func enable(path string) error {
	if on, err := isOn(path); err != nil || on {
		return err
	}
	return os.WriteFile(path, []byte("1"), 0o600)
}

func isOn(path string) (bool, error) {
	data, err := os.ReadFile(path)
	return strings.TrimSpace(string(data)) == "1", err
}

// sentinel notices when somebody writes to a file below /proc/sys through this machine's
// /proc. It is one inotify instance and a goroutine.
type sentinel struct {
	inotify *os.File
	// held is the open files, by their watches: for a file that nobody has open, the kernel
	// creates another inode at the next open, which has no watch.
	held map[uint32]*os.File
}

func newSentinel() (*sentinel, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open an inotify instance: %w", err)
	}
	return &sentinel{inotify: os.NewFile(uintptr(fd), "inotify")}, nil
}

// follow watches the files that exist, and only these.
func (s *sentinel) follow(paths []string) {
	raw, err := s.inotify.SyscallConn()
	if err != nil {
		return // it is closed
	}
	_ = raw.Control(func(fd uintptr) {
		held := map[uint32]*os.File{}
		for _, path := range paths {
			f, err := os.Open(path)
			if err != nil {
				continue // there are no pods of that family, or no bridge at the moment
			}
			watch, err := unix.InotifyAddWatch(int(fd), path, unix.IN_MODIFY)
			if err != nil {
				f.Close() // it is checked with the rest
				continue
			}
			held[uint32(watch)] = f
		}
		for watch, f := range s.held {
			if held[watch] == nil { // of an interface that is gone
				_, _ = unix.InotifyRmWatch(int(fd), watch)
			}
			f.Close()
		}
		s.held = held
	})
}

// notify calls wrote when a file was written, until ctx is done.
func (s *sentinel) notify(ctx context.Context, wrote func()) {
	defer context.AfterFunc(ctx, func() { s.inotify.Close() })()
	buffer := make([]byte, 4096)
	for {
		if _, err := s.inotify.Read(buffer); err != nil {
			return
		}
		wrote()
	}
}
