package config

import "fmt"

// Place is the flag, or the key of a file, that a setting comes from.
type Place struct {
	File string // empty for a flag
	Line int
	Key  string // such as --isolation, or spaces[0].isolation
}

// String returns FILE:LINE: KEY, or the flag.
func (p Place) String() string {
	if p.File == "" {
		return p.Key
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Key)
}

// Mistake returns an error at the place. Its type is *FileError if the place is in a file. The format may contain %w.
func (p Place) Mistake(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if p.File == "" {
		return fmt.Errorf("%s: %w", p.Key, err)
	}
	return &FileError{[]Problem{{p.File, p.Line, p.Key, err.Error()}}}
}

// place returns the node's place.
func (n node) place() Place { return Place{n.doc.file, n.line, n.path} }
