package identity

import (
	"cmp"
	"fmt"
	"net/netip"
)

// AddrTiers are the tiers of visitors known only by address.
type AddrTiers struct {
	Local   string // of loopback addresses; empty: "free"
	Address string // of all other addresses; empty: "unauthenticated"
}

// FromAddr returns the Identity of remoteAddr, which is http.Request.RemoteAddr or a bare address.
//
//  1. All loopback addresses, of either family, are the local visitor.
//  2. An IPv4 address is one visitor. The same address mapped into IPv6 is the same visitor.
//  3. An IPv6 address counts by its /64, because one household or machine can use a whole /64.
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

// ParseAddr parses an address without its port and zone. It replaces netip's errors, which quote the input at any length.
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

// Network returns the name under which an address pays.
func Network(addr netip.Addr) string {
	if addr.Is4() { // 2
		return addr.String()
	}
	return netip.PrefixFrom(addr, 64).Masked().String() // 3
}
