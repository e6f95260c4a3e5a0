package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"
)

// lingers is how long a token still speaks for its visitor at other Spaces after their Session has closed, or their
// direct call has ended: a page that is opened again, a last call that is under way.
const lingers = 10 * time.Minute

// Digest is how a token names the Session that it was made for: who has the hash itself reads the Session's stream.
func (h SessionHash) Digest() string {
	sum := sha256.Sum256([]byte(h))
	return hex.EncodeToString(sum[:])
}

// presence knows which Sessions are open: a heartbeat, a stream of Messages or an Event is under way. Of those that
// have closed it remembers, for a while, only the ones that a token names: a stranger's heartbeats of made-up hashes
// take no memory beyond their connections.
type presence struct {
	now    func() time.Time
	mu     sync.Mutex
	visits map[string]*stay // by Digest
}

type stay struct {
	open   int
	named  bool // by a token
	closed time.Time
}

func (p *presence) enter(session SessionHash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.visits == nil {
		p.visits = map[string]*stay{}
	}
	digest := session.Digest()
	if p.visits[digest] == nil {
		p.visits[digest] = &stay{}
	}
	p.visits[digest].open++
}

func (p *presence) leave(session SessionHash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	digest := session.Digest()
	v := p.visits[digest]
	if v.open--; v.open > 0 {
		return
	}
	v.closed = p.now()
	if !v.named {
		delete(p.visits, digest)
	}
}

// name says that a token is about to name an open Session.
func (p *presence) name(session SessionHash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.visits[session.Digest()].named = true
}

func (p *presence) isOpen(digest string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.visits[digest]
	return v != nil && v.named && !v.isOver(p.now())
}

func (p *presence) isPresent(digest string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.visits[digest]
	return v != nil && v.open > 0
}

func (p *presence) sweep(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for digest, v := range p.visits {
		if v.isOver(now) {
			delete(p.visits, digest)
		}
	}
}

func (v *stay) isOver(now time.Time) bool { return v.open == 0 && now.Sub(v.closed) >= lingers }

// Visit says that a heartbeat of the Session is open; leave, that it is no longer, and may be called twice. The
// Session need not be known: a page opens its heartbeat before its first call.
func (q *Queue) Visit(session SessionHash) (leave func()) {
	q.present.enter(session)
	return sync.OnceFunc(func() { q.present.leave(session) })
}

// IsPresent reports whether a heartbeat, a stream or an Event of the Session with that Digest is open now.
func (q *Queue) IsPresent(digest string) bool { return q.present.isPresent(digest) }

// IsOpen reports whether the Session that a token names by its Digest is open, or was in the last ten minutes.
func (q *Queue) IsOpen(digest string) bool { return q.present.isOpen(digest) }

// IsRecent reports the same of a direct call, whose token was issued at its start. The end of one that took less than
// a minute is not remembered, since every picture of a page is one; its ten minutes count from its start.
func (q *Queue) IsRecent(event EventID, issued time.Time) bool {
	return q.direct.now().Sub(issued) < lingers || q.direct.isRecent(event)
}
