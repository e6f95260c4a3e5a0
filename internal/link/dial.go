package link

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// Dialer connects a node to a front.
type Dialer struct {
	Address  string // of the front: host:port
	Identity Identity
	Handler  Handler
	// Renewed gets the identity with a renewed certificate, which further dials need; nil: the certificate is not renewed. It is called by
	// one goroutine of each link.
	Renewed func(Identity)
	// DialContext makes a connection; nil: TCP.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	Logger      *zap.Logger // nil: no log
}

// Dial connects with the defaults of a Dialer.
func Dial(ctx context.Context, address string, id Identity, hello any, h Handler) (*Link, json.RawMessage, error) {
	d := Dialer{Address: address, Identity: id, Handler: h}
	return d.Dial(ctx, hello)
}

// Dial connects, sends the hello and returns the link with the front's welcome. ctx bounds the dial, not the life of the link. A refusal of
// the front is a *RemoteError.
func (d *Dialer) Dial(ctx context.Context, hello any) (*Link, json.RawMessage, error) {
	end := &agentEnd{Dialer: *d, cache: tls.NewLRUClientSessionCache(1)}
	end.identity.Store(&d.Identity)
	if end.Logger == nil {
		end.Logger = zap.NewNop()
	}
	control, err := end.connect(ctx, opening{Kind: kindControl})
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the front %s: %w", d.Address, err)
	}
	w, err := exchangeHello(ctx, control, hello)
	if err != nil {
		control.abort()
		return nil, nil, fmt.Errorf("connect to the front %s: %w", d.Address, err)
	}
	l := newLink("", w.Link, control.Conn, d.Handler, end.Logger)
	l.opens = end.open
	end.link = l
	l.run()
	keeper := newSpareKeeper(end)
	l.running.Go(keeper.run)
	if d.Renewed != nil {
		l.running.Go(end.renew)
	}
	return l, w.Body, nil
}

// exchangeHello sends the first message of a link and returns the answer.
func exchangeHello(ctx context.Context, control *stream, hello any) (w welcome, err error) {
	defer context.AfterFunc(ctx, func() { control.NetConn().Close() })()
	body, err := json.Marshal(hello)
	if err != nil {
		return w, fmt.Errorf("encode the hello: %w", err)
	}
	frame, err := encode(message{Op: opHello, Body: body})
	if err != nil {
		return w, err
	}
	if err := control.SetDeadline(time.Now().Add(LostAfter)); err != nil {
		return w, err
	}
	if _, err := control.Write(frame); err != nil {
		return w, explain(err)
	}
	m, err := readMessage(control)
	switch {
	case err != nil && ctx.Err() != nil:
		return w, context.Cause(ctx)
	case err != nil:
		return w, explain(err)
	case m.Error != nil:
		return w, m.Error
	case m.Op != opWelcome:
		return w, fmt.Errorf("the front answers the hello with %q", m.Op)
	}
	if err := json.Unmarshal(m.Body, &w); err != nil {
		return w, fmt.Errorf("decode the welcome: %w", err)
	}
	return w, control.SetDeadline(time.Time{})
}

// agentEnd makes the connections of one link.
type agentEnd struct {
	Dialer
	identity atomic.Pointer[Identity] // the latest
	cache    tls.ClientSessionCache   // further connections of the link resume the session of the first
	link     *Link
}

// connect makes a connection, which the front has accepted when connect returns.
func (e *agentEnd) connect(ctx context.Context, o opening) (*stream, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, fmt.Errorf("no answer within %s", handshakeTimeout))
	defer cancel()
	id := e.identity.Load()
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocolLink}, ServerName: frontName,
		RootCAs: id.CA, Certificates: []tls.Certificate{id.Certificate}, ClientSessionCache: e.cache,
	}
	if o.Kind != kindControl {
		// The secrets of a resumed session depend on the post-quantum key exchange of the control connection already, and a second one
		// would cost half of the handshake.
		config.CurvePreferences = []tls.CurveID{tls.X25519}
	}
	conn, err := handshake(ctx, e.DialContext, e.Address, config)
	if err != nil {
		return nil, err
	}
	var r reply
	if err := exchangeLines(ctx, conn, o, &r); err != nil {
		conn.NetConn().Close()
		return nil, err
	}
	if r.Error != nil {
		conn.NetConn().Close()
		return nil, r.Error
	}
	return newStream(conn, func() {}), nil
}

