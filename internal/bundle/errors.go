package bundle

import "fmt"

// EntryError reports an entry that no bundle may contain. Its text names the entry and, where the user can act, the next step.
type EntryError struct{ Path, Reason string }

func (e *EntryError) Error() string { return fmt.Sprintf("%.300q %s", e.Path, e.Reason) }

// LimitError reports a bundle that exceeds a limit.
type LimitError struct {
	What  string // in the plural: "entries", "bytes of names", "bytes"
	Limit int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("the folder has more than %d %s; remove what the Space does not need", e.Limit, e.What)
}

// ChangedError reports a file that did not have the content of the Manifest, or changed during the read, in two attempts.
type ChangedError struct{ Path string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("file %.300q changed while it was read; try again when no program writes to it", e.Path)
}

// SpaceError reports a disk without room for a bundle. Both figures are bytes.
type SpaceError struct {
	Dir        string
	Need, Free int64
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("the bundle needs %d MB and the disk of %s has %d MB free; free space on that disk",
		(e.Need+1e6-1)/1e6, e.Dir, e.Free/1e6)
}

// PeerError is the failure that the other end has reported, in its words.
type PeerError struct{ Text string }

func (e *PeerError) Error() string {
	return "the other end of the bundle's connection failed: " + e.Text
}

// ProtocolError reports bytes of the other end that are not of the protocol.
type ProtocolError struct{ Reason string }

func (e *ProtocolError) Error() string {
	return "protocol error on the bundle's connection: " + e.Reason
}

func protocolError(format string, args ...any) error {
	return &ProtocolError{fmt.Sprintf(format, args...)}
}

// maxReason bounds the text of a failure on the connection, in bytes.
const maxReason = 1 << 10
