package nodeagent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"

	"spacehost/internal/link"
)

// fronts is how an agent reaches its front. The network implements it, and tests.
type fronts interface {
	join(ctx context.Context, address, token, name string) (link.Identity, error)
	dial(ctx context.Context, d link.Dialer, hello any) (dialed, error)
}

// dialed is a link and the welcome of the front.
type dialed struct {
	connection
	link    *link.Link
	welcome json.RawMessage
}

// connection is a *link.Link.
type connection interface {
	Call(ctx context.Context, op string, in, out any) error
	Done() <-chan struct{}
	Err() error
	Close()
	Wait()
}

type network struct{}

func (network) join(ctx context.Context, address, token, name string) (link.Identity, error) {
	return link.Join(ctx, address, token, name)
}

func (network) dial(ctx context.Context, d link.Dialer, hello any) (dialed, error) {
	l, welcome, err := d.Dial(ctx, hello)
	return dialed{l, l, welcome}, err
}

// isUnreachable reports whether no connection to the front was made.
func isUnreachable(err error) bool {
	operation := (*net.OpError)(nil)
	return errors.As(err, &operation) || errors.Is(err, link.ErrNoHandshake) || isTimeout(err)
}

// refusalOf returns a *RefusedError for an error that a repetition would not change, nil for any other.
func refusalOf(err error) error {
	if done := (*RefusedError)(nil); errors.As(err, &done) {
		return done
	}
	if wrong := (*tls.CertificateVerificationError)(nil); errors.As(err, &wrong) {
		return &RefusedError{err.Error()}
	}
	remote, ok := errors.AsType[*link.RemoteError](err)
	if !ok {
		return nil
	}
	switch remote.Code {
	case "", link.CodeInternal, link.CodeStopping, link.CodeLimit, link.CodeNoLink, link.CodeLost:
		return nil
	case link.CodeReplaced:
		return &RefusedError{"another agent has connected with the identity of this one; a node has one agent, so end one of them"}
	}
	return &RefusedError{remote.Text}
}

// describe returns an error with the next step.
func describe(err error, front string) string {
	dns := (*net.DNSError)(nil)
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("the host name of the front is not known: %v; check --join", dns)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("no front answers at %s: connection refused; check --join, and `cluster.listen` in the file of the front", front)
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return fmt.Sprintf("no front answers at %s: %v; check --join, and the firewalls on the way", front, err)
	}
	return err.Error()
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
