//go:build cgo

package quota

import (
	"errors"

	"github.com/mattn/go-sqlite3"
)

func isDuplicate(err error) bool {
	var lite sqlite3.Error
	return errors.As(err, &lite) && lite.ExtendedCode == sqlite3.ErrConstraintUnique
}
