package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

const (
	mb = 1e6
	// ticks is how many of them a second of CPU has in /proc: USER_HZ, which is
	// 100 on every architecture that lite runs on.
	ticks = 100
)

// process is one as the machine sees it, whatever namespace it lives in.
type process struct{ pid int }

// processOf is the lite of a node.
func processOf(b *testing.B, node *cluster.Node) process {
	b.Helper()
	return process{node.MachinePID(b)}
}

func processes(b *testing.B) []process {
	b.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		b.Fatal(err)
	}
	var all []process
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			all = append(all, process{pid})
		}
	}
	return all
}

// shims returns the shims in the same host.
func (p process) shims(b *testing.B) []process {
	b.Helper()
	namespace, err := os.Readlink(p.path("ns/pid"))
	if err != nil {
		b.Fatal(err)
	}
	return slices.DeleteFunc(processes(b), func(other process) bool {
		name, _ := other.read("comm")
		ns, _ := os.Readlink(other.path("ns/pid"))
		return ns != namespace || strings.TrimSpace(name) != "containerd-shim" // the kernel keeps 15 bytes
	})
}

func (p process) alive() bool {
	_, err := os.Stat(p.path("stat"))
	return err == nil
}

func (p process) path(name string) string { return fmt.Sprintf("/proc/%d/%s", p.pid, name) }

func (p process) read(name string) (string, error) {
	content, err := os.ReadFile(p.path(name))
	return string(content), err
}

// fields reads a file of lines "Name: value".
func (p process) fields(name string) (map[string]string, error) {
	content, err := p.read(name)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for line := range strings.Lines(content) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			all[key] = strings.TrimSpace(value)
		}
	}
	return all, nil
}

// memory is in MB.
type memory struct{ anon, file, rss, pss float64 }

func (p process) memory(b *testing.B) memory {
	b.Helper()
	status, err := p.fields("status")
	rollup, err2 := p.fields("smaps_rollup")
	if err := errors.Join(err, err2); err != nil {
		b.Fatal(err)
	}
	size := func(from map[string]string, name string) float64 {
		kib, err := strconv.ParseFloat(strings.TrimSuffix(from[name], " kB"), 64)
		if err != nil {
			b.Fatalf("%s of process %d: %v", name, p.pid, err)
		}
		return kib * 1024 / mb
	}
	return memory{
		anon: size(status, "RssAnon"), file: size(status, "RssFile"), rss: size(status, "VmRSS"),
		pss: size(rollup, "Pss"),
	}
}

// use is what a process did in a while.
type use struct {
	cpu     float64 // % of one core
	others  float64 // the same of all other processes of the machine
	written float64 // MB an hour
}

func (p process) use(b *testing.B, window time.Duration) use {
	b.Helper()
	cpu, all, written, began := p.cpuTicks(b), machineTicks(b), p.written(b), time.Now()
	sleep(b, window)
	elapsed := time.Since(began)
	cpu, all, written = p.cpuTicks(b)-cpu, machineTicks(b)-all, p.written(b)-written
	percent := func(t float64) float64 { return t / ticks / elapsed.Seconds() * 100 }
	// The two are counted apart, in whole ticks: alone on a machine, a process may seem to use more than all.
	return use{cpu: percent(cpu), others: max(0, percent(all-cpu)), written: written / mb / elapsed.Hours()}
}

// cpuTicks returns utime + stime.
func (p process) cpuTicks(b *testing.B) float64 {
	b.Helper()
	stat, err := p.read("stat")
	if err != nil {
		b.Fatal(err)
	}
	// The second field, the name, may contain anything; these are the 14th and 15th.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	return sum(b, fields[11:13])
}

// machineTicks returns what all processes have used.
func machineTicks(b *testing.B) float64 {
	b.Helper()
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat)) // cpu user nice system idle …
	return sum(b, fields[1:4])
}

func sum(b *testing.B, fields []string) (total float64) {
	b.Helper()
	for _, field := range fields {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += n
	}
	return total
}

func (p process) written(b *testing.B) float64 {
	b.Helper()
	io, err := p.fields("io")
	if errors.Is(err, fs.ErrNotExist) {
		b.Fatal("the kernel does not count what processes write: CONFIG_TASK_IO_ACCOUNTING is off")
	}
	if err != nil {
		b.Fatal(err)
	}
	return sum(b, []string{io["write_bytes"]})
}
