package resolver

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestServers(t *testing.T) {
	const stub = "# stub\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n"
	for name, c := range map[string]struct {
		usual, behind string // "-" = there is none
		want          []string
		file          string // "usual", "behind" or ""
	}{
		"plain":                             {"nameserver 192.0.2.1\nnameserver 192.0.2.2\n", "-", []string{"192.0.2.1", "192.0.2.2"}, "usual"},
		"said twice, comments, tabs":        {"; x\n#nameserver 1.1.1.1\nnameserver\t192.0.2.1\nnameserver 192.0.2.1", "-", []string{"192.0.2.1"}, "usual"},
		"behind systemd-resolved":           {stub, "nameserver 192.0.2.1\nnameserver fe80::1%eth0\n", []string{"192.0.2.1", "fe80::1%eth0"}, "behind"},
		"systemd-resolved knows none":       {stub, "# No DNS servers known.\n", nil, "behind"},
		"its extra stub":                    {"nameserver 127.0.0.54\n", "-", nil, "usual"},
		"a forwarder of the machine":        {"nameserver 127.0.0.1\n", "-", []string{"127.0.0.1"}, "usual"},
		"the same, of IPv6":                 {"nameserver ::1\n", "-", []string{"::1"}, "usual"},
		"a forwarder before resolved":       {"nameserver 127.0.0.1\n", "nameserver 192.0.2.1\n", []string{"192.0.2.1"}, "behind"},
		"a forwarder beside a real one":     {"nameserver 127.0.0.1\nnameserver 192.0.2.1\n", "nameserver 192.0.2.9\n", []string{"127.0.0.1", "192.0.2.1"}, "usual"},
		"the stub beside a real one":        {"nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "nameserver 192.0.2.9\n", []string{"192.0.2.1"}, "usual"},
		"a forwarder behind resolved":       {stub, "nameserver 127.0.0.1\n", []string{"127.0.0.1"}, "behind"},
		"resolved behind itself":            {stub, "nameserver 127.0.0.53\n", nil, "behind"},
		"a forwarder by another name":       {"nameserver 0.0.0.0\n", "nameserver 192.0.2.1\n", []string{"192.0.2.1"}, "behind"},
		"no servers":                        {"search example.test\n", "nameserver 192.0.2.9\n", []string{"192.0.2.9"}, "usual"},
		"no file":                           {"-", "-", nil, ""},
		"resolved alone, without the usual": {"-", "nameserver 192.0.2.9\n", []string{"192.0.2.9"}, ""},
		"not an address":                    {"nameserver dns.example.test\n", "-", nil, "usual"},
	} {
		t.Run(name, func(t *testing.T) {
			f := write(t, c.usual, c.behind)
			var got []string
			for _, a := range f.Servers() {
				got = append(got, a.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if want := map[string]string{"usual": f.Usual, "behind": f.BehindResolved}[c.file]; f.File() != want {
				t.Errorf("pods inherit %q, want %q", f.File(), want)
			}
		})
	}
}

// Whatever replaces the file does not block: reading a FIFO would wait forever.
func TestOtherThingsThanAFile(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a FIFO":      func(path string) error { return unix.Mkfifo(path, 0o644) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"a device":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"a loop":      func(path string) error { return os.Symlink(path, path) },
	} {
		f := write(t, "-", "nameserver 192.0.2.9\n")
		if err := errors.Join(os.MkdirAll(filepath.Dir(f.Usual), 0o755), make(f.Usual)); err != nil {
			t.Fatal(err)
		}
		if got := f.Servers(); len(got) != 1 || f.File() != "" {
			t.Errorf("%s: servers %v, file %q", name, got, f.File())
		}
	}
	// What nobody would write is read like anything else.
	long := strings.Repeat("# nobody needs this\n", 1<<16) + strings.Repeat("nameserver 192.0.2.1\n\x00\xff\n", 1000) + "nameserver 192.0.2.2\nnameserver"
	if got := write(t, long, "-").Servers(); len(got) != 2 {
		t.Errorf("of a long file: %v", got)
	}
}

func write(t *testing.T, usual, behind string) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{filepath.Join(dir, "etc", "resolv.conf"), filepath.Join(dir, "run", "resolv.conf")}
	for path, content := range map[string]string{f.Usual: usual, f.BehindResolved: behind} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if content == "-" {
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// A file is written over, replaced by another, or is a link that leads elsewhere;
// all of it is noticed.
func TestWatch(t *testing.T) {
	f := write(t, "nameserver 192.0.2.1\n", "nameserver 192.0.2.9\n")
	found := make(chan []netip.Addr)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- f.Watch(ctx, func(now []netip.Addr) {
			select {
			case found <- now:
			case <-ctx.Done():
			}
		})
	}()
	elsewhere := filepath.Join(t.TempDir(), "linked")
	put := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mkdir := func(path string) {
		t.Helper()
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	// A file that is being written may be seen in between.
	await := func(want string) {
		var all []netip.Addr
		if want != "" {
			all = append(all, netip.MustParseAddr(want))
		}
		for !slices.Equal(<-found, all) {
		}
	}
	await("192.0.2.1")
	put(elsewhere, "nameserver 192.0.2.4\n")
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"written over", func() { put(f.Usual, "nameserver 192.0.2.2\n") }, "192.0.2.2"},
		{"replaced", func() { put(f.Usual+".new", "nameserver 192.0.2.3\n"); move(f.Usual+".new", f.Usual) }, "192.0.2.3"},
		{"made a link", func() {
			if err := os.Symlink(elsewhere, f.Usual+".new"); err != nil {
				t.Fatal(err)
			}
			move(f.Usual+".new", f.Usual)
		}, "192.0.2.4"},
		{"changed behind the link", func() { put(elsewhere, "nameserver 192.0.2.5\n") }, "192.0.2.5"},
		{"resolved takes over", func() { put(f.Usual+".new", "nameserver 127.0.0.53\n"); move(f.Usual+".new", f.Usual) }, "192.0.2.9"},
		{"resolved learns another", func() { put(f.BehindResolved, "nameserver 192.0.2.8\n") }, "192.0.2.8"},
		{"made a link to what is not there", func() {
			if err := os.Symlink("../later/on/resolv.conf", f.Usual+".new"); err != nil {
				t.Fatal(err)
			}
			move(f.Usual+".new", f.Usual)
			if err := os.RemoveAll(filepath.Dir(f.BehindResolved)); err != nil {
				t.Fatal(err)
			}
		}, ""},
		{"which appears", func() { mkdir(filepath.Dir(f.Usual) + "/../later/on"); put(f.Usual, "nameserver 192.0.2.7\n") }, "192.0.2.7"},
		{"and goes", func() {
			if err := os.RemoveAll(filepath.Dir(f.Usual) + "/../later"); err != nil {
				t.Fatal(err)
			}
		}, ""},
		{"resolved starts", func() { mkdir(filepath.Dir(f.BehindResolved)); put(f.BehindResolved, "nameserver 192.0.2.6\n") }, "192.0.2.6"},
	} {
		t.Log(step.name)
		step.do()
		await(step.want)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

// In a container the file is mounted from elsewhere: its own directory does not
// show what is written to it.
func TestWatchOfAMountedFile(t *testing.T) {
	f := write(t, "", "-")
	elsewhere := filepath.Join(t.TempDir(), "mounted")
	fill := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fill(elsewhere, "nameserver 192.0.2.1\n")
	if err := unix.Mount(elsewhere, f.Usual, "", unix.MS_BIND, ""); errors.Is(err, unix.EPERM) {
		t.Skip("only root can mount")
	} else if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(f.Usual, 0); err != nil {
			t.Error(err)
		}
	}()
	found := make(chan []netip.Addr, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Watch(ctx, func(now []netip.Addr) { found <- now }) }()
	await := func(want ...netip.Addr) {
		t.Helper()
		if got := <-found; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	first, second := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	await(first)
	for _, path := range []string{elsewhere, f.Usual} {
		fill(path, "")
		await()
		fill(path, "nameserver 192.0.2.2\n")
		await(second)
		fill(path, "# none\n")
		await()
		fill(path, "nameserver 192.0.2.1\n")
		await(first)
	}
	// Rewriting it empties it for a moment, which is not reported.
	fill(f.Usual, "nameserver 192.0.2.2\n")
	await(second)
	stop()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}
