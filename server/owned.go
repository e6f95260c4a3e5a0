package server

import "net"

// ownedConn is a connection of an Attachment that is no TCP connection of this machine: a client on another machine has opened it, and
// something else has brought it here. Unlike a returnConn, it serves no further request after a handler took it over.
type ownedConn struct {
	net.Conn
	limit     *connLimit
	info      *Conn
	unchecked bool // the first Read must ask limit
	fixedReader
}

func newOwnedConn(conn net.Conn, l returnableListener) *ownedConn {
	c := &ownedConn{Conn: conn, limit: l.limit, info: &Conn{}}
	c.info.attach(l.owner)
	c.unchecked = l.limit.add(c.info)
	return c
}

// Read implements net.Conn.
func (c *ownedConn) Read(p []byte) (int, error) {
	if c.unchecked {
		c.unchecked = false
		if owner, ok := c.limit.admit(c.info); !ok {
			_, _ = c.Conn.Write(c.limit.refusal(owner)) // fails if the client has gone
			_ = c.Close()
			return 0, net.ErrClosed
		}
	}
	return c.fixedReader.read(p, c.Conn.Read)
}

// Close closes the connection. It may be called twice.
func (c *ownedConn) Close() error {
	c.limit.remove(c.info)
	return c.Conn.Close()
}

// fixedReader is what is left of a Read: the beginning of the next request, already fixed.
type fixedReader struct {
	early []byte
	fixer targetFixer
}

// read reads with the function, and fixes the targets of requests.
func (f *fixedReader) read(p []byte, from func([]byte) (int, error)) (int, error) {
	for len(f.early) == 0 {
		n, err := from(p)
		if fixed := f.fixer.fix(p[:n]); len(fixed) <= len(p) && len(fixed) > 0 {
			return copy(p, fixed), err
		} else if f.early = fixed; err != nil || len(p) == 0 {
			return 0, err
		}
	}
	n := copy(p, f.early)
	f.early = f.early[n:]
	return n, nil
}
