package migrations

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync"

	"github.com/mattn/go-sqlite3"

	"spacehost/internal/failpoint"
)

// driverName is SQLite's own, but where a test lets the host die: there each write has a point before and after it.
func driverName() string {
	if failpoint.Hook == nil {
		return "sqlite3"
	}
	registerMortal()
	return mortal
}

const mortal = "sqlite3, mortal"

var registerMortal = sync.OnceFunc(func() { sql.Register(mortal, &mortalDriver{}) })

type mortalDriver struct{ sqlite3.SQLiteDriver }

// Open implements driver.Driver.
func (d *mortalDriver) Open(dsn string) (driver.Conn, error) {
	c, err := d.SQLiteDriver.Open(dsn)
	if err != nil {
		return nil, err
	}
	return &mortalConn{c.(*sqlite3.SQLiteConn)}, nil
}

type mortalConn struct{ *sqlite3.SQLiteConn }

// BeginTx implements driver.ConnBeginTx.
func (c *mortalConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	tx, err := c.SQLiteConn.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	return mortalTx{tx}, nil
}

// ExecContext implements driver.ExecerContext.
func (c *mortalConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if !c.AutoCommit() { // its transaction's commit is the write
		return c.SQLiteConn.ExecContext(ctx, query, args)
	}
	failpoint.Here("before a write")
	defer failpoint.Here("after a write")
	return c.SQLiteConn.ExecContext(ctx, query, args)
}

type mortalTx struct{ driver.Tx }

// Commit implements driver.Tx.
func (t mortalTx) Commit() error {
	failpoint.Here("before a commit")
	defer failpoint.Here("after a commit")
	return t.Tx.Commit()
}
