package link

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// nodeConn is one connection at the front with a valid certificate of a node.
type nodeConn struct {
	server  *Server
	address string
	gate    *gate // it has a token of this gate
	tls     *tls.Conn
	node    string
	key     [32]byte
	conns   *nodeConns
	replied bool        // the line that accepts it has been sent
	release func() bool // ends its closing with the Server, because a link does it
	taken   bool        // a link has made a stream of it, and closes it
}

// serve serves the connection until its end. An error is a refusal.
func (c *nodeConn) serve(ctx context.Context) error {
	c.release = context.AfterFunc(ctx, func() { c.tls.NetConn().Close() })
	defer c.release()
	certificate := c.tls.ConnectionState().PeerCertificates[0]
	var err error
	if c.node, err = nodeOf(certificate); err != nil {
		return &RemoteError{Code: CodeRefused, Text: err.Error()}
	}
	if c.key, err = keyOf(certificate.PublicKey); err != nil {
		return err
	}
	if err := c.count(); err != nil {
		return err
	}
	s := newStream(c.tls, c.uncount)
	defer func() {
		if !c.taken {
			s.once.Do(s.closed)
		}
	}()
	if err := awaitTurn(ctx, c.server.ratesOf(c.node).conns); err != nil {
		return err
	}
	if err := c.tls.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	var o opening
	if err := readLine(c.tls, &o); err != nil {
		return err
	}
	switch o.Kind {
	case kindControl:
		return c.serveControl(ctx)
	case kindStream, kindSpare:
		return c.serveStream(s, o)
	}
	return &RemoteError{Code: CodeProtocol, Text: fmt.Sprintf("connection of the unknown kind %q", o.Kind)}
}

// count adds the connection to those of the node. Connections beyond the maximum are for a new link: those of an earlier one, which
// the front believes to be open, must not keep the node out.
func (c *nodeConn) count() error {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := s.nodes[c.node]
	if conns == nil {
		conns = &nodeConns{}
		s.nodes[c.node] = conns
	}
	if conns.count >= maxConnections+maxGreeting {
		return c.tooMany()
	}
	conns.count++
	c.conns = conns
	return nil
}

// awaitTurn limits the rate of connections or links of the node. Few can wait, since count and beginGreeting bound them.
func awaitTurn(ctx context.Context, turns *rate.Limiter) error {
	if err := turns.Wait(ctx); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

func (c *nodeConn) tooMany() error {
	return &RemoteError{Code: CodeLimit, Text: fmt.Sprintf("node %s has %d connections, the maximum", c.node, maxConnections)}
}

func (c *nodeConn) uncount() {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.conns.count--; c.conns.count == 0 && s.nodes[c.node] == c.conns {
		delete(s.nodes, c.node)
	}
}

// accept answers the opening line, and exempts the connection from the limit of handshakes.
func (c *nodeConn) accept() error {
	c.gate.refund()
	c.server.gates.welcome(c.address)
	if err := writeLine(c.tls, reply{}); err != nil {
		return err
	}
	c.replied = true
	return nil
}

// serveControl makes a link of the connection, and returns when it is down.
func (c *nodeConn) serveControl(ctx context.Context) error {
	l, hello, err := c.greet(ctx)
	if err != nil {
		return err
	}
	defer c.unregister(l)
	answer, err := c.server.Hello(l, hello)
	if err == nil {
		err = c.welcome(l, answer)
	}
	if err != nil {
		c.server.refuse(c, err)
		l.close(err, nil)
		return nil
	}
	c.server.Logger.Info("node connected", zap.String("node", c.node), zap.String("address", c.address))
	c.release()
	defer context.AfterFunc(ctx, func() {
		l.close(ErrClosed, &RemoteError{Code: CodeStopping, Text: "the front ends"})
	})()
	l.run()
	l.Wait()
	c.server.Logger.Info("node disconnected", zap.String("node", c.node), zap.NamedError("cause", l.Err()))
	return nil
}

// greet authorizes the node, reads its hello, and registers its link in place of an earlier one.
func (c *nodeConn) greet(ctx context.Context) (*Link, json.RawMessage, error) {
	if err := c.beginGreeting(); err != nil {
		return nil, nil, err
	}
	defer c.endGreeting()
	revoked := c.server.revocations()
	if err := c.server.Authorize(c.node, c.key); err != nil {
		return nil, nil, err
	}
	if err := awaitTurn(ctx, c.server.ratesOf(c.node).links); err != nil {
		return nil, nil, err
	}
	if err := c.accept(); err != nil {
		return nil, nil, err
	}
	if err := c.tls.SetReadDeadline(time.Now().Add(LostAfter)); err != nil {
		return nil, nil, err
	}
	m, err := readMessage(c.tls)
	if err != nil {
		return nil, nil, fmt.Errorf("read the hello: %w", err)
	}
	if m.Op != opHello {
		return nil, nil, &RemoteError{Code: CodeProtocol, Text: fmt.Sprintf("first message %q is no hello", m.Op)}
	}
	if err := c.tls.SetDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	l := newLink(c.node, rand.Text(), c.tls, c.server.Handler, c.server.Logger)
	l.opens, l.renew, l.rate = l.openSpare, c.renew, rate.NewLimiter(maxMessageRate, maxMessageRate)
	for !c.register(l, revoked) {
		revoked = c.server.revocations()
		if err := c.server.Authorize(c.node, c.key); err != nil {
			return nil, nil, err
		}
	}
	return l, m.Body, nil
}

func (c *nodeConn) beginGreeting() error {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if c.conns.greeting >= maxGreeting {
		return &RemoteError{Code: CodeLimit, Text: fmt.Sprintf("node %s makes %d links at the same time, the maximum", c.node, maxGreeting)}
	}
	c.conns.greeting++
	return nil
}

func (c *nodeConn) endGreeting() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.conns.greeting--
}

