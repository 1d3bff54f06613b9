package kine

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	kinemysql "github.com/k3s-io/kine/pkg/drivers/mysql"
	"github.com/k3s-io/kine/pkg/server"

	"lite.io/lite/pkg/datastore/shared"
)

var (
	// leastMySQL is the oldest that has the statements that kine uses.
	leastMySQL = [2]int{8, 0}
	// leastMariaDB is the oldest version that is maintained.
	leastMariaDB = [2]int{10, 6}
)

// tlsName is how the driver is told which certificates to use: it keeps them under a name.
const tlsName = "lite"

type mysqlStore struct {
	config                    *mysql.Config
	caFile, certFile, keyFile string
}

// newMySQL takes what follows mysql://, which is no URL, and completes it as kine would.
func newMySQL(rest string, c Config) (*mysqlStore, error) {
	if rest == "" {
		rest = "root@unix(/var/run/mysqld/mysqld.sock)/"
		if c.CAFile+c.CertFile != "" {
			rest = "root@tcp(127.0.0.1)/"
		}
	}
	config, err := mysql.ParseDSN(rest)
	if err != nil {
		return nil, errors.New("it is not of the form mysql://user:password@tcp(host:3306)/database")
	}
	config.DBName = cmp.Or(config.DBName, "kubernetes")
	config.Timeout = cmp.Or(config.Timeout, 10*time.Second)
	s := &mysqlStore{config, c.CAFile, c.CertFile, c.KeyFile}
	if c.CAFile+c.CertFile != "" {
		config.TLSConfig = tlsName
	}
	return s, nil
}

func (s *mysqlStore) String() string {
	return fmt.Sprintf("MySQL at %s, database %s, user %s", s.config.Addr, s.config.DBName, s.config.User)
}

// prepare gives the driver what it keeps for the process: certificates, and where it complains of connections that end.
func (s *mysqlStore) prepare() error {
	if err := mysql.SetLogger(driverLog{}); err != nil {
		return err
	}
	if s.config.TLSConfig != tlsName {
		return nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.caFile != "" {
		pem, err := os.ReadFile(s.caFile)
		if err != nil {
			return shared.Lasting(err, "correct datastore-cafile")
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return shared.Lasting(fmt.Errorf("%s has no certificate", s.caFile), "correct datastore-cafile")
		}
	}
	if s.certFile != "" {
		// Read for each connection, so that one that was renewed is used.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(s.certFile, s.keyFile)
			return &pair, err
		}
	}
	return mysql.RegisterTLSConfig(tlsName, c)
}

// driverLog gets what the driver would write to the standard error.
type driverLog struct{}

// Print implements mysql.Logger.
func (driverLog) Print(v ...any) {
	slog.Debug(strings.TrimSpace(fmt.Sprint(v...)), "from", "mysql")
}

func (s *mysqlStore) connect(database string) (*sql.DB, error) {
	config := s.config.Clone()
	config.DBName = database
	// Of a config that is not parsed, the driver takes no name for the server's certificate.
	parsed, err := mysql.ParseDSN(config.FormatDSN())
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(parsed)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

func (s *mysqlStore) open(ctx context.Context) error {
	if err := s.prepare(); err != nil {
		return err
	}
	db, err := s.connect(s.config.DBName)
	if err != nil {
		return err
	}
	defer db.Close()
	var version string
	var step int
	var readOnly bool
	err = db.QueryRowContext(ctx, `SELECT VERSION(), @@auto_increment_increment, @@global.read_only`).Scan(&version, &step, &readOnly)
	var e *mysql.MySQLError
	if errors.As(err, &e) && e.Number == unknownDatabase {
		return s.create(ctx)
	}
	if err != nil {
		return err
	}
	if err := judgeVersion(version); err != nil {
		return err
	}
	switch {
	case readOnly:
		return errors.New("it is read-only")
	case step != 1:
		return shared.Lasting(fmt.Errorf("auto_increment_increment is %d, and the revisions of objects have to be consecutive", step),
			"set it to 1; with Galera also wsrep_auto_increment_control = OFF, and have all servers of lite use the same node")
	}
	var table bool
	if err := db.QueryRowContext(ctx, `SELECT COUNT(*) > 0 FROM information_schema.TABLES WHERE table_schema = DATABASE() AND table_name = 'kine'`).
		Scan(&table); err != nil || !table {
		return err
	}
	return rights(ctx, db)
}

// create makes the database, as kine would, whose error would be less clear.
func (s *mysqlStore) create(ctx context.Context) error {
	db, err := s.connect("")
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS `"+strings.ReplaceAll(s.config.DBName, "`", "``")+"`")
	return err
}

var versionNumber = regexp.MustCompile(`^(?:5\.5\.5-)?(\d+)\.(\d+)`)

// judgeVersion takes what VERSION() is: 8.0.36, 10.11.6-MariaDB-0+deb12u1, or of older ones 5.5.5-10.2.1-MariaDB.
func judgeVersion(version string) error {
	m := versionNumber.FindStringSubmatch(version)
	if m == nil {
		return nil // somebody else's, who will know
	}
	var have [2]int
	have[0], _ = strconv.Atoi(m[1])
	have[1], _ = strconv.Atoi(m[2])
	if strings.Contains(version, "MariaDB") {
		return tooOld("MariaDB", version, have, leastMariaDB)
	}
	return tooOld("MySQL", version, have, leastMySQL)
}

func (s *mysqlStore) backend(ctx context.Context, wg *sync.WaitGroup) (server.Backend, error) {
	dialFirmly()
	_, b, err := kinemysql.New(ctx, wg, settings(s.config.FormatDSN()))
	return b, err
}

func (s *mysqlStore) write(ctx context.Context, size int) error {
	db, err := s.connect(s.config.DBName)
	if err != nil {
		return err
	}
	return touched(ctx, db, touch, size)
}

// The numbers of MySQL's and MariaDB's errors.
const (
	diskFull             = 1021
	tooManyConnections   = 1040
	deniedDatabase       = 1044
	deniedUser           = 1045
	unknownDatabase      = 1049
	tableFull            = 1114
	deniedStatement      = 1142
	deniedPrivilege      = 1227
	serverReadOnly       = 1290
	readOnlyTransaction  = 1792
	readOnlyMode         = 1836
	deniedUserNoPassword = 1698
	insecureTransport    = 3159
)

func (s *mysqlStore) judge(err error) (remedy string, lasting bool) {
	if remedy := shared.TLSRemedy(err); remedy != "" {
		return remedy, true
	}
	if errors.Is(err, mysql.ErrNoTLS) {
		return "configure TLS in the database, or remove datastore-cafile, datastore-certfile and tls= if the network is trusted", true
	}
	var e *mysql.MySQLError
	if !errors.As(err, &e) {
		return "", false
	}
	grant := fmt.Sprintf("run CREATE DATABASE IF NOT EXISTS `%s`; GRANT ALL ON `%s`.* TO '%s'@'%%' as an administrator",
		s.config.DBName, s.config.DBName, s.config.User)
	switch e.Number {
	case deniedUser, deniedUserNoPassword:
		return "correct user and password in datastore-endpoint", true
	case deniedDatabase, deniedStatement, deniedPrivilege, unknownDatabase:
		return grant, true
	case insecureTransport:
		return "set datastore-cafile, or add ?tls=true to datastore-endpoint", true
	case serverReadOnly, readOnlyTransaction, readOnlyMode:
		return "make the database writable again (read_only)", false
	case diskFull, tableFull:
		return "make room on the disk of the database", false
	case tooManyConnections:
		return "raise max_connections of the database; a server of lite uses about 20", false
	}
	return "", false
}
