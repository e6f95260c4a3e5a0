package bundle

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
)

// Kind is the kind of an Entry. Its value is written to connections and into digests.
type Kind byte

// The kinds of entries. Of the mode of a file only the right to execute it is kept, as in git.
const (
	Folder  Kind = 'd'
	File    Kind = 'f'
	Program Kind = 'x' // an executable file
	Link    Kind = 'l' // a symbolic link
)

// Sum is the SHA-256 hash of a content.
type Sum [sha256.Size]byte

// String returns the hash in hexadecimal digits.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// ParseSum is the inverse of String.
func ParseSum(text string) (s Sum, err error) {
	decoded, err := hex.DecodeString(text)
	if err == nil && len(decoded) != len(s) {
		err = fmt.Errorf("want %d hexadecimal digits", 2*len(s))
	}
	if err != nil {
		return s, fmt.Errorf("parse digest %.80q: %w", text, err)
	}
	return Sum(decoded), nil
}

// Entry is a file, a folder or a link of a bundle.
type Entry struct {
	Path   string // relative to the Space's folder, with slashes
	Kind   Kind
	Size   int64  // of File and Program, in bytes
	Sum    Sum    // of File and Program
	Target string // of Link
}

// HasContent reports whether the entry is a file.
func (e Entry) HasContent() bool { return e.Kind == File || e.Kind == Program }

// Manifest lists the content of a folder. It is not changed after its creation, and so is safe for concurrent use.
type Manifest struct {
	Entries []Entry  // each folder before its content, names in the order of their bytes
	Notes   []string // what was left out of the bundle and why, for the operator; not a part of the digest
}

// Digest returns the hash of the entries, which identifies the bundle.
func (m Manifest) Digest() Sum {
	hash := sha256.New()
	_ = m.write(hash) // a hash returns no error
	return Sum(hash.Sum(nil))
}

// Bytes returns the sum of the sizes of all files.
func (m Manifest) Bytes() (total int64) {
	for _, e := range m.Entries {
		total += e.Size
	}
	return total
}

// end follows the last entry.
const end = 'e'

// write writes the encoding of the entries, of which there is one only.
func (m Manifest) write(w io.Writer) error {
	var record []byte
	for _, e := range m.Entries {
		record = e.append(record[:0])
		if _, err := w.Write(record); err != nil {
			return err
		}
	}
	_, err := w.Write([]byte{end})
	return err
}

func (e Entry) append(to []byte) []byte {
	to = append(to, byte(e.Kind))
	to = binary.BigEndian.AppendUint16(to, uint16(len(e.Path)))
	to = append(to, e.Path...)
	switch e.Kind {
	case File, Program:
		to = binary.BigEndian.AppendUint64(to, uint64(e.Size))
		to = append(to, e.Sum[:]...)
	case Link:
		to = binary.BigEndian.AppendUint16(to, uint16(len(e.Target)))
		to = append(to, e.Target...)
	}
	return to
}

// readManifest reads what write has written, and refuses an entry before it reads the next one.
func readManifest(r *bufio.Reader, limits Limits) (m Manifest, err error) {
	check := newChecker(limits)
	for {
		kind, err := r.ReadByte()
		switch {
		case err != nil:
			return Manifest{}, readError("manifest", err)
		case kind == end:
			return m, nil
		}
		e, err := readEntry(r, Kind(kind))
		if err == nil {
			err = check.add(e)
		}
		if err != nil {
			return Manifest{}, err
		}
		m.Entries = append(m.Entries, e)
	}
}

func readEntry(r *bufio.Reader, kind Kind) (e Entry, err error) {
	e.Kind = kind
	if e.Path, err = readName(r); err != nil {
		return e, err
	}
	switch kind {
	case Folder:
	case File, Program:
		var content [8 + sha256.Size]byte
		if _, err = io.ReadFull(r, content[:]); err != nil {
			return e, readError("manifest", err)
		}
		size := binary.BigEndian.Uint64(content[:])
		if size > math.MaxInt64 {
			return e, &EntryError{e.Path, "has an impossible size"}
		}
		e.Size, e.Sum = int64(size), Sum(content[8:])
	case Link:
		e.Target, err = readName(r)
	default:
		err = protocolError("unknown kind of entry %q", byte(kind))
	}
	return e, err
}

// readName reads a path or a target. Its memory is bounded by the 16 bits of its length.
func readName(r *bufio.Reader) (string, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return "", readError("manifest", err)
	}
	size := binary.BigEndian.Uint16(length[:])
	if size > maxPath {
		return "", protocolError("a name of %d bytes, above %d", size, maxPath)
	}
	name := make([]byte, size)
	if _, err := io.ReadFull(r, name); err != nil {
		return "", readError("manifest", err)
	}
	return string(name), nil
}

// readError words the end of a connection, which is always too early here.
func readError(what string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %s of the bundle: %w", what, err)
}
