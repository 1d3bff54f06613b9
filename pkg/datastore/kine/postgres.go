package kine

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/k3s-io/kine/pkg/drivers/pgsql"
	"github.com/k3s-io/kine/pkg/server"

	"lite.io/lite/pkg/datastore/shared"
)

// leastPostgres is the oldest version that kine is tested with.
var leastPostgres = [2]int{12, 0}

type postgres struct {
	dsn    string // without the scheme
	config *pgx.ConnConfig
}

// newPostgres completes an endpoint as kine would: the database is kubernetes unless it is named, and names are in lower
// case, since kine creates it without quotes. With an authority or a client's certificate TLS is required.
func newPostgres(c Config) (*postgres, error) {
	_, rest, _ := strings.Cut(c.Endpoint, "://")
	u, err := url.Parse("postgres://" + cmp.Or(rest, "postgres:postgres@localhost/"))
	if err != nil {
		return nil, errors.New("it is not a URL")
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/kubernetes"
	}
	u.Path = strings.ToLower(u.Path)
	values := u.Query()
	for name, file := range map[string]string{"sslrootcert": c.CAFile, "sslcert": c.CertFile, "sslkey": c.KeyFile} {
		if file != "" && !values.Has(name) {
			values.Set(name, file)
			values["sslmode"] = []string{cmp.Or(values.Get("sslmode"), "verify-full")}
		}
	}
	u.RawQuery = values.Encode()
	config, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, err // upstream takes the password out
	}
	return &postgres{strings.TrimPrefix(u.String(), "postgres://"), config}, nil
}

func (p *postgres) String() string {
	return fmt.Sprintf("PostgreSQL at %s, database %s, user %s", place(p.config.Host, p.config.Port), p.config.Database, p.config.User)
}

func place(host string, port uint16) string {
	if strings.HasPrefix(host, "/") {
		return host
	}
	return fmt.Sprintf("%s:%d", host, port)
}

func (p *postgres) database(name string) *sql.DB {
	config := p.config.Copy()
	config.Database = name
	return sql.OpenDB(stdlib.GetConnector(*config))
}

func (p *postgres) open(ctx context.Context) error {
	db := p.database(p.config.Database)
	defer db.Close()
	var number int
	var version, readOnly string
	var standby, table, create bool
	err := db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version'),
		pg_is_in_recovery(), current_setting('transaction_read_only'), to_regclass('kine') IS NOT NULL,
		COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false)`).Scan(&number, &version, &standby, &readOnly, &table, &create)
	var e *pgconn.PgError
	if errors.As(err, &e) && e.Code == pgerrcode.InvalidCatalogName {
		return p.missing(ctx, err)
	}
	if err != nil {
		return err
	}
	if err := tooOld("PostgreSQL", version, [2]int{number / 10000, 0}, leastPostgres); err != nil {
		return err
	}
	switch {
	case standby:
		return errors.New("it is a standby, which takes no writes")
	case readOnly == "on":
		return shared.Lasting(errors.New("the user's transactions are read-only"),
			fmt.Sprintf("run ALTER ROLE %q IN DATABASE %q SET default_transaction_read_only = off", p.config.User, p.config.Database))
	case table:
		return rights(ctx, db)
	case !create:
		return shared.Lasting(errors.New("the user may not create tables"), p.grant())
	}
	return nil
}

func (p *postgres) grant() string {
	return fmt.Sprintf("run ALTER DATABASE %q OWNER TO %q as a superuser, or name a user who owns it", p.config.Database, p.config.User)
}

// missing finds out whether kine will be able to create the database.
func (p *postgres) missing(ctx context.Context, err error) error {
	db := p.database("postgres")
	defer db.Close()
	var may bool
	if db.QueryRowContext(ctx, `SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user`).Scan(&may) == nil && may {
		return nil
	}
	return shared.Lasting(err, fmt.Sprintf("run CREATE DATABASE %q OWNER %q as a superuser", p.config.Database, p.config.User))
}

func (p *postgres) backend(ctx context.Context, wg *sync.WaitGroup) (server.Backend, error) {
	dialFirmly()
	_, b, err := pgsql.New(ctx, wg, settings(p.dsn))
	return b, err
}

func (p *postgres) write(ctx context.Context, size int) error {
	return touched(ctx, p.database(p.config.Database), strings.Replace(touch, "?", "$1", 1), size)
}

func (p *postgres) judge(err error) (remedy string, lasting bool) {
	if remedy := shared.TLSRemedy(err); remedy != "" {
		return remedy, true
	}
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		if strings.Contains(err.Error(), "refused TLS") {
			return "configure TLS in PostgreSQL (ssl = on), or set sslmode=disable in datastore-endpoint if the network is trusted", true
		}
		return "", false
	}
	switch e.Code {
	case pgerrcode.InvalidPassword:
		return "correct user and password in datastore-endpoint", true
	case pgerrcode.InvalidAuthorizationSpecification:
		return "correct the user in datastore-endpoint, or allow the connection in pg_hba.conf; with hostssl it needs sslmode=require or datastore-cafile", true
	case pgerrcode.InvalidCatalogName:
		return fmt.Sprintf("create the database %s", p.config.Database), true
	case pgerrcode.InsufficientPrivilege:
		return p.grant(), true
	case pgerrcode.ReadOnlySQLTransaction:
		return "make the server, or the user's transactions, writable again", false
	case pgerrcode.DiskFull:
		return "make room on the disk of PostgreSQL", false
	case pgerrcode.TooManyConnections:
		return "raise max_connections of PostgreSQL; a server of lite uses about 20", false
	}
	return "", false
}
