package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
)

// Kind is the kind of payer of an Identity. The Key begins with it.
type Kind string

// The kinds of Identity.
const (
	Local   Kind = "local" // all users of this machine: one payer without a name
	Address Kind = "ip"    // a visitor known only by address
	User    Kind = "user"  // a signed-in user
	Space   Kind = "space" // a Space's own allowance
)

// Identity is a payer. Tier, Via and Fallback are not part of its Key: a user that changes tier keeps the account.
type Identity struct {
	Kind Kind
	Name string
	Tier string
	Via  string // the Space that calls on the payer's behalf, with a token from an earlier call; "": the payer itself
	// Fallback is the reason why a signed-in user pays by address; "": no fallback. The spaces package shows it.
	Fallback string
}

// Key returns the name of the account in logs, ledger and tokens: "local", "ip:203.0.113.7", "ip:2001:db8:1:2::/64",
// "user:ada", "space:demo". The Key of the zero Identity is empty.
func (id Identity) Key() string {
	if id.Kind == Local || id.Kind == "" {
		return string(id.Kind)
	}
	return string(id.Kind) + ":" + id.Name
}

// String returns the Key, so that logs contain nothing else.
func (id Identity) String() string { return id.Key() }

// maxName bounds a Key, which is part of every ledger entry.
const maxName = 200

// ParseKey returns the Identity of a Key, without the tier. It accepts only text that Key can return.
func ParseKey(key string) (Identity, error) {
	kind, name, named := strings.Cut(key, ":")
	id := Identity{Kind: Kind(kind), Name: name}
	if !id.valid() || named != (id.Kind != Local) {
		return Identity{}, fmt.Errorf("%.40q is not the key of an identity", key)
	}
	return id, nil
}

func (id Identity) valid() bool {
	switch id.Kind {
	case Local:
		return id.Name == ""
	case Address:
		return isNetwork(id.Name)
	case User, Space:
		return id.Name != "" && len(id.Name) <= maxName && strings.IndexFunc(id.Name, IsUnprintable) < 0
	}
	return false
}

// IsUnprintable reports whether a name that contains r could forge a log line. An invalid byte decodes as U+FFFD.
func IsUnprintable(r rune) bool {
	return !unicode.IsPrint(r) || r == unicode.ReplacementChar
}

// IsInvisible reports whether r is outside printable ASCII.
func IsInvisible(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) }

// isNetwork reports whether name is a result of Network.
func isNetwork(name string) bool {
	text, is64 := strings.CutSuffix(name, "/64")
	addr, err := netip.ParseAddr(text)
	return err == nil && is64 == addr.Is6() && (!addr.IsLoopback() || name == loopback) && Network(addr) == name
}

// ErrNoAddress refuses text that is not an IP address.
var ErrNoAddress = errors.New("not an IP address")

// loopback stands for all loopback addresses, of either family.
const loopback = "127.0.0.1"

// Anonymous returns the Identity of remoteAddr by address only. A loopback address is then another payer than the local
// visitor.
func Anonymous(remoteAddr string) (Identity, error) {
	who, err := FromAddr(remoteAddr, AddrTiers{})
	if who.Kind == Local {
		who = Identity{Kind: Address, Name: loopback, Tier: "unauthenticated"}
	}
	return who, err
}
