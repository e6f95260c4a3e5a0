package link

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"go.uber.org/zap"

	"spacehost/internal/stack"
)

// calls are the calls of both ends that have no answer yet.
type calls struct {
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan message // of this end
	serving map[uint64]context.CancelFunc
}

// begin returns the number of a new call of this end, and where its answer arrives.
func (c *calls) begin() (uint64, <-chan message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	answered := make(chan message, 1)
	c.waiting[c.last] = answered
	return c.last, answered
}

func (c *calls) end(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// answer hands an answer to its caller. It drops one that comes twice, or after the caller has given up.
func (c *calls) answer(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answered, ok := c.waiting[m.Answer]; ok {
		answered <- m
		delete(c.waiting, m.Answer)
	}
}

// serve records a call of the peer. It reports false if there are too many, or the number is used already.
func (c *calls) serve(id uint64, cancel context.CancelFunc) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, used := c.serving[id]; used || len(c.serving) >= maxCalls {
		return false
	}
	c.serving[id] = cancel
	return true
}

func (c *calls) served(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.serving, id)
}

// cancel ends the context of a call that the peer has given up.
func (c *calls) cancel(body json.RawMessage) {
	var id uint64
	if json.Unmarshal(body, &id) != nil {
		return // a claim of the peer about its own calls
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel, ok := c.serving[id]; ok {
		cancel()
	}
}

// serve answers a call of the peer in a goroutine.
func (l *Link) serve(m message) {
	ctx, cancel := context.WithCancel(l.ctx)
	if !l.calls.serve(m.ID, cancel) {
		cancel()
		l.answer(m.ID, nil, &RemoteError{Code: CodeLimit, Text: fmt.Sprintf("more than %d calls of this link wait for an answer", maxCalls)})
		return
	}
	l.running.Go(func() {
		stack.Reserve()
		defer cancel()
		body, err := l.handle(ctx, m)
		l.calls.served(m.ID)
		l.answer(m.ID, body, err)
	})
}

// handle answers a call. A panic fails that call: what the peer has sent must not end this program.
func (l *Link) handle(ctx context.Context, m message) (answer any, err error) {
	defer func() {
		if l.recovered(recover(), m.Op) {
			answer, err = nil, &RemoteError{Code: CodeInternal, Text: "internal error at the other end; see its log"}
		}
	}()
	switch {
	case m.Op == opRenew && l.renew != nil:
		var request []byte
		if err := json.Unmarshal(m.Body, &request); err != nil {
			return nil, fmt.Errorf("decode the request for a certificate: %w", err)
		}
		return l.renew(request)
	case strings.HasPrefix(m.Op, opPrefix):
		return nil, &RemoteError{Code: CodeProtocol, Text: fmt.Sprintf("call %q is not known", m.Op)}
	}
	return l.handler.Call(ctx, l, m.Op, m.Body)
}

// handleMessage handles a message without an answer. A panic drops it.
func (l *Link) handleMessage(m message) {
	defer func() { l.recovered(recover(), m.Op) }()
	l.handler.Tell(l, m.Op, m.Body)
}

// recovered logs a panic of the handler. It returns false if there was none.
func (l *Link) recovered(reason any, what string) bool {
	if reason == nil {
		return false
	}
	l.log.Error("handler of a link has panicked", zap.String("node", l.peer), zap.String("what", what), zap.Any("reason", reason), zap.Stack("stack"))
	return true
}

// answer sends the answer to a call, or the error that the answer cannot be sent.
func (l *Link) answer(id uint64, body any, failed error) {
	if failed == nil {
		failed = l.send(message{Answer: id}, body)
		if failed == nil || l.ctx.Err() != nil {
			return
		}
	}
	e := remote(failed)
	if l.send(message{Answer: id, Error: e}, nil) == nil || l.ctx.Err() != nil {
		return
	}
	_ = l.send(message{Answer: id, Error: &RemoteError{Code: e.Code, Text: "the answer is too large"}}, nil)
}
