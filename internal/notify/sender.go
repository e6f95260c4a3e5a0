package notify

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// queueLength bounds the notices that wait for one hook.
const queueLength = 256

// Bounds of the last attempts when the host ends.
const (
	closeTime  = 3 * time.Second
	brokenTime = 500 * time.Millisecond // of a hook whose last attempt failed: a dead receiver must not delay each stop
)

// Result is the outcome of a notice at a hook.
type Result string

// The results.
const (
	Delivered Result = "delivered"
	Failed    Result = "failed"  // refused for good, or all attempts failed
	Dropped   Result = "dropped" // the queue was full, or the configuration no longer has the hook
)

// Config is what a Sender needs. All but Host may be nil.
type Config struct {
	Host      string            // the name of this machine
	Transport http.RoundTripper // nil: http.DefaultTransport
	Now       func() time.Time
	// Sent is called for each notice, and Ended for each outcome at a hook. They must not block, and are called concurrently.
	Sent  func(Kind)
	Ended func(hook string, r Result)
	// Logger receives lost notices, without the URL of the hook.
	Logger *zap.Logger
}

// Sender delivers notices. Its methods may be called concurrently.
type Sender struct {
	config Config

	mu      sync.Mutex
	lines   []*line
	closed  bool
	running sync.WaitGroup // of the lines
}

// line is the queue of one hook.
type line struct {
	*client
	queue chan Notice
	end   context.CancelFunc // drops what waits
	drain chan struct{}      // closed by Close: one last attempt for each
}

// New returns a Sender without hooks. Call Configure, and Close at the end.
func New(config Config) *Sender {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Sent == nil {
		config.Sent = func(Kind) {}
	}
	if config.Ended == nil {
		config.Ended = func(string, Result) {}
	}
	if config.Transport == nil {
		config.Transport = http.DefaultTransport
	}
	return &Sender{config: config}
}

// Configure replaces the hooks. One that stays as it was keeps its queue; what waits for another one is dropped.
func (s *Sender) Configure(hooks []Hook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	before := s.lines
	s.lines = nil
	for _, hook := range hooks {
		at := slices.IndexFunc(before, func(l *line) bool { return l.hook.isSame(hook) })
		if at >= 0 {
			s.lines = append(s.lines, before[at])
			before = slices.Delete(slices.Clone(before), at, at+1)
			continue
		}
		s.lines = append(s.lines, s.open(hook))
	}
	for _, l := range before {
		l.end()
	}
}

func (s *Sender) open(hook Hook) *line {
	ctx, end := context.WithCancel(context.Background())
	l := &line{
		client: newClient(hook, s.config.Host, s.config.Transport, s.config.Now),
		queue:  make(chan Notice, queueLength), end: end, drain: make(chan struct{}),
	}
	s.running.Go(func() { defer end(); s.run(ctx, l) })
	return l
}

// Hooks returns the hooks of the configuration.
func (s *Sender) Hooks() (all []Hook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		all = append(all, l.hook)
	}
	return all
}

// Send queues a Notice at each hook that wants it. It does not block. After Close it does nothing.
func (s *Sender) Send(n Notice) {
	s.config.Sent(n.Kind)
	n = n.stamped(s.config.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for _, l := range s.lines {
		if l.hook.wants(n) {
			s.enqueue(l, n)
		}
	}
}

// enqueue drops the oldest notice of a full queue: the newest one is the most useful.
func (s *Sender) enqueue(l *line, n Notice) {
	for {
		select {
		case l.queue <- n:
			return
		default:
		}
		select {
		case oldest := <-l.queue:
			s.lost(l, oldest, Dropped, "its queue is full")
		default:
		}
	}
}

func (s *Sender) lost(l *line, n Notice, r Result, reason string) {
	s.config.Logger.Warn("notice not delivered", zap.String("webhook", l.hook.Name), zap.String("kind", string(n.Kind)), zap.String("result", string(r)), zap.String("reason", reason))
	s.config.Ended(l.hook.Name, r)
}

// run delivers the notices of one hook, in order, until ctx ends or Close has drained it.
func (s *Sender) run(ctx context.Context, l *line) {
	for {
		select {
		case <-ctx.Done():
			s.dropAll(l, "the configuration no longer has the webhook")
			return
		case <-l.drain:
			s.drainLine(ctx, l, nil)
			return
		case n := <-l.queue:
			if !s.deliver(ctx, l, n) {
				s.drainLine(ctx, l, &n)
				return
			}
		}
	}
}

// deliver returns false if Close has interrupted it.
func (s *Sender) deliver(ctx context.Context, l *line, n Notice) bool {
	retrying, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	s.running.Go(func() { ended <- l.client.deliver(retrying, n) })
	select {
	case err := <-ended:
		s.report(l, n, err)
		return true
	case <-l.drain:
	}
	stop()
	if err := <-ended; err == nil {
		s.report(l, n, nil)
		return true
	}
	return false
}

func (s *Sender) report(l *line, n Notice, err error) {
	if err != nil {
		s.lost(l, n, Failed, err.Error())
		return
	}
	s.config.Ended(l.hook.Name, Delivered)
}

// drainLine makes one attempt for the interrupted notice and for each that waits.
func (s *Sender) drainLine(ctx context.Context, l *line, interrupted *Notice) {
	most := closeTime
	if l.failing.Load() {
		most = brokenTime
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if interrupted != nil {
		s.report(l, *interrupted, l.attempt(ctx, *interrupted))
	}
	for ctx.Err() == nil {
		select {
		case n := <-l.queue:
			s.report(l, n, l.attempt(ctx, n))
			continue
		default:
		}
		return
	}
	s.dropAll(l, "the host ends")
}

func (s *Sender) dropAll(l *line, reason string) {
	for {
		select {
		case n := <-l.queue:
			s.lost(l, n, Dropped, reason)
		default:
			return
		}
	}
}

// Attempt is the outcome of one attempt of Try at a hook.
type Attempt struct {
	Hook  string
	Error error
}

// Try makes one attempt to deliver a Notice at each hook, also at those that do not want its kind, and waits for the results.
func (s *Sender) Try(ctx context.Context, n Notice) []Attempt {
	n = n.stamped(s.config.Now())
	s.mu.Lock()
	lines := slices.Clone(s.lines)
	s.mu.Unlock()
	results := make([]Attempt, len(lines))
	var all sync.WaitGroup
	for i, l := range lines {
		all.Go(func() {
			results[i] = Attempt{l.hook.Name, l.attempt(ctx, n)}
			if results[i].Error != nil {
				s.lost(l, n, Failed, results[i].Error.Error())
			} else {
				s.config.Ended(l.hook.Name, Delivered)
			}
		})
	}
	all.Wait()
	return results
}

// Close makes one more attempt for each notice that waits, within closeTime or brokenTime, and ends all goroutines. It may be called twice.
func (s *Sender) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		for _, l := range s.lines {
			close(l.drain)
		}
	}
	s.mu.Unlock()
	s.running.Wait()
}
