package payer

import (
	"net/netip"
	"sync/atomic"

	"go.uber.org/zap"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/token"
	"spacehost/queue"
	"spacehost/quota"
)

// Spaces is the state of the running Spaces that the rule reads. Its methods do not block and may be called
// concurrently.
type Spaces interface {
	// Find returns the Space of that name; false if this host does not run it.
	Find(name string) (Space, bool)
	// IsOpen reports whether the visit that a token was signed for is still open at the token's Space, or ended less
	// than ten minutes ago.
	IsOpen(c token.Claims) bool
	// Alive reports whether an Event runs at a Space.
	Alive(space, event string) bool
}

// Space is one running Space. Its methods do not block and may be called concurrently.
type Space interface {
	Name() string
	// Account is the Space's own account, charged for calls that the Space makes on its own behalf.
	Account() identity.Identity
	// ManifestAt returns the manifest of the app mounted at path; false before the app has launched.
	ManifestAt(path string) (queue.Manifest, bool)
	// SignInLost reports to the operator that a signed-in user pays by address, as on the Hub.
	SignInLost(user identity.Identity, cause string)
}

// Processes finds the Space behind a local connection. *proctree.Processes implements it.
type Processes interface {
	// SpaceAt returns the name of the Space that owns the client's end of a local TCP connection, "" if none does. It
	// may take milliseconds.
	SpaceAt(client, server netip.AddrPort) string
}

// Config holds the dependencies and settings of a Rule. Logger may be nil.
type Config struct {
	Spaces    Spaces
	People    *people.Store
	Signer    *token.Signer
	Denied    *people.DelegationDenyList
	Tiers     quota.Tiers // until SetTiers
	Processes Processes
	LocalTier string // tier of a caller on this machine
	// AdvisoryRuns lets no caller on this machine be refused by the number of runs.
	AdvisoryRuns bool
	// Shared is true with `spacehost serve`: several people use this host, and a caller on this machine is not
	// necessarily its operator.
	Shared bool
	Hub    bool // identity mode `hub`: a browser's sign-in counts only where it would reach the Space on the Hub
	Logger *zap.Logger
}

// Rule decides which account pays. Create it with New.
type Rule struct {
	config  Config
	tiers   atomic.Pointer[quota.Tiers]
	links   *people.Codes // one-time links to the console that the host has printed
	bearers *people.Codes // bearer tokens of console pages that were opened by such a link
}

// New returns the rule of a host.
func New(c Config) *Rule {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	r := &Rule{config: c, links: people.NewCodes(people.LocalLife, nil), bearers: people.NewCodes(people.LocalLife, nil)}
	r.SetTiers(c.Tiers)
	return r
}

// SetTiers replaces the tiers, from the next request on.
func (r *Rule) SetTiers(t quota.Tiers) { r.tiers.Store(&t) }

// Alive reports whether an Event at a Space runs. Its token is valid only while it does.
func (r *Rule) Alive(space, event string) bool { return r.config.Spaces.Alive(space, event) }

// CheckDelegation returns a *people.DelegationDeniedError if the payer's Via may not spend that payer's seconds.
func (r *Rule) CheckDelegation(payer identity.Identity) error { return r.config.Denied.Check(payer) }

// Sign returns the X-IP-Token of an Event at a Space, or of a direct call, which has no Session. It returns "" if
// signing fails; the Space's own account pays then.
func (r *Rule) Sign(space string, event queue.Event) string {
	claims := token.Claims{
		Aud: space, Sub: event.Payer.Key(), Tier: event.Payer.Tier, Act: event.Payer.Via, ID: string(event.ID),
		Error: event.Payer.Fallback,
	}
	if event.Session != "" {
		claims.Session = event.Session.Digest()
	}
	signed, err := r.config.Signer.Sign(claims)
	if err != nil {
		r.config.Logger.Error("sign token", zap.String("identity", claims.Sub), zap.Error(err))
		return ""
	}
	return signed
}
