package gradioapi

import (
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/queue"
)

// SessionOwner identifies the user or the browser behind a request, for the ownership of Sessions. It never contains an
// address: an address may change while a page is open.
type SessionOwner struct {
	Person  string // key of the signed-in user; "": not signed in
	Visitor string // digest of the browser's cookie; "": no cookie
}

// owners maps each Session to its owner. A hash appears in URLs and logs, so it must not open another user's stream.
//
//  1. A Session belongs to the signed-in user of the first request with its hash.
//  2. If that request was not signed in, the Session belongs to its browser. A browser without a cookie receives one
//     with the response, and proves its identity by sending it later.
//  3. Otherwise the hash alone grants access: a program has no other proof.
type owners struct {
	isPresent func(digest string) bool // whether the Session has an open stream, heartbeat or Event

	mu    sync.Mutex
	known map[string]*owner // by the Session's Digest: a hash may be as long as a body
	swept time.Time
}

type owner struct {
	SessionOwner
	issuedVisitor string // visitor of the cookie that was set with the response to the first request
	used          time.Time
}

// ownerLife is the time that the owner of a closed Session is kept; ownerSweep is the interval of the check. With
// maxOwners or more entries, which only made-up hashes reach, an entry is kept for ownerSweep and checked each second.
const (
	ownerLife  = time.Hour
	ownerSweep = time.Minute
	maxOwners  = 100_000
)

// claim reports whether a Session may be used. issue sets a cookie on the response to a browser without one, on the
// first request of a Session. proven reports that the Session certainly belongs to this caller.
func (o *owners) claim(hash queue.SessionHash, by SessionOwner, issue func() string) (ok, proven bool) {
	now, digest := time.Now(), hash.Digest()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sweep(now)
	entry := o.known[digest]
	if entry == nil {
		entry = &owner{SessionOwner: by}
		if by.Person == "" && by.Visitor == "" { // 2
			entry.issuedVisitor = issue()
		}
		o.known[digest] = entry
	}
	entry.used = now
	if entry.Person == "" && entry.Visitor == "" && entry.issuedVisitor != "" && by.Visitor == entry.issuedVisitor { // 2
		entry.Visitor = by.Visitor
	}
	switch {
	case entry.Person != "": // 1
		proven = by.Person == entry.Person
	case entry.Visitor != "":
		proven = by.Visitor == entry.Visitor
	default: // 3
		return true, false
	}
	return proven, proven
}

func (o *owners) sweep(now time.Time) {
	if o.known == nil {
		o.known = map[string]*owner{}
	}
	life, pause := ownerLife, ownerSweep
	if len(o.known) >= maxOwners {
		life, pause = ownerSweep, time.Second
	}
	if now.Sub(o.swept) < pause {
		return
	}
	o.swept = now
	for digest, entry := range o.known {
		if now.Sub(entry.used) > life && !o.isPresent(digest) {
			delete(o.known, digest)
		}
	}
}

// Limits of session guesses: maxWrongHashes requests per address within wrongHashWindow for Sessions that are unknown
// or belong to another owner.
const (
	maxWrongHashes  = 100
	wrongHashWindow = time.Minute
)

// requireOwner refuses a Session of another owner with the response for an unknown one.
func (h *Handler) requireOwner(c call, hash queue.SessionHash) error {
	if h.config.SessionOwner == nil || hash == "" {
		return nil
	}
	r := c.Request()
	ok, proven := h.owners.claim(hash, h.config.SessionOwner(r), func() string {
		if r.Header.Get("Sec-Fetch-Site") != "same-origin" || h.config.IssueVisitorCookie == nil {
			return ""
		}
		return h.config.IssueVisitorCookie(c.Response().Header(), r)
	})
	switch {
	case proven:
		return nil
	case !h.sessionGuesses.Allow(r.RemoteAddr):
		allowOrigin(c)
		return echo.NewHTTPError(http.StatusTooManyRequests, "Your address has requested too many sessions that belong to others. Try again in a minute.")
	case ok:
		return nil
	}
	h.sessionGuesses.Wrong(r.RemoteAddr)
	allowOrigin(c)
	return echo.ErrNotFound
}

// requireEventOwner is requireOwner for the Session of an Event. An Event that is its own Session has a random name,
// which cannot be guessed, and is not checked.
func (h *Handler) requireEventOwner(c call, event queue.EventID) error {
	session := h.config.Queue.SessionOf(event)
	if session == nil || session.Hash == queue.SessionHash(event) {
		return nil
	}
	return h.requireOwner(c, session.Hash)
}

// requireBodyOwner is requireOwner for the session_hash in a body.
func (h *Handler) requireBodyOwner(c call, raw []byte) error {
	var hash *string
	if h.config.SessionOwner == nil || !parseFields(raw, map[string]any{"session_hash": &hash}) || hash == nil {
		return nil
	}
	return h.requireOwner(c, queue.SessionHash(*hash))
}