// handshake makes a TLS connection.
func handshake(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), address string, config *tls.Config) (*tls.Conn, error) {
	if dial == nil {
		dial = (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext
	}
	raw, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	setOptions(raw)
	conn := tls.Client(newTLSSocket(raw), config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if isClosed(err) {
			return nil, ErrNoHandshake
		}
		return nil, explain(err)
	}
	return conn, nil
}

// exchangeLines writes the first line of a connection and reads the front's.
func exchangeLines(ctx context.Context, conn *tls.Conn, line, answer any) error {
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	err := writeLine(conn, line)
	if err == nil {
		err = readLine(conn, answer)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return explain(err)
}

// explain puts the failures of a handshake into words. In TLS 1.3 the front's refusal of a certificate is the first that is read.
func explain(err error) error {
	text := err.Error()
	var unknown *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown) && strings.Contains(text, "expired"):
		return fmt.Errorf("the front's certificate is not valid now: %w; check the clocks of both machines", err)
	case errors.As(err, &unknown):
		return fmt.Errorf("the front has no certificate of this node's cluster: %w; check its address, or join again", err)
	case strings.Contains(text, "tls: expired certificate"):
		return fmt.Errorf("the front refuses this node's certificate, which has expired; join again with a new token: %w", err)
	case strings.Contains(text, "tls: unknown certificate authority"), strings.Contains(text, "tls: bad certificate"):
		return fmt.Errorf("the front refuses this node's certificate, which is not of its cluster; join again with a new token: %w", err)
	case strings.Contains(text, "tls: no application protocol"):
		return fmt.Errorf("the front speaks another version of the link protocol; upgrade the front first, then the nodes: %w", err)
	case isClosed(err):
		return errors.New("the front has closed the connection without an answer; try again")
	}
	return err
}

func isClosed(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) }

// open opens a stream of the node.
func (e *agentEnd) open(ctx context.Context, hello json.RawMessage) (*stream, error) {
	s, err := e.connect(ctx, opening{Kind: kindStream, Link: e.link.id, Hello: hello})
	if err != nil {
		return nil, err
	}
	if !e.link.adopt(s) {
		s.abort()
		return nil, e.link.downError()
	}
	return s, nil
}

// renewRetry is the time between two attempts to renew a certificate.
const renewRetry = time.Minute

// renew renews the certificate when two thirds of its life have passed, with the same key.
func (e *agentEnd) renew() {
	timer := time.NewTimer(time.Until(e.Identity.renewAt()))
	defer timer.Stop()
	for {
		select {
		case <-e.link.ctx.Done():
			return
		case <-timer.C:
		}
		renewed, err := e.renewOnce()
		if err != nil {
			e.Logger.Warn("renew the certificate of this node", zap.Error(err), zap.Time("expires", e.identity.Load().Expires()))
			timer.Reset(renewRetry)
			continue
		}
		e.identity.Store(&renewed)
		e.Logger.Info("certificate of this node renewed", zap.Time("expires", renewed.Expires()))
		e.Renewed(renewed)
		timer.Reset(max(renewRetry, time.Until(renewed.renewAt())))
	}
}

func (e *agentEnd) renewOnce() (renewed Identity, err error) {
	id := e.identity.Load()
	key, ok := id.Certificate.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return renewed, errors.New("the identity has no ECDSA key")
	}
	request, err := newRequest(key)
	if err != nil {
		return renewed, err
	}
	ctx, cancel := context.WithTimeout(e.link.ctx, handshakeTimeout)
	defer cancel()
	var certificate []byte
	if err := e.link.Call(ctx, opRenew, request, &certificate); err != nil {
		return renewed, err
	}
	return newIdentity(key, append([][]byte{certificate}, id.Certificate.Certificate[1:]...)...)
}
