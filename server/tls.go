package server

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// recordOfHandshake is the first byte of a TLS connection (RFC 8446, section 5.1). No HTTP request begins with it.
const recordOfHandshake = 22

// inode distinguishes a file from another one that has replaced it.
func inode(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}

// detectTLS decides at the first byte whether the client speaks TLS or plain HTTP. Programs on this machine, among them the
// Spaces, may use both at one port.
func (c *returnConn) detectTLS() error {
	if c.tlsConfig == nil {
		return nil
	}
	var first [1]byte
	if _, err := io.ReadFull(c.TCPConn, first[:]); err != nil {
		return err
	}
	config := c.tlsConfig
	c.tlsConfig = nil
	if first[0] != recordOfHandshake {
		c.begun = first[:]
		return nil
	}
	c.tls.Store(tls.Server(&begunConn{c.TCPConn, bytes.NewReader(first[:])}, config))
	return nil
}

// begunConn is a connection whose first bytes have been read.
type begunConn struct {
	*net.TCPConn
	begun *bytes.Reader
}

func (c *begunConn) Read(p []byte) (int, error) {
	if c.begun.Len() > 0 {
		return c.begun.Read(p)
	}
	return c.TCPConn.Read(p)
}

// readPlain reads what the client has sent, after decryption.
func (c *returnConn) readPlain(p []byte) (int, error) {
	if err := c.detectTLS(); err != nil {
		return 0, err
	}
	if encrypted := c.tls.Load(); encrypted != nil {
		return encrypted.Read(p)
	}
	if len(c.begun) > 0 {
		n := copy(p, c.begun)
		c.begun = c.begun[n:]
		return n, nil
	}
	return c.TCPConn.Read(p)
}

// writtenAtOnce is how much a client must take within the write deadline over TLS.
const writtenAtOnce = 64 << 10

// Write writes to the client. A TLS connection is unusable after a write that has timed out, so there the deadline counts for each
// part: callers that continue after a partial write, as the streams of gradioapi do, need no second attempt.
func (c *returnConn) Write(p []byte) (n int, err error) {
	encrypted := c.tls.Load()
	if encrypted == nil {
		return c.TCPConn.Write(p)
	}
	for n < len(p) && err == nil {
		if n > 0 && c.writeWithin > 0 {
			if err = c.TCPConn.SetWriteDeadline(time.Now().Add(c.writeWithin)); err != nil {
				break
			}
		}
		var written int
		written, err = encrypted.Write(p[n:min(n+writtenAtOnce, len(p))])
		n += written
	}
	return n, err
}

// SetWriteDeadline implements net.Conn.
func (c *returnConn) SetWriteDeadline(t time.Time) error {
	c.writeWithin = 0
	if !t.IsZero() {
		c.writeWithin = time.Until(t)
	}
	return c.TCPConn.SetWriteDeadline(t)
}

// ReadFrom implements io.ReaderFrom, which net/http uses for files.
func (c *returnConn) ReadFrom(r io.Reader) (int64, error) {
	if c.tls.Load() == nil {
		return c.TCPConn.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c}, r)
}

// WriteTo implements io.WriterTo, which io.Copy uses.
func (c *returnConn) WriteTo(w io.Writer) (int64, error) {
	if c.tls.Load() == nil {
		return c.TCPConn.WriteTo(w)
	}
	return io.Copy(w, struct{ io.Reader }{c})
}

// CloseWrite ends the connection for the client, which may still send.
func (c *returnConn) CloseWrite() error {
	if encrypted := c.tls.Load(); encrypted != nil {
		_ = encrypted.CloseWrite() // fails if the client has gone
	}
	return c.TCPConn.CloseWrite()
}

// requireTLS marks the requests of TLS connections (http.Request.TLS). A plain request of another machine is redirected, or refused
// if it is not a read: what it carries could be intercepted already. Proxies that TrustProxy knows may send plain requests.
func (s *Server) requireTLS(next http.Handler) http.Handler {
	if s.TLS == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn := ConnOf(r.Context())
		switch {
		case conn == nil || conn.stream == nil:
		case conn.stream.tls.Load() != nil:
			state := conn.stream.tls.Load().ConnectionState()
			r.TLS = &state
		case conn.IsLocal() || s.TrustProxy != nil && s.TrustProxy(conn.Client.Addr()):
		case r.Method == http.MethodGet || r.Method == http.MethodHead:
			http.Redirect(w, r, "https://"+r.Host+r.URL.RequestURI(), http.StatusTemporaryRedirect)
			return
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(map[string]string{"detail": "This address requires https."}) // fails if the client has gone
			return
		}
		next.ServeHTTP(w, r)
	})
}
