package kine

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/k3s-io/kine/pkg/dialer"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/datastore/shared"
)

// silence is after how long without an answer of its machine a connection is dead. Watches would otherwise wait for a
// quarter of an hour for a database whose address has moved to another machine.
const silence = 15 * time.Second

// dialFirmly has kine's connections notice that.
func dialFirmly() {
	d := dialer.CachingDialer.Dialer
	d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: silence / 3, Interval: silence / 3, Count: 3}
	d.Control = func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
		})
	}
}

// rights tries what kine does on the rows of no table: a user who may not is told so, and nothing is changed.
func rights(ctx context.Context, db *sql.DB) error {
	for _, statement := range []string{
		`INSERT INTO kine (name) SELECT name FROM kine WHERE 1 = 0`,
		`UPDATE kine SET lease = 0 WHERE 1 = 0`,
		`DELETE FROM kine WHERE 1 = 0`,
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// touched is write of a database, which it closes. What was written goes again: what there is too little of is left to
// others.
func touched(ctx context.Context, db *sql.DB, statement string, size int) error {
	defer db.Close()
	_, err := db.ExecContext(ctx, statement, make([]byte, max(size, 1)))
	if err == nil {
		_, err = db.ExecContext(ctx, statement, []byte{})
	}
	return err
}

// tooOld is a problem if a version is below what kine's statements need and what is tested.
func tooOld(product, version string, have, least [2]int) error {
	if have[0] > least[0] || have[0] == least[0] && have[1] >= least[1] {
		return nil
	}
	return shared.Lasting(fmt.Errorf("%s %s is too old", product, version),
		fmt.Sprintf("upgrade it to %s or later", strings.TrimSuffix(fmt.Sprintf("%d.%d", least[0], least[1]), ".0")))
}
