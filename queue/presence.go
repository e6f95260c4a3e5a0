package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"
)

// tokenGrace is the time for which a token stays valid at other Spaces after its Session has closed or its direct call
// has ended. It covers a reloaded page and a last running call.
const tokenGrace = 10 * time.Minute

// Digest identifies a Session in a token. The token must not contain the hash itself, because a client that knows the
// hash can read the Session's stream.
func (h SessionHash) Digest() string {
	sum := sha256.Sum256([]byte(h))
	return hex.EncodeToString(sum[:])
}

// presence tracks which Sessions are open, that is, have a heartbeat, a stream of Messages or an unfinished Event. It
// remembers closed Sessions for tokenGrace if a token names them. Heartbeats of made-up hashes therefore use no memory
// after their connections have closed.
type presence struct {
	now    func() time.Time
	mu     sync.Mutex
	visits map[string]*visit // by Digest
}

type visit struct {
	open   int
	named  bool // a token names the Session
	closed time.Time
}

func (p *presence) enter(session SessionHash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.visits == nil {
		p.visits = map[string]*visit{}
	}
	digest := session.Digest()
	if p.visits[digest] == nil {
		p.visits[digest] = &visit{}
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

// name records that a token is about to name an open Session.
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

func (p *presence) visitors() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.visits {
		if v.open > 0 {
			n++
		}
	}
	return n
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

func (v *visit) isOver(now time.Time) bool { return v.open == 0 && now.Sub(v.closed) >= tokenGrace }

// Visit registers an open heartbeat of the Session. leave unregisters it and may be called twice. The Session may be
// unknown: a page opens its heartbeat before its first call.
func (q *Queue) Visit(session SessionHash) (leave func()) {
	q.present.enter(session)
	return sync.OnceFunc(func() { q.present.leave(session) })
}

// Visitors returns how many Sessions have an open heartbeat, stream or Event.
func (q *Queue) Visitors() int { return q.present.visitors() }

// IsPresent reports whether the Session with that Digest has an open heartbeat, stream or Event.
func (q *Queue) IsPresent(digest string) bool { return q.present.isPresent(digest) }

// IsOpen reports whether the Session that a token names by its Digest is open, or was open in the last ten minutes.
func (q *Queue) IsOpen(digest string) bool { return q.present.isOpen(digest) }

// IsRecent reports the same for a direct call, whose token was issued at its start. The end of a call of less than a
// minute is not remembered, since every picture of a page is such a call. Its ten minutes count from its start.
func (q *Queue) IsRecent(event EventID, issued time.Time) bool {
	return q.direct.now().Sub(issued) < tokenGrace || q.direct.isRecent(event)
}
