package link

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// Link is a connection between a front and an agent. Its methods are safe for concurrent use, also by its Handler.
type Link struct {
	peer    string // "" at the node
	id      string
	control *tls.Conn
	handler Handler
	log     *zap.Logger
	// opens makes a stream: at the agent by a connection, at the front by a spare.
	opens func(ctx context.Context, hello json.RawMessage) (*stream, error)
	// renew answers opRenew at the front; nil at the agent.
	renew func(request []byte) ([]byte, error)
	rate  *rate.Limiter // of messages of the peer; the agent has no limit

	out    *controlWriter
	pulse  pulse
	spares spares // at the front
	calls  calls

	ctx     context.Context // ends when the link is down, after err is set
	down    context.CancelCauseFunc
	unread  chan struct{} // closed when nothing reads control any more
	running sync.WaitGroup

	mu      sync.Mutex
	err     error // nil: alive
	streams map[*stream]struct{}
}

// newLink returns a link that does nothing until run.
func newLink(peer, id string, control *tls.Conn, handler Handler, log *zap.Logger) *Link {
	l := &Link{
		peer: peer, id: id, control: control, handler: handler, log: log,
		rate: rate.NewLimiter(rate.Inf, 0), out: newControlWriter(control), streams: map[*stream]struct{}{},
		unread: make(chan struct{}),
	}
	l.ctx, l.down = context.WithCancelCause(context.Background())
	l.calls.waiting, l.calls.serving = map[uint64]chan message{}, map[uint64]context.CancelFunc{}
	l.pulse.begin(time.Now())
	return l
}

// run starts the goroutines of a link.
func (l *Link) run() {
	l.out.begin()
	inbox := make(chan message, 64)
	l.running.Go(func() { l.out.run(func(err error) { l.close(err, nil) }) })
	l.running.Go(func() { l.read(inbox) })
	l.running.Go(func() { l.dispatch(inbox) })
	l.running.Go(l.sendBeats)
	l.running.Go(l.watch)
}

// Peer returns the name of the node at the front, and "" at the node.
func (l *Link) Peer() string { return l.peer }

// Call sends a request and waits for the answer, which it decodes into out unless out is nil. Calls are begun in the order in which
// they and the Tells are sent. If ctx ends, the handler's ctx ends too, and Call returns the cause of ctx at once. The error is a
// *RemoteError if the handler has failed. It is ErrDown if the link is down: then the handler may have run or not.
func (l *Link) Call(ctx context.Context, op string, in, out any) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return l.Begin(op, in)(ctx, out)
}

// Begin sends a request without waiting for the answer. The socket has it when Begin returns, unless the peer reads slowly or the link has not
// begun to run. The caller must call wait, once, which does and returns what Call does.
func (l *Link) Begin(op string, in any) (wait func(ctx context.Context, out any) error) {
	id, answered := l.calls.begin()
	failed := l.send(message{Op: op, ID: id}, in)
	return func(ctx context.Context, out any) error {
		defer l.calls.end(id)
		if failed != nil {
			return fmt.Errorf("call %s: %w", op, failed)
		}
		answer, err := l.await(ctx, id, answered)
		if err != nil {
			return fmt.Errorf("call %s: %w", op, err)
		}
		if answer.Error != nil {
			return answer.Error
		}
		if out == nil || len(answer.Body) == 0 {
			return nil
		}
		if err := json.Unmarshal(answer.Body, out); err != nil {
			return fmt.Errorf("decode the answer to %s: %w", op, err)
		}
		return nil
	}
}

func (l *Link) await(ctx context.Context, id uint64, answered <-chan message) (answer message, err error) {
	select {
	case answer = <-answered:
		return answer, nil
	case <-ctx.Done():
		_ = l.send(message{Op: opCancel}, id) // a link that is down has ended the call already
		return answer, context.Cause(ctx)
	case <-l.ctx.Done():
		return answer, l.downError()
	}
}

// Tell sends a message without an answer, and does not block. The error is ErrDown, or states why the body cannot be sent. Without an
// error the message arrives, or the link ends.
func (l *Link) Tell(op string, body any) error {
	if err := l.send(message{Op: op}, body); err != nil {
		return fmt.Errorf("tell %s: %w", op, err)
	}
	return nil
}

