package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"spacehost/internal/identity"
	"spacehost/internal/lazyregexp"
)

// Proxies are the networks of trusted reverse proxies. Their headers determine a request's visitor, scheme and host name.
type Proxies []netip.Prefix

// ParseNetwork parses a network such as 10.0.0.0/8, or a single address.
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

// ParseProxy is ParseNetwork for a trusted proxy. It refuses the network of all addresses.
func ParseProxy(text string) (netip.Prefix, error) {
	network, err := ParseNetwork(text)
	if err == nil && network.Bits() == 0 {
		return netip.Prefix{}, errors.New("this trusts all addresses, so any client could choose the paying account; use the proxy's own address")
	}
	return network, err
}

// Trust reports whether addr is a trusted proxy.
func (p Proxies) Trust(addr netip.Addr) bool {
	for _, network := range p {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// ForwardedError refuses a request whose trusted proxy has sent an unreadable header. If the proxy's own address paid
// instead, all its visitors would silently share one account.
type ForwardedError struct{ Header, Value, Peer string }

func (e *ForwardedError) Error() string {
	return fmt.Sprintf("the proxy at %s sent an invalid %s header (%.60q): correct the proxy's configuration", e.Peer, e.Header, e.Value)
}

type schemeKey struct{}

// schemes are the values of X-Forwarded-Proto that count, with the scheme of the request.
var schemes = map[string]string{"http": "http", "https": "https", "ws": "http", "wss": "https"}

// Scheme returns the scheme of the visitor's request: that of the proxy's header, as found by Visitor, otherwise that of
// the connection.
func Scheme(r *http.Request) string {
	if scheme, ok := r.Context().Value(schemeKey{}).(string); ok {
		return scheme
	}
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// Visitor returns r with the RemoteAddr, Host, Scheme and prefix that the visitor used at the first trusted proxy. Errors:
// *ForwardedError.
//
//  1. Headers count only from a peer in p. Headers of other peers are ignored.
//  2. X-Forwarded-For is read from its right end, where each proxy appends the address of its client. The first address
//     that is not a trusted proxy is the visitor. The addresses to its left may be forged by the visitor.
//  3. If all addresses are trusted proxies, the leftmost is the visitor. Without the header the peer is the visitor.
//  4. A loopback address that was added by another machine belongs to that machine, so that machine is the visitor.
//  5. Of several schemes and hosts, the last one was set by the peer and is used. RFC 7239's Forwarded is not read.
//  6. Where a proxy has removed a path, it names it in X-Forwarded-Prefix, which BelowPrefix applies.
//  7. Traefik names the scheme of a WebSocket, ws or wss (pkg/middlewares/forwardedheaders/forwarded_header.go, v3.7.13).
func (p Proxies) Visitor(r *http.Request) (*http.Request, error) {
	peer, err := identity.ParseAddr(r.RemoteAddr)
	if err != nil || !p.Trust(peer) { // 1; a unix socket has no address
		return r, nil
	}
	visitor, err := p.visitor(r.Header.Values("X-Forwarded-For"), peer)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	if scheme, ok := last(r.Header.Values("X-Forwarded-Proto")); ok { // 5
		known, ok := schemes[strings.ToLower(scheme)] // 7
		if !ok {
			return nil, &ForwardedError{"X-Forwarded-Proto", strings.ToLower(scheme), peer.String()}
		}
		ctx = context.WithValue(ctx, schemeKey{}, known)
	}
	if prefix, ok := last(r.Header.Values("X-Forwarded-Prefix")); ok && strings.Trim(prefix, "/") != "" { // 5, 6
		path := strings.TrimSuffix(prefix, "/")
		if CheckSubPath(path) != nil {
			return nil, &ForwardedError{"X-Forwarded-Prefix", prefix, peer.String()}
		}
		ctx = context.WithValue(ctx, prefixKey{}, path)
	}
	r = r.WithContext(ctx)
	if host, ok := last(r.Header.Values("X-Forwarded-Host")); ok { // 5
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

// hostRule matches a Host: a name, an IPv4 address or an IPv6 address in brackets, with an optional port.
var hostRule = lazyregexp.New(`^[A-Za-z0-9._:\[\]-]{1,255}$`)

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
		if visitor = hop; !p.Trust(hop) {
			break
		}
	}
	return visitor, nil // 3
}

// parseHop also accepts an address with a port, which some proxies write.
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

// last returns the last word of a list that may span several header lines.
func last(lines []string) (word string, ok bool) {
	if len(lines) == 0 {
		return "", false
	}
	words := strings.Split(lines[len(lines)-1], ",")
	return strings.TrimSpace(words[len(words)-1]), true
}
