package nodes

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Place notes on which node a Space starts. A node that is not known is accepted: it may be the host's own machine.
func (s *Store) Place(ctx context.Context, space, node string) error {
	_, err := s.db.ExecContext(ctx, `INSERT INTO space_nodes (space, node) VALUES (?, ?) ON CONFLICT (space) DO UPDATE SET node = excluded.node`, space, node)
	if err != nil {
		return fmt.Errorf("note the node of %s: %w", space, err)
	}
	return nil
}

// PlaceOf returns the node on which a Space has started last; "" if Place has noted none.
func (s *Store) PlaceOf(ctx context.Context, space string) (node string, err error) {
	err = s.reads.QueryRowContext(ctx, `SELECT node FROM space_nodes WHERE space = ?`, space).Scan(&node)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("read the node of %s: %w", space, err)
	}
	return node, nil
}