// send queues a message.
func (l *Link) send(m message, body any) error {
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		m.Body = encoded
	}
	frame, err := encode(m)
	if err != nil {
		return err
	}
	if l.ctx.Err() != nil {
		return l.downError()
	}
	if l.out.put(frame); l.out.waiting() > maxQueued {
		l.close(ErrSlow, nil)
		return l.downError()
	}
	return nil
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// read reads messages until the connection ends.
func (l *Link) read(inbox chan<- message) {
	defer close(l.unread)
	defer close(inbox)
	for {
		m, err := readMessage(l.control)
		if err == nil {
			err = l.rate.Wait(l.ctx) // a peer that sends more has to wait
		}
		if err != nil {
			l.ended(err)
			// The other end closes the connection when it has got the reason. Unread bytes would reset it before.
			_, _ = io.Copy(io.Discard, l.control.NetConn())
			return
		}
		l.pulse.hear(time.Now())
		switch {
		case m.Op == opBeat:
			l.onBeat(m.Body)
		case m.Op == opFarewell:
			l.close(farewell(m), nil)
		case m.Answer != 0:
			l.calls.answer(m)
		default:
			select {
			case inbox <- m:
			case <-l.ctx.Done():
			}
		}
	}
}

// ended closes the link after the end of its control connection.
func (l *Link) ended(err error) {
	switch {
	case errors.Is(err, errProtocol):
		l.log.Warn("a message is refused", zap.String("node", l.peer), zap.Error(err))
		l.close(err, &RemoteError{Code: CodeProtocol, Text: err.Error()})
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		l.close(errors.New("the other end has closed the connection"), nil)
	default:
		l.close(err, nil)
	}
}

func farewell(m message) error {
	if m.Error == nil {
		return errors.New("the other end has closed the link")
	}
	return m.Error
}

// dispatch handles the messages of the peer in their order.
func (l *Link) dispatch(inbox <-chan message) {
	for m := range inbox {
		switch {
		case l.ctx.Err() != nil:
		case m.Op == opCancel:
			l.calls.cancel(m.Body)
		case m.Op == opKeep:
			l.spares.shrink(m.Body)
		case m.ID != 0:
			l.serve(m)
		case strings.HasPrefix(m.Op, opPrefix):
			l.log.Debug("message of an unknown kind", zap.String("node", l.peer), zap.String("op", m.Op))
		default:
			l.handleMessage(m)
		}
	}
}

// Open opens a stream: a TLS connection of its own. Closing it leaves the link open. The other end gets it in Handler.Stream, with the hello,
// which has MaxLine bytes at most. The agent waits for the front's answer. The front takes a spare, or waits for one until ctx ends.
func (l *Link) Open(ctx context.Context, hello any) (net.Conn, error) {
	encoded, err := json.Marshal(hello)
	if err != nil {
		return nil, fmt.Errorf("encode the hello of a stream: %w", err)
	}
	if len(encoded) > MaxLine {
		return nil, fmt.Errorf("open a stream: hello of %d bytes; the maximum is %d", len(encoded), MaxLine)
	}
	if l.ctx.Err() != nil {
		return nil, fmt.Errorf("open a stream: %w", l.downError())
	}
	opened, err := l.opens(ctx, encoded)
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	return opened, nil
}

// RTT returns the latest round trip of a beat, without the time that the other end has kept it; 0 before the first.
func (l *Link) RTT() time.Duration { return l.pulse.roundTrip() }

// Beat returns when the latest message of the other end came. Beats are the ones that come without any other.
func (l *Link) Beat() time.Time { return l.pulse.heard() }

// Done is closed when the link is down.
func (l *Link) Done() <-chan struct{} { return l.ctx.Done() }

// Err returns why the link is down, and nil while it is alive.
func (l *Link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *Link) downError() error { return fmt.Errorf("%w: %w", ErrDown, l.Err()) }

// Close ends the link and closes its streams. It may be called several times, also by the Handler, and does not wait for the Handler.
func (l *Link) Close() { l.close(ErrClosed, &RemoteError{Text: "the other end has closed the link"}) }

// Wait returns when the link is down and its Handler has returned from all calls.
func (l *Link) Wait() {
	<-l.ctx.Done()
	l.running.Wait()
}

// close ends the link. The first cause counts. The other end gets the reason, if there is one, and closes the connection then.
func (l *Link) close(cause error, reason *RemoteError) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = cause
	streams := l.streams
	l.streams = nil
	if reason != nil {
		l.running.Add(1) // read is running, so Wait has not returned
	}
	l.mu.Unlock()
	l.down(cause)
	for s := range streams {
		s.abort()
	}
	l.spares.close()
	if reason == nil {
		l.out.close()
		l.control.NetConn().Close()
		return
	}
	if frame, err := encode(message{Op: opFarewell, Error: reason}); err == nil {
		l.out.put(frame)
	}
	go func() {
		defer l.running.Done()
		timeout := time.NewTimer(farewellTimeout)
		defer timeout.Stop()
		select {
		case <-timeout.C:
		case <-l.unread: // the other end has closed it
		}
		l.out.close()
		l.control.NetConn().Close()
	}()
}
