// Package stores runs the datastores of others, for tests that have lite use them: the real servers, each on a host of
// its own, made by scripts/test/software.
package stores

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// Password is that of the user lite in every database.
const Password = "s3cr3t/with:odd@characters"

// escaped is Password in a URL.
const escaped = "s3cr3t%2Fwith%3Aodd%40characters"

// user is whose the servers' processes are: neither refuses root's.
const user = 999

// Server is a datastore.
type Server struct {
	*cluster.Host
	Name     string
	Endpoint string // for user lite, with Password

	command []string
	asRoot  bool
	ready   []string
	sql     func(statement string) []string
	process *cluster.Cmd
}

// software has scripts/test/software make something, and returns where it is.
func software(t testing.TB, name string) string {
	t.Helper()
	_, root := filepath.Dir, repository(t)
	c := exec.Command(filepath.Join(root, "scripts", "test", "software"), name)
	c.Stderr = os.Stderr
	path, err := c.Output()
	if err != nil {
		t.Fatalf("make %s: %v", name, err)
	}
	return strings.TrimSpace(string(path))
}

func repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatalf("find the repository: %v", err)
	return ""
}

// PostgreSQL runs Debian's, with an empty database k8s of user lite's.
func PostgreSQL(t testing.TB, n *cluster.Network) *Server {
	t.Helper()
	s := &Server{Host: cluster.NewHost(t, cluster.On(n), cluster.Root(software(t, "databases"))), Name: "PostgreSQL"}
	const bin, data = "/usr/lib/postgresql/15/bin/", "/var/lib/store"
	s.Endpoint = fmt.Sprintf("postgres://lite:%s@%s:5432/k8s?sslmode=disable", escaped, s.IP)
	s.command = []string{bin + "postgres", "-D", data, "-h", "0.0.0.0", "-k", "/tmp", "-c", "fsync=off"}
	s.ready = []string{bin + "psql", "-h", "/tmp", "-d", "postgres", "-c", "SELECT 1"}
	s.sql = func(statement string) []string {
		return []string{bin + "psql", "-h", "/tmp", "-d", "k8s", "-v", "ON_ERROR_STOP=1", "-Atqc", statement}
	}
	s.prepare(t, data)
	s.run(t, bin+"initdb", "-D", data, "-U", "store", "-A", "trust", "--no-sync")
	s.WriteFile(t, data+"/pg_hba.conf", "local all all trust\nhost all all 0.0.0.0/0 scram-sha-256\n")
	s.Start(t)
	s.run(t, bin+"psql", "-h", "/tmp", "-d", "postgres", "-c", fmt.Sprintf("CREATE ROLE lite LOGIN PASSWORD '%s'", Password))
	s.run(t, bin+"psql", "-h", "/tmp", "-d", "postgres", "-c", "CREATE DATABASE k8s OWNER lite")
	return s
}

// MariaDB runs Debian's, with an empty database k8s of user lite's.
func MariaDB(t testing.TB, n *cluster.Network, args ...string) *Server {
	t.Helper()
	s := &Server{Host: cluster.NewHost(t, cluster.On(n), cluster.Root(software(t, "databases"))), Name: "MariaDB"}
	const data = "/var/lib/store"
	s.Endpoint = fmt.Sprintf("mysql://lite:%s@tcp(%s:3306)/k8s", Password, s.IP)
	s.command = append([]string{"/usr/sbin/mariadbd", "--no-defaults", "--datadir=" + data, "--socket=/tmp/db.sock", "--bind-address=0.0.0.0",
		"--pid-file=/tmp/db.pid", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"}, args...)
	client := []string{"/usr/bin/mariadb", "--no-defaults", "--socket=/tmp/db.sock", "-u", "root", "-NBe"}
	s.ready = append(client, "SELECT 1")
	s.sql = func(statement string) []string { return append(client, "USE k8s; "+statement) }
	s.prepare(t, data)
	s.run(t, "/usr/bin/mariadb-install-db", "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	s.Start(t)
	s.run(t, append(client, fmt.Sprintf("CREATE DATABASE k8s; CREATE USER lite@'%%' IDENTIFIED BY '%s'; GRANT ALL ON k8s.* TO lite@'%%'", Password))...)
	return s
}

// Etcd runs one of the version in go.mod, with no TLS unless args say so.
func Etcd(t testing.TB, n *cluster.Network, args ...string) *Server {
	t.Helper()
	s := &Server{Host: cluster.NewHost(t, cluster.On(n), cluster.Install(software(t, "etcd"), "/usr/local/bin/etcd")), Name: "etcd", asRoot: true}
	s.Endpoint = fmt.Sprintf("http://%s:2379", s.IP)
	s.command = append([]string{"etcd", "--data-dir=/var/lib/store", "--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=" + s.Endpoint}, args...)
	s.Start(t)
	return s
}

func (s *Server) prepare(t testing.TB, data string) {
	t.Helper()
	s.Output(t, "mkdir", "-m", "700", data)
	s.Output(t, "chown", "999:999", data)
	s.Output(t, "chmod", "1777", "/tmp")
}

func (s *Server) as(ctx context.Context, command []string) *cluster.Cmd {
	c := s.Command(ctx, command[0], command[1:]...)
	c.Env = append(c.Env, "HOME=/tmp", "USER=store")
	if !s.asRoot {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	}
	return c
}

func (s *Server) run(t testing.TB, command ...string) string {
	t.Helper()
	out, err := s.as(t.Context(), command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", s.Name, strings.Join(command, " "), err, out)
	}
	return string(out)
}

// SQL runs a statement in the database k8s as the administrator.
func (s *Server) SQL(t testing.TB, statement string) string {
	t.Helper()
	return strings.TrimSpace(s.run(t, s.sql(statement)...))
}

// Start starts the server, and waits until it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(s.Dir, "store.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if s.process == nil {
		// The host ends only when whoever is in it has been waited for.
		t.Cleanup(s.end)
	}
	s.process = s.as(context.Background(), s.command)
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		t.Fatalf("start %s: %v", s.Name, err)
	}
	cluster.Eventually(t, time.Minute, func() error {
		if s.ready == nil {
			conn, err := s.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.Endpoint, "http://"))
			if err == nil {
				err = conn.Close()
			}
			return err
		}
		if out, err := s.as(t.Context(), s.ready).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// Kill ends the server at once.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.process.ProcessState != nil {
		t.Fatalf("%s has ended by itself: %v", s.Name, s.process.ProcessState)
	}
	s.end()
}

func (s *Server) end() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}
