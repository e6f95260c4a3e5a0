package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Topic is a view that a page shows and that changes.
type Topic string

// The topics. Members get Spaces and Account of their own, admins all.
const (
	Spaces  Topic = "spaces"
	Leases  Topic = "leases"
	GPUs    Topic = "gpus"
	People  Topic = "people"
	Audit   Topic = "audit"   // the ID of the newest entry of the audit log
	Account Topic = "account" // of one person; it has no shared value
)

// EndedLeases is the number of ended leases in the topic Leases.
const EndedLeases = 100

// Sources read what the topics show, and report when it may have changed.
type Sources struct {
	// Views returns the value of a topic as admins see it. Views of different topics are called concurrently. One that fails or
	// hangs leaves its topic as it was, marks it as stale, and delays no other: a driver may hang for ever.
	Views map[Topic]func(ctx context.Context) (any, error)
	// Leases returns a channel that receives after each change of a lease until ctx ends.
	Leases func(ctx context.Context) <-chan struct{}
	// Version is a number that changes with each commit to the database.
	Version func(ctx context.Context) (int64, error)
	// Idle is called when the last stream has closed. nil: no call.
	Idle   func()
	Logger *zap.Logger
}

// Intervals of the looks at the sources while a stream is open. GPUs change without a commit: their memory, temperature and power.
const (
	lookEvery = 250 * time.Millisecond
	gpusEvery = 2 * time.Second
	// hangsAfter is the time after which a view that has not returned makes its topic stale.
	hangsAfter = 3 * time.Second
)

// errHangs marks a topic whose view has not returned.
var errHangs = errors.New("no answer")

// Changes notices what has changed since a stream's last event. It looks at the host only while a stream is open, once for all
// streams. A stream never slows it: one that lags gets the latest value of each topic, not each value in between. It may be used
// concurrently.
type Changes struct {
	sources Sources

	mu       sync.Mutex
	streams  map[string]int // open ones of each credential
	stop     context.CancelFunc
	revision int64 // of the last change of any topic; it starts at the time of the host's start, so that it never repeats
	values   map[Topic]value
	stale    map[Topic]Stale
	views    map[Topic]*view
	wake     chan struct{} // closed and replaced at each change
}

// Stale describes a topic that cannot be read now, so that its last value is shown.
type Stale struct {
	Since time.Time `json:"since"` // the first failure after the last success
	Error string    `json:"error,omitempty"`
}

// value is a topic as JSON, with the revision at which it changed.
type value struct {
	json     []byte
	revision int64
}

// view is the state of the reading of a topic.
type view struct {
	reading bool
	again   bool // the topic may have changed since began
	began   time.Time
}

// NewChanges returns the Changes of a host.
func NewChanges(sources Sources) *Changes {
	if sources.Logger == nil {
		sources.Logger = zap.NewNop()
	}
	return &Changes{sources: sources, revision: time.Now().UnixMilli(), values: map[Topic]value{}, stale: map[Topic]Stale{}, views: map[Topic]*view{}, streams: map[string]int{}, wake: make(chan struct{})}
}

// MostStreams bounds the open streams of one bearer: a script that leaks them must not use up the host's connections.
const MostStreams = 20

// open registers a stream. The first one starts the looks, and close of the last one ends them. ok is false for one too many of a
// credential.
func (c *Changes) open(credential string) (close func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[credential] >= MostStreams {
		return nil, false
	}
	if len(c.streams) == 0 {
		var ctx context.Context
		ctx, c.stop = context.WithCancel(context.Background())
		go c.run(ctx)
	}
	c.streams[credential]++
	return sync.OnceFunc(func() { c.close(credential) }), true
}

func (c *Changes) close(credential string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[credential]--; c.streams[credential] == 0 {
		delete(c.streams, credential)
	}
	if len(c.streams) == 0 {
		c.stop()
	}
}

// Wake lets each stream look up its person again, after a token has ended.
func (c *Changes) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeAll()
}

