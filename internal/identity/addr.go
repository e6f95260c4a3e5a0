package identity

import (
	"cmp"
	"fmt"
	"net/netip"
)

// AddrTiers are the tiers of those who are known by their address alone.
type AddrTiers struct {
	Local   string // of a loopback caller; empty is "free"
	Address string // of everybody else; empty is "unauthenticated"
}

// FromAddr is who calls from remoteAddr, which is http.Request.RemoteAddr or a bare address.
//
//  1. Any loopback address, of either family, is the one local visitor.
//  2. An IPv4 address is a visitor; one that is mapped into IPv6 is the same visitor.
//  3. An IPv6 address counts by its /64, since a single household or machine can use all of that.
func FromAddr(remoteAddr string, tiers AddrTiers) (Identity, error) {
	addr, err := ParseAddr(remoteAddr)
	if err != nil {
		return Identity{}, fmt.Errorf("read remote address %.60q: %w", remoteAddr, err)
	}
	if addr.IsLoopback() { // 1
		return Identity{Kind: Local, Tier: cmp.Or(tiers.Local, "free")}, nil
	}
	return Identity{Kind: Address, Name: Network(addr), Tier: cmp.Or(tiers.Address, "unauthenticated")}, nil
}

// ParseAddr drops port and zone. netip's own errors quote their input, however long it is.
func ParseAddr(text string) (netip.Addr, error) {
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr().Unmap().WithZone(""), nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, ErrNoAddress
	}
	return addr.Unmap().WithZone(""), nil
}

// network is the name that an address pays under.
func Network(addr netip.Addr) string {
	if addr.Is4() { // 2
		return addr.String()
	}
	return netip.PrefixFrom(addr, 64).Masked().String() // 3
}
