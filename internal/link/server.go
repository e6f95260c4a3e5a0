package link

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// Server is the front's end of all links. Its fields must not change after Serve; all but Redeem and Logger are needed. An error of
// Authorize, Redeem or Hello that is a *RemoteError reaches the node. Of any other error the node gets CodeInternal only, and the log
// has the text.
type Server struct {
	CA *Authority
	// Authorize decides, for each link, whether a node with a valid certificate may connect. key is the SHA-256 of its public key.
	Authorize func(node string, key [32]byte) error
	// Redeem uses up a token and records the node, atomically; nil: no node can join.
	Redeem func(ctx context.Context, r JoinRequest) (JoinGrant, error)
	// Hello answers the hello of a new link. An earlier link of the same node is down already. The link's methods can be used, but a Call
	// is answered only after Hello has returned. If Hello fails, the link is down.
	Hello   func(l *Link, hello json.RawMessage) (welcome any, err error)
	Handler Handler
	Logger  *zap.Logger // nil: no log

	once  sync.Once
	gates *gates
	tls   *tls.Config

	mu      sync.Mutex
	nodes   map[string]*nodeConns
	rates   map[string]*nodeRates // by node; kept until they are full again, because a node may close all its connections
	revoked uint64                // calls of Revoke
}

// nodeConns are the connections of one node.
type nodeConns struct {
	count    int
	greeting int      // control connections without a link
	link     *Link    // nil: none
	key      [32]byte // of link
}

// The maximum of connections, and of links among them, that a node makes in a time. Above it, each waits for its turn. A link costs
// the front commits and work of the broker, which the leases of all nodes wait for.
const (
	connRate  = 100 // a second
	connBurst = 512
	linkRate  = 1
	linkBurst = 16
)

// nodeRates limits the connections of one node.
type nodeRates struct{ conns, links *rate.Limiter }

func (r *nodeRates) areFull() bool {
	return r.conns.Tokens() >= connBurst && r.links.Tokens() >= linkBurst
}

// ratesOf returns the limits of a node.
func (s *Server) ratesOf(node string) *nodeRates {
	s.mu.Lock()
	defer s.mu.Unlock()
	rates := s.rates[node]
	if rates == nil {
		maps.DeleteFunc(s.rates, func(_ string, one *nodeRates) bool { return one.areFull() }) // as good as new
		rates = &nodeRates{rate.NewLimiter(connRate, connBurst), rate.NewLimiter(linkRate, linkBurst)}
		s.rates[node] = rates
	}
	return rates
}

// maxGreeting bounds the control connections of a node that have no link, since each may hold a large hello.
const maxGreeting = 4

func (s *Server) begin() {
	s.once.Do(func() {
		s.gates, s.nodes, s.rates, s.tls = newGates(), map[string]*nodeConns{}, map[string]*nodeRates{}, s.tlsConfig()
		if s.Logger == nil {
			s.Logger = zap.NewNop()
		}
	})
}

// Serve accepts connections until ctx ends. It closes the listener and all links, and waits for the Handler, before it returns. The error
// reports that the listener has failed.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	s.begin()
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	defer listener.Close()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept nodes: %w", err)
		case err != nil:
			s.Logger.Error("accept nodes", zap.Error(err))
			select { // no descriptor is free
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		serving.Go(func() { s.serve(ctx, conn) })
	}
}

// Link returns the link of a node that is alive, or nil.
func (s *Server) Link(node string) *Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[node]; n != nil && n.link != nil && n.link.Err() == nil {
		return n.link
	}
	return nil
}

// Revoke closes the link of a node at once. The caller has already recorded that Authorize refuses the node.
func (s *Server) Revoke(node string) {
	s.mu.Lock()
	s.revoked++
	var l *Link
	if n := s.nodes[node]; n != nil {
		l = n.link
	}
	s.mu.Unlock()
	if l != nil {
		l.close(ErrRevoked, &RemoteError{Code: CodeRevoked, Text: "this node is revoked; join again with a new token"})
	}
}