func (s *Server) revocations() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked
}

// register makes l the link of the node. It reports false if Revoke has been called since the node was authorized.
func (c *nodeConn) register(l *Link, revoked uint64) bool {
	s := c.server
	s.mu.Lock()
	if s.revoked != revoked {
		s.mu.Unlock()
		return false
	}
	earlier := c.conns.link
	c.conns.link, c.conns.key = l, c.key
	s.mu.Unlock()
	if earlier != nil {
		earlier.close(ErrReplaced, &RemoteError{Code: CodeReplaced, Text: "this node has connected anew"})
	}
	return true
}

func (c *nodeConn) unregister(l *Link) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if c.conns.link == l {
		c.conns.link = nil
	}
}

// welcome writes the first message of the front. Those that Hello has sent wait until run.
func (c *nodeConn) welcome(l *Link, answer any) error {
	body, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("encode the welcome: %w", err)
	}
	if body, err = json.Marshal(welcome{Link: l.id, Body: body}); err != nil {
		return err
	}
	frame, err := encode(message{Op: opWelcome, Body: body})
	if err != nil {
		return err
	}
	if err := c.tls.SetWriteDeadline(time.Now().Add(LostAfter)); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if _, err := c.tls.Write(frame); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil // run removes the deadline
}

// renew signs a new certificate for the key that the node has already.
func (c *nodeConn) renew(request []byte) ([]byte, error) {
	key, sum, err := readRequest(request)
	if err != nil {
		return nil, err
	}
	if sum != c.key {
		return nil, &RemoteError{Code: CodeRefused, Text: "the request is of another key than the certificate of the link"}
	}
	present := c.tls.ConnectionState().PeerCertificates[0]
	c.server.Logger.Info("certificate of a node renewed", zap.String("node", c.node))
	return c.server.CA.Issue(c.node, key, present.NotAfter.Sub(present.NotBefore)-backdate)
}

// serveStream makes the connection a stream or a spare of the node's link.
func (c *nodeConn) serveStream(s *stream, o opening) error {
	l, count := c.linkOfKey()
	if count > maxConnections {
		return c.tooMany()
	}
	if l == nil || l.id != o.Link || !l.adopt(s) {
		return &RemoteError{Code: CodeNoLink, Text: fmt.Sprintf("node %s has no link of this name", c.node)}
	}
	if err := c.accept(); err != nil {
		s.abort()
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if err := c.tls.SetDeadline(time.Time{}); err != nil {
		s.abort()
		return nil
	}
	c.release()
	if o.Kind == kindStream {
		l.serveStream(s, o.Hello)
		return nil
	}
	free := &spare{stream: s, idle: make(chan struct{})}
	if !l.spares.put(free) {
		return s.Close()
	}
	free.watch()
	if free.dead {
		l.spares.remove(free)
		s.abort()
		return nil
	}
	c.taken = true
	return nil
}

// linkOfKey returns the link of the node if it has been made with the same key, or nil, and the number of its connections.
func (c *nodeConn) linkOfKey() (l *Link, count int) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if c.conns.key != c.key {
		return nil, c.conns.count
	}
	return c.conns.link, c.conns.count
}
