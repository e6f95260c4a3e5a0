package migrations

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"sync"

	"github.com/mattn/go-sqlite3"

	"spacehost/internal/failpoint"
)

// driverName is SQLite's own driver. In a test that crashes the host it is a driver with a failpoint before and after each
// write.
func driverName() string {
	if failpoint.Hook == nil {
		return "sqlite3"
	}
	registerCrashing()
	return crashing
}

const crashing = "sqlite3 with failpoints"

var registerCrashing = sync.OnceFunc(func() { sql.Register(crashing, &crashingDriver{}) })

type crashingDriver struct{ sqlite3.SQLiteDriver }

// Open implements driver.Driver.
func (d *crashingDriver) Open(dsn string) (driver.Conn, error) {
	c, err := d.SQLiteDriver.Open(dsn)
	if err != nil {
		return nil, err
	}
	return &crashingConn{c.(*sqlite3.SQLiteConn)}, nil
}

type crashingConn struct{ *sqlite3.SQLiteConn }

// BeginTx implements driver.ConnBeginTx.
func (c *crashingConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	tx, err := c.SQLiteConn.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	return crashingTx{tx}, nil
}

// ExecContext implements driver.ExecerContext.
func (c *crashingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	switch {
	case query == "COMMIT": // of a transaction that was begun by hand
		failpoint.Here("before a commit")
		defer failpoint.Here("after a commit")
	case c.AutoCommit() && !strings.Contains(query, "BEGIN "): // inside a transaction the commit is the write
		failpoint.Here("before a write")
		defer failpoint.Here("after a write")
	}
	return c.SQLiteConn.ExecContext(ctx, query, args)
}

type crashingTx struct{ driver.Tx }

// Commit implements driver.Tx.
func (t crashingTx) Commit() error {
	failpoint.Here("before a commit")
	defer failpoint.Here("after a commit")
	return t.Tx.Commit()
}
