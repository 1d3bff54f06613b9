package kine

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"lite.io/lite/pkg/cluster"
)

const password = "hunter2"

// TestEndpoints: what a store is called has no password, and what kine is told has all that the user has said.
func TestEndpoints(t *testing.T) {
	for _, c := range []struct {
		config       Config
		name, detail string
	}{
		{Config{Kind: cluster.PostgreSQL, Endpoint: "postgres://u:" + password + "@db:5433/K8S"},
			"PostgreSQL at db:5433, database k8s, user u", "u:" + password + "@db:5433/k8s"},
		{Config{Kind: cluster.PostgreSQL, Endpoint: "postgresql://u@db", CAFile: "/ca"},
			"PostgreSQL at db:5432, database kubernetes, user u", ""},
		{Config{Kind: cluster.PostgreSQL, Endpoint: "postgres://"},
			"PostgreSQL at localhost:5432, database kubernetes, user postgres", ""},
		{Config{Kind: cluster.MySQL, Endpoint: "mysql://u:" + password + "@tcp(db:3307)/k8s?x=1"},
			"MySQL at db:3307, database k8s, user u", "u:" + password + "@tcp(db:3307)/k8s?"},
		{Config{Kind: cluster.MySQL, Endpoint: "mysql://"},
			"MySQL at /var/run/mysqld/mysqld.sock, database kubernetes, user root", "root@unix("},
		{Config{Kind: cluster.MySQL, Endpoint: "mysql://", CertFile: "/a", KeyFile: "/b"},
			"MySQL at 127.0.0.1:3306, database kubernetes, user root", "tls=lite"},
		{Config{Kind: cluster.SQLite, Endpoint: "sqlite:///srv/db"}, "SQLite in /srv/db", "_synchronous=FULL"},
		{Config{Kind: cluster.SQLite, Endpoint: "sqlite://?_synchronous=OFF", File: "/d/state.db"}, "SQLite in /d/state.db", "_synchronous=OFF"},
	} {
		k, err := New(c.config)
		if c.config.CAFile != "" {
			if err == nil || strings.Contains(err.Error(), password) {
				t.Errorf("%s without the file: %v", c.config.Endpoint, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.config.Endpoint, err)
			continue
		}
		var detail string
		switch s := k.store.(type) {
		case *postgres:
			detail = s.dsn
		case *mysqlStore:
			detail = s.config.FormatDSN()
		case *sqliteStore:
			detail = s.parameters
		}
		if k.store.String() != c.name || k.Note() != c.name || !strings.Contains(detail, c.detail) {
			t.Errorf("%s is %q, %s", c.config.Endpoint, k.store, detail)
		}
	}
	for _, endpoint := range []string{"mysql://u:" + password + "@db:3306/x", "postgres://u:" + password + "@db/x?sslmode=" + password, "postgres://u:" + password + "@db:x/y"} {
		c := Config{Kind: cluster.MySQL, Endpoint: endpoint}
		if strings.HasPrefix(endpoint, "postgres") {
			c.Kind = cluster.PostgreSQL
		}
		if _, err := New(c); err == nil || strings.Contains(err.Error(), ":"+password+"@") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

func TestTooOld(t *testing.T) {
	for version, want := range map[string]string{
		"8.0.36":                        "",
		"8.4.0-1.el9":                   "",
		"5.7.44-log":                    "MySQL 5.7.44-log is too old",
		"10.11.6-MariaDB-0+deb12u1":     "",
		"10.3.39-MariaDB":               "MariaDB 10.3.39-MariaDB is too old",
		"5.5.5-10.2.1-MariaDB":          "MariaDB 5.5.5-10.2.1-MariaDB is too old",
		"11.8.2-MariaDB-ubu2404":        "",
		"something else that speaks it": "",
	} {
		if err := judgeVersion(version); (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", version, err)
		}
	}
	if err := tooOld("PostgreSQL", "11.22", [2]int{11, 0}, leastPostgres); err == nil || !strings.HasSuffix(err.Error(), "is too old; upgrade it to 12 or later") {
		t.Errorf("PostgreSQL 11: %v", err)
	}
}

// TestRemedies: what an administrator has to do is named, and only what he has to do ends the start.
func TestRemedies(t *testing.T) {
	pg, err := newPostgres(Config{Endpoint: "postgres://u@db/k8s"})
	if err != nil {
		t.Fatal(err)
	}
	my, err := newMySQL("u@tcp(db)/k8s", Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		store   store
		err     error
		remedy  string
		lasting bool
	}{
		{pg, &pgconn.PgError{Code: "28P01"}, "correct user and password", true},
		{pg, &pgconn.PgError{Code: "28000"}, "pg_hba.conf", true},
		{pg, &pgconn.PgError{Code: "42501"}, `run ALTER DATABASE "k8s" OWNER TO "u"`, true},
		{pg, &pgconn.PgError{Code: "53100"}, "make room", false},
		{pg, &pgconn.PgError{Code: "57P03"}, "", false},
		{pg, errors.New("server refused TLS connection"), "sslmode=disable", true},
		{pg, errors.New("connection refused"), "", false},
		{my, &mysql.MySQLError{Number: deniedUser}, "correct user and password", true},
		{my, &mysql.MySQLError{Number: deniedStatement}, "GRANT ALL ON `k8s`.* TO 'u'@'%'", true},
		{my, &mysql.MySQLError{Number: tableFull}, "make room", false},
		{my, &mysql.MySQLError{Number: serverReadOnly}, "writable again", false},
		{my, mysql.ErrNoTLS, "configure TLS in the database", true},
		{my, mysql.ErrInvalidConn, "", false},
	} {
		remedy, lasting := c.store.judge(c.err)
		if !strings.Contains(remedy, c.remedy) || (c.remedy == "") != (remedy == "") || lasting != c.lasting {
			t.Errorf("%v: %q, %v", c.err, remedy, lasting)
		}
	}
}
