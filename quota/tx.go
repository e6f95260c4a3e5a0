package quota

import (
	"context"
	"database/sql"
)

// Tx is a transaction that the caller begins and ends: a *sql.Tx, or a *sql.Conn between BEGIN and COMMIT. The rows
// of a query must be closed before the next statement.
type Tx interface {
	ExecContext(ctx context.Context, statement string, args ...any) (sql.Result, error)
	querier
}