// wakeAll wakes the streams. The caller holds mu.
func (c *Changes) wakeAll() {
	close(c.wake)
	c.wake = make(chan struct{})
}

// since returns the topics that changed after a revision, the revision of now, and a channel that is closed at the next change.
func (c *Changes) since(revision int64, topics []Topic) (changed map[Topic][]byte, now int64, wake <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed = map[Topic][]byte{}
	for _, topic := range topics {
		if v, known := c.values[topic]; topic == Account || known && v.revision > revision {
			changed[topic] = v.json
		}
	}
	return changed, c.revision, c.wake
}

// staleOf returns those of the topics that cannot be read now.
func (c *Changes) staleOf(topics []Topic) map[Topic]Stale {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[Topic]Stale{}
	for _, topic := range topics {
		if s, is := c.stale[topic]; is {
			found[topic] = s
		}
	}
	return found
}

// mark notes whether a topic could be read, and reports whether its mark has changed. The caller holds mu.
func (c *Changes) mark(topic Topic, err error) (changed bool) {
	was, isStale := c.stale[topic]
	switch {
	case err == nil:
		delete(c.stale, topic)
		return isStale
	case isStale:
		was.Error, changed = err.Error(), was.Error != err.Error()
		c.stale[topic] = was
		return changed
	}
	c.stale[topic] = Stale{time.Now().UTC().Truncate(time.Second), err.Error()}
	return true
}

// run looks at the sources until ctx ends.
func (c *Changes) run(ctx context.Context) {
	leases := c.sources.Leases(ctx)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	if c.sources.Idle != nil {
		defer c.sources.Idle()
	}
	version, sawGPUs, dirty := int64(-1), time.Time{}, true
	for {
		if now, err := c.sources.Version(ctx); err == nil && now != version {
			version, dirty = now, true
		}
		topics := []Topic{Spaces}
		if dirty {
			topics = append(topics, Leases, People, Audit)
		}
		if dirty || time.Since(sawGPUs) >= gpusEvery {
			sawGPUs = time.Now()
			topics = append(topics, GPUs)
		}
		c.look(ctx, topics, dirty)
		dirty = false
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select { // several changes within one interval are one look
		case _, more := <-leases:
			if dirty = true; !more {
				leases = nil
			}
		default:
		}
	}
}

// look reads the topics, each in a goroutine of its own. A topic that is being read is read again by a later look. always wakes the
// streams without a change: their accounts may have changed.
func (c *Changes) look(ctx context.Context, topics []Topic, always bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, topic := range topics {
		if c.views[topic] == nil {
			c.views[topic] = &view{}
		}
		c.views[topic].again = true
	}
	for topic, v := range c.views {
		switch {
		case v.reading && time.Since(v.began) >= hangsAfter:
			always = c.note(topic, errHangs) || always
		case v.again && !v.reading:
			v.again, v.reading, v.began = false, true, time.Now()
			go c.read(ctx, topic, v)
		}
	}
	if always {
		c.wakeAll()
	}
}

// read stores a topic, and wakes the streams if its JSON has changed.
func (c *Changes) read(ctx context.Context, topic Topic, v *view) {
	var text []byte
	shown, err := c.sources.Views[topic](ctx)
	if err == nil {
		text, err = json.Marshal(shown)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v.reading = false
	if err != nil && ctx.Err() != nil { // it was cut short; the next stream needs it
		v.again = true
		return
	}
	changed := c.note(topic, err)
	if err == nil && !bytes.Equal(c.values[topic].json, text) {
		c.revision++
		c.values[topic] = value{text, c.revision}
		changed = true
	}
	if changed {
		c.wakeAll()
	}
}

// note marks a topic and logs a new error. The caller holds mu.
func (c *Changes) note(topic Topic, err error) (changed bool) {
	changed = c.mark(topic, err)
	if changed && err != nil {
		c.sources.Logger.Warn("a view of the console cannot be read", zap.String("topic", string(topic)), zap.Error(err))
	}
	return changed
}
