package gradioapi

import (
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/queue"
)

// Holder is whom a request is by, as far as Sessions are concerned: never an address, which changes while a page is open.
type Holder struct {
	Person  string // who signed in, by their key; "": nobody
	Visitor string // the browser, by the digest of its cookie; "": it brings none
}

// owners knows whose a Session is, so that a hash alone, which stands in addresses and logs, opens nobody's stream.
//
//  1. It is the person's whose request came with its hash first.
//  2. Else the browser's that this request was from. One without a cookie gets it with the answer, and shows by
//     bringing it later that it is the same.
//  3. Else whoever's who knows it: a program has nothing more to show.
type owners struct {
	present func(digest string) bool // whether a stream of it, a heartbeat or an Event is open

	mu    sync.Mutex
	known map[string]*owner // by the Session's Digest: a hash may be as long as a body
	swept time.Time
}

type owner struct {
	Holder
	promised string // what the browser was given with the answer to its first request
	used     time.Time
}

// ownerLife is how long it is known whose a Session was that nothing is open of; ownerSweep is how often that is looked at.
// From mostOwners on, which are made up, it is known as briefly as that, and looked at every second.
const (
	ownerLife  = time.Hour
	ownerSweep = time.Minute
	mostOwners = 100_000
)

// claim reports whether a Session may be used. promise is what the answer will give a browser without a cookie, if it is
// the first; proven, that it is certainly this holder's.
func (o *owners) claim(hash queue.SessionHash, by Holder, promise func() string) (ok, proven bool) {
	now, digest := time.Now(), hash.Digest()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sweep(now)
	is := o.known[digest]
	if is == nil {
		is = &owner{Holder: by}
		if by.Person == "" && by.Visitor == "" { // 2
			is.promised = promise()
		}
		o.known[digest] = is
	}
	is.used = now
	if is.Person == "" && is.Visitor == "" && is.promised != "" && by.Visitor == is.promised { // 2
		is.Visitor = by.Visitor
	}
	switch {
	case is.Person != "": // 1
		proven = by.Person == is.Person
	case is.Visitor != "":
		proven = by.Visitor == is.Visitor
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
	if len(o.known) >= mostOwners {
		life, pause = ownerSweep, time.Second
	}
	if now.Sub(o.swept) < pause {
		return
	}
	o.swept = now
	for digest, is := range o.known {
		if now.Sub(is.used) > life && !o.present(digest) {
			delete(o.known, digest)
		}
	}
}

// Whoever has asked for so many Sessions that are not theirs, or are nobody's, is guessing.
const (
	wrongHashes  = 100
	hashesWithin = time.Minute
)

// owns refuses a Session that is somebody else's as if there were none.
func (h *Handler) owns(c call, hash queue.SessionHash) error {
	if h.config.Holder == nil || hash == "" {
		return nil
	}
	r := c.Request()
	ok, proven := h.owners.claim(hash, h.config.Holder(r), func() string {
		if r.Header.Get("Sec-Fetch-Site") != "same-origin" || h.config.Promise == nil {
			return ""
		}
		return h.config.Promise(c.Response().Header(), r)
	})
	switch {
	case proven:
		return nil
	case !h.guesses.Allow(r.RemoteAddr):
		allowOrigin(c)
		return echo.NewHTTPError(http.StatusTooManyRequests, "Too many sessions have been asked for from your address that are not yours. Try again in a minute.")
	case ok:
		return nil
	}
	h.guesses.Wrong(r.RemoteAddr)
	allowOrigin(c)
	return echo.ErrNotFound
}

// ownsEvent is owns, for who names an Event of it. One that is a Session by itself nobody has chosen a name for, and so
// nobody guesses.
func (h *Handler) ownsEvent(c call, event queue.EventID) error {
	session := h.config.Queue.SessionOf(event)
	if session == nil || session.Hash == queue.SessionHash(event) {
		return nil
	}
	return h.owns(c, session.Hash)
}

// ownsNamed is owns, for the session_hash in a body.
func (h *Handler) ownsNamed(c call, raw []byte) error {
	var hash *string
	if h.config.Holder == nil || !parseFields(raw, map[string]any{"session_hash": &hash}) || hash == nil {
		return nil
	}
	return h.owns(c, queue.SessionHash(*hash))
}
