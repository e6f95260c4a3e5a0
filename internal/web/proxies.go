package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strings"

	"spacehost/internal/identity"
)

// Proxies are the networks of reverse proxies whose word counts: who asks, by which scheme and name.
type Proxies []netip.Prefix

// ParseNetwork reads a network, as 10.0.0.0/8, or one address.
func ParseNetwork(text string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(text)
	if err != nil {
		addr, bad := netip.ParseAddr(text)
		if bad != nil || addr.Zone() != "" {
			return netip.Prefix{}, errors.New("this is neither an address nor a network such as 10.0.0.0/8")
		}
		network = netip.PrefixFrom(addr, addr.BitLen())
	}
	if network.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("write an IPv4 network as 10.0.0.0/8")
	}
	return network.Masked(), nil
}

// ParseProxy is ParseNetwork for those whose word counts: never everybody.
func ParseProxy(text string) (netip.Prefix, error) {
	network, err := ParseNetwork(text)
	if err == nil && network.Bits() == 0 {
		return netip.Prefix{}, errors.New("this trusts everybody, and then anybody could choose who pays: name the proxy's own address")
	}
	return network, err
}

func (p Proxies) trust(addr netip.Addr) bool {
	for _, network := range p {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// ForwardedError refuses a request whose trusted proxy says what cannot be read: to let the proxy's own address pay
// instead would let all its visitors pay for each other, and nobody would know.
type ForwardedError struct{ Header, Value, Peer string }

func (e *ForwardedError) Error() string {
	return fmt.Sprintf("the proxy at %s sent an %s that cannot be read (%.60q): correct the proxy's configuration", e.Peer, e.Header, e.Value)
}

type schemeKey struct{}

// Scheme is by which the visitor asks: what Visitor learnt from a proxy, else what the connection is.
func Scheme(r *http.Request) string {
	if scheme, ok := r.Context().Value(schemeKey{}).(string); ok {
		return scheme
	}
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// Visitor returns r as the visitor sent it to the first trusted proxy: RemoteAddr, Host and Scheme are theirs. Errors:
// *ForwardedError.
//
//  1. Headers count only from a peer in p. Everybody else's are nobody's word.
//  2. X-Forwarded-For is read from its right end, where each proxy adds whom it has heard: the first address that is
//     no proxy of ours is the visitor. What stands left of it the visitor wrote.
//  3. If all of them are proxies, the leftmost asks for itself; without the header the peer does.
//  4. A loopback address that another machine names is that machine's, and not ours: so it is that machine who asks.
//  5. Of several schemes and hosts, the last is the word of the proxy that we have heard. RFC 7239's Forwarded is not read.
func (p Proxies) Visitor(r *http.Request) (*http.Request, error) {
	peer, err := identity.ParseAddr(r.RemoteAddr)
	if err != nil || !p.trust(peer) { // 1; a unix socket has no address
		return r, nil
	}
	visitor, err := p.visitor(r.Header.Values("X-Forwarded-For"), peer)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	if scheme, said := last(r.Header.Values("X-Forwarded-Proto")); said { // 5
		if scheme = strings.ToLower(scheme); scheme != "http" && scheme != "https" {
			return nil, &ForwardedError{"X-Forwarded-Proto", scheme, peer.String()}
		}
		ctx = context.WithValue(ctx, schemeKey{}, scheme)
	}
	r = r.WithContext(ctx)
	if host, said := last(r.Header.Values("X-Forwarded-Host")); said { // 5
		if !hostRule.MatchString(host) {
			return nil, &ForwardedError{"X-Forwarded-Host", host, peer.String()}
		}
		r.Host = host
	}
	if visitor != peer {
		r.RemoteAddr = netip.AddrPortFrom(visitor, 0).String()
	}
	return r, nil
}

// hostRule is what a Host may be made of: name, IPv4, IPv6 in brackets, a port.
var hostRule = regexp.MustCompile(`^[A-Za-z0-9._:\[\]-]{1,255}$`)

func (p Proxies) visitor(lines []string, peer netip.Addr) (netip.Addr, error) {
	if len(lines) == 0 {
		return peer, nil
	}
	hops := strings.Split(strings.Join(lines, ","), ",")
	visitor := peer
	for i := len(hops) - 1; i >= 0; i-- { // 2
		hop, err := parseHop(hops[i])
		if err != nil {
			return netip.Addr{}, &ForwardedError{"X-Forwarded-For", strings.TrimSpace(hops[i]), peer.String()}
		}
		if hop.IsLoopback() && !visitor.IsLoopback() { // 4
			break
		}
		if visitor = hop; !p.trust(hop) {
			break
		}
	}
	return visitor, nil // 3
}

// parseHop also takes a port beside the address, which some proxies write.
func parseHop(text string) (netip.Addr, error) {
	text = strings.TrimSpace(text)
	if inside, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(inside, "]") {
		text = strings.TrimSuffix(inside, "]")
	}
	addr, err := identity.ParseAddr(text)
	if err == nil && (addr.IsUnspecified() || addr.IsMulticast()) {
		err = identity.ErrNoAddress
	}
	return addr, err
}

// last is the last word of a list that may stand in several lines.
func last(lines []string) (word string, said bool) {
	if len(lines) == 0 {
		return "", false
	}
	words := strings.Split(lines[len(lines)-1], ",")
	return strings.TrimSpace(words[len(words)-1]), true
}