// serve serves one connection. It closes the connection, unless a link has taken it.
func (s *Server) serve(ctx context.Context, raw net.Conn) {
	taken := false
	defer func() {
		if !taken {
			raw.Close()
		}
	}()
	setOptions(raw)
	address := hostOf(raw.RemoteAddr())
	opening, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	gate := s.gates.of(address)
	if err := gate.enter(opening, address); err != nil {
		s.Logger.Debug("connection refused", zap.String("address", address), zap.Error(err))
		return
	}
	conn := tls.Server(newTLSSocket(raw), s.tls)
	if err := conn.HandshakeContext(opening); err != nil {
		s.Logger.Debug("handshake", zap.String("address", address), zap.Error(err))
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == protocolJoin {
		s.serveJoin(opening, conn)
		return
	}
	c := &nodeConn{server: s, address: address, gate: gate, tls: conn}
	if err := c.serve(ctx); err != nil {
		s.refuse(c, err)
	}
	taken = c.taken
}

func hostOf(address net.Addr) string {
	host, _, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	return host
}

// tlsConfig requires a certificate of a node, except for the join protocol.
func (s *Server) tlsConfig() *tls.Config {
	link := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocolLink},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.CA.pool(),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.CA.frontCertificate() },
	}
	join := link.Clone()
	join.NextProtos, join.ClientAuth, join.ClientCAs, join.SessionTicketsDisabled = []string{protocolJoin}, tls.NoClientCert, nil, true
	link.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case slices.Contains(hello.SupportedProtos, protocolJoin):
			return join, nil
		case len(hello.SupportedProtos) == 0:
			return nil, errors.New("the client names no protocol")
		}
		return nil, nil
	}
	return link
}

// serveJoin serves a connection of the join protocol.
func (s *Server) serveJoin(ctx context.Context, conn *tls.Conn) {
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	var line joinLine
	if err := readLine(conn, &line); err != nil {
		s.Logger.Debug("join", zap.Error(err))
		return
	}
	certificate, node, err := s.answerJoin(ctx, line, conn.RemoteAddr())
	answer := joinReply{Certificate: certificate}
	if err != nil {
		s.Logger.Warn("join refused", zap.Stringer("address", conn.RemoteAddr()), zap.String("wanted", line.Name), zap.Error(err))
		answer.Error = publicError(err)
	} else {
		s.Logger.Info("node joined", zap.String("node", node), zap.Stringer("address", conn.RemoteAddr()))
	}
	if err := writeLine(conn, answer); err != nil {
		s.Logger.Warn("answer a join", zap.String("node", node), zap.Error(err))
		return
	}
	_ = conn.Close() // with the last message of TLS, after all
}

// refuse answers a connection of a node that cannot be served.
func (s *Server) refuse(c *nodeConn, err error) {
	if errors.Is(err, errGone) {
		s.Logger.Debug("connection of a node", zap.String("node", c.node), zap.String("address", c.address), zap.Error(err))
		return
	}
	s.Logger.Warn("connection of a node refused", zap.String("node", c.node), zap.String("address", c.address), zap.Error(err))
	_ = c.tls.SetWriteDeadline(time.Now().Add(farewellTimeout)) // fails only if it is closed
	if !c.replied {
		_ = writeLine(c.tls, reply{Error: publicError(err)})
	} else if frame, encodeErr := encode(message{Op: opFarewell, Error: publicError(err)}); encodeErr == nil {
		_, _ = c.tls.Write(frame)
	}
	_ = c.tls.Close()
}

// publicError returns what a node gets of an error.
func publicError(err error) *RemoteError {
	var e *RemoteError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, errProtocol):
		return &RemoteError{Code: CodeProtocol, Text: err.Error()}
	}
	return &RemoteError{Code: CodeInternal, Text: "the front has failed; its log has the cause"}
}
