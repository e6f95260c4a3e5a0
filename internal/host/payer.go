package host

import (
	"fmt"
	"net/http"

	"go.uber.org/zap"

	"spacehost/gradioapi"
	"spacehost/internal/identity"
	"spacehost/internal/payer"
	"spacehost/internal/people"
	"spacehost/internal/token"
	"spacehost/internal/web"
	"spacehost/queue"
)

// Find implements payer.Spaces.
func (h *Host) Find(name string) (payer.Space, bool) {
	s := h.find(name)
	return s, s != nil
}

// Alive implements payer.Spaces.
func (h *Host) Alive(space, event string) bool {
	s := h.find(space)
	return s != nil && s.queue.Alive(queue.EventID(event))
}

// IsOpen implements payer.Spaces.
func (h *Host) IsOpen(c token.Claims) bool {
	s := h.find(c.Aud)
	switch {
	case s == nil: // signed by an earlier start that ran other Spaces
		return false
	case c.Session != "":
		return s.queue.IsOpen(c.Session)
	}
	return s.queue.IsRecent(queue.EventID(c.ID), c.IssuedAt)
}

// AccountReader implements console.Host.
func (h *Host) AccountReader(r *http.Request) (identity.Identity, people.SpaceLimit, error) {
	return h.payer.AccountReader(r)
}

// Authenticate implements console.SignInHost.
func (h *Host) Authenticate(r *http.Request) (people.Proof, error) { return h.payer.Authenticate(r) }

// RedeemLink implements console.SignInHost.
func (h *Host) RedeemLink(code string) (bearer string, ok bool) { return h.payer.RedeemLink(code) }

// Name implements payer.Space.
func (s *spaceRun) Name() string { return s.space().Name }

// ManifestAt implements payer.Space.
func (s *spaceRun) ManifestAt(path string) (queue.Manifest, bool) { return s.queue.ManifestAt(path) }

// SignInLost implements payer.Space: each cause is shown once on the screen, each call is logged.
func (s *spaceRun) SignInLost(user identity.Identity, cause string) {
	s.host.log.Info("sign-in lost", zap.String("space", s.space().Name), zap.String("identity", user.Key()), zap.String("reason", cause))
	if s.reportedCauses.isFirst(cause) {
		s.note(fmt.Sprintf("%s is signed in, but the call is charged by address, as on the Hub: %s. See %s/__spacehost/.", user, cause, s.url()))
	}
}

// caller returns the account that pays for a request to this Space.
func (s *spaceRun) caller(r *http.Request) (identity.Identity, error) {
	return s.host.payer.Caller(r, s)
}

// sessionOwner returns the user and the browser to which a Session of this request belongs.
func (s *spaceRun) sessionOwner(r *http.Request) gradioapi.SessionOwner {
	user, err := s.host.payer.SignedInUser(r, s.space().Name)
	if err != nil { // caller has refused the request already
		user = identity.Identity{}
	}
	return gradioapi.SessionOwner{Person: user.Key(), Visitor: s.cookies().Visitor(r)}
}

// issueVisitorCookie adds the visitor cookie to the answer to a first call of a browser that has opened no page here.
func (s *spaceRun) issueVisitorCookie(answer http.Header, r *http.Request) string {
	return s.cookies().SetVisitor(answer, r)
}

// cookies returns the host's cookies in the browsers of this Space's visitors.
func (s *spaceRun) cookies() web.Cookies { return web.Cookies{Space: s.space().Name} }
