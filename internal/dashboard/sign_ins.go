package dashboard

import (
	"net"
	"net/http"
	"sync"
	"time"

	"spacehost/internal/control"
)

// signInPause is the time within which another page of the same admin is no new sign-in.
const signInPause = 12 * time.Hour

// maxSignIns bounds the remembered sign-ins.
const maxSignIns = 1000

// signIns remembers which admins have opened the console, by token and address. It may be used concurrently.
type signIns struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

// isNew reports whether a credential from an address opens the console for the first time in signInPause.
func (s *signIns) isNew(credential, address string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[string]time.Time{}
	}
	for key, at := range s.seen {
		if now.Sub(at) >= signInPause || len(s.seen) >= maxSignIns {
			delete(s.seen, key)
		}
	}
	key := credential + " " + address
	if _, known := s.seen[key]; known {
		return false
	}
	s.seen[key] = now
	return true
}

// noteSignIn records that an admin has opened the console.
func (a *API) noteSignIn(r *http.Request, person caller) {
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	if person.role == Admin && a.signIns.isNew(person.proof.Credential(), address, a.config.Now()) {
		a.config.Record(control.SignInAction(person.who.Key(), person.proof.Credential(), address))
	}
}
