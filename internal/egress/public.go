package egress

import "net/netip"

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// addressClass is a range of addresses that are not public.
type addressClass struct {
	prefix netip.Prefix
	reason Reason
}

// notPublic lists the ranges that IANA's registries of special-purpose addresses mark as not globally reachable
// (RFC 6890), and the metadata services of clouds. The first match counts. Addresses of IPv6 outside 2000::/3 are not
// public either; the ranges below name the reason.
//
// The documentation networks of RFC 5737 count as public: no machine of a real network has such an address, and test networks
// use them in the place of the internet.
var notPublic = []addressClass{
	class("127.0.0.0/8", ReasonLoopback),
	class("10.0.0.0/8", ReasonPrivate),
	class("172.16.0.0/12", ReasonPrivate),
	class("192.168.0.0/16", ReasonPrivate),
	class("100.64.0.0/10", ReasonPrivate), // carrier-grade NAT; 100.100.100.200 is Alibaba's metadata service
	class("169.254.0.0/16", ReasonLinkLocal),
	class("168.63.129.16/32", ReasonLinkLocal), // Azure's metadata and agent service, although in a public range
	class("0.0.0.0/8", ReasonReserved),
	class("192.0.0.0/24", ReasonReserved),
	class("192.88.99.0/24", ReasonReserved),
	class("198.18.0.0/15", ReasonReserved),
	class("224.0.0.0/4", ReasonReserved),
	class("240.0.0.0/4", ReasonReserved),

	class("::1/128", ReasonLoopback),
	class("fe80::/10", ReasonLinkLocal),
	class("fec0::/10", ReasonPrivate),
	class("fc00::/7", ReasonPrivate),
	class("2001::/23", ReasonReserved), // Teredo and other protocol assignments
	class("2001:db8::/32", ReasonReserved),
	class("3fff::/20", ReasonReserved),
}

func class(prefix string, reason Reason) addressClass {
	return addressClass{netip.MustParsePrefix(prefix), reason}
}

var (
	globalUnicast6 = netip.MustParsePrefix("2000::/3")
	nat64          = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour      = netip.MustParsePrefix("2002::/16")
)

// IsPublic reports whether an address is reachable from everywhere. It does not know the addresses of this machine.
func IsPublic(a netip.Addr) bool { return classify(a) == "" }

// classify returns the reason why an address is not public, or "". An IPv6 address that carries an IPv4 address is
// judged by that address.
func classify(a netip.Addr) Reason {
	if !a.IsValid() || a.Zone() != "" {
		return ReasonReserved
	}
	a = carried(a)
	for _, c := range notPublic {
		if c.prefix.Contains(a) {
			return c.reason
		}
	}
	if a.Is6() && !globalUnicast6.Contains(a) {
		return ReasonReserved
	}
	return ""
}

// carried returns the IPv4 address of an IPv4-mapped, NAT64 or 6to4 address, and other addresses as they are.
func carried(a netip.Addr) netip.Addr {
	a = a.Unmap()
	bytes := a.As16()
	switch {
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(bytes[12:]))
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(bytes[2:]))
	}
	return a
}
