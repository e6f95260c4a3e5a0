// Package identity defines Identity, the account that pays for a call, and the Key under which the ledger knows it.
package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
)

// Kind is what sort of payer an Identity is. Its word begins the Key.
type Kind string

// The kinds of Identity.
const (
	Local   Kind = "local" // whoever sits at this machine: one payer, without a name
	Address Kind = "ip"    // a visitor known by the address alone
	User    Kind = "user"  // a person who signed in
	Space   Kind = "space" // a Space's own allowance
)

// Identity is who pays. The Tier does not belong to its Key: who changes tier keeps the account; nor do Via and
// Fallback.
type Identity struct {
	Kind Kind
	Name string
	Tier string
	Via  string // the Space that calls on their behalf, with the token that it got as their host; "": they themselves
	// Fallback is why whoever signed in pays by their address all the same; "": they do not. The spaces package shows it.
	Fallback string
}

// Key names the account: "local", "ip:203.0.113.7", "ip:2001:db8:1:2::/64", "user:ada", "space:demo". It is what logs,
// ledger and tokens carry. The zero Identity has none.
func (id Identity) Key() string {
	if id.Kind == Local || id.Kind == "" {
		return string(id.Kind)
	}
	return string(id.Kind) + ":" + id.Name
}

// String is the Key, so that logs show nothing else.
func (id Identity) String() string { return id.Key() }

// maxName bounds a Key, which goes into every line of the ledger.
const maxName = 200

// ParseKey is the way back from a Key, without the tier. It takes only what Key writes.
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

// IsUnprintable says whether a name with r in it could forge a line of a log; a broken byte reads as U+FFFD.
func IsUnprintable(r rune) bool {
	return !unicode.IsPrint(r) || r == unicode.ReplacementChar
}

// IsInvisible reports whether r is outside printable ASCII.
func IsInvisible(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) }

// isNetwork says whether name is what network writes.
func isNetwork(name string) bool {
	text, is64 := strings.CutSuffix(name, "/64")
	addr, err := netip.ParseAddr(text)
	return err == nil && is64 == addr.Is6() && (!addr.IsLoopback() || name == loopback) && Network(addr) == name
}

// ErrNoAddress refuses text that is not an IP address.
var ErrNoAddress = errors.New("not an IP address")

// loopback is this machine as an address among others, of either family.
const loopback = "127.0.0.1"

// Anonymous is whoever calls from remoteAddr, by nothing but the address: also somebody at this machine, who is another
// payer then than the local visitor.
func Anonymous(remoteAddr string) (Identity, error) {
	who, err := FromAddr(remoteAddr, AddrTiers{})
	if who.Kind == Local {
		who = Identity{Kind: Address, Name: loopback, Tier: "unauthenticated"}
	}
	return who, err
}
