package web

import (
	"cmp"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"spacehost/internal/identity"
)

// visitorRows are the cases of TestVisitor. The trusted proxies are 10.0.0.0/8, 2001:db8::1 and 127.0.0.1.
var visitorRows = []struct {
	name, peer           string
	headers              []string // "Name: value"
	who, scheme, host    string
	refused, refusedWith string // header and value in the error
}{
	{name: "untrusted peer", peer: "203.0.113.5:1", headers: []string{"X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: x"}, who: "ip:203.0.113.5"},
	{name: "untrusted peer, invalid header", peer: "203.0.113.5:1", headers: []string{"X-Forwarded-For: !"}, who: "ip:203.0.113.5"},
	{name: "one proxy", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: HTTPS", "X-Forwarded-Host: demo.lab.example"},
		who: "ip:198.51.100.1", scheme: "https", host: "demo.lab.example"},
	{name: "forged by the visitor", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-For: 192.0.2.66, !, 198.51.100.1"}, who: "ip:198.51.100.1"},
	{name: "a chain of trusted proxies in several lines", peer: "[::ffff:10.1.2.3]:1", headers: []string{"X-Forwarded-For: 192.0.2.66", "X-Forwarded-For: 198.51.100.1, 10.9.9.9", "X-Forwarded-For: 2001:db8::1"},
		who: "ip:198.51.100.1"},
	{name: "with ports", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-For: 198.51.100.1:4711"}, who: "ip:198.51.100.1"},
	{name: "IPv6", peer: "[2001:db8::1]:1", headers: []string{"X-Forwarded-For: [2001:db8:7::9]:80"}, who: "ip:2001:db8:7::/64"},
	{name: "proxies only", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-For: 10.0.0.7, 10.0.0.8"}, who: "ip:10.0.0.7"},
	{name: "no header", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-Proto: https"}, who: "ip:10.1.2.3", scheme: "https"},
	{name: "another machine's loopback", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-For: 127.0.0.1"}, who: "ip:10.1.2.3"},
	{name: "our own", peer: "127.0.0.1:1", headers: []string{"X-Forwarded-For: 127.0.0.1"}, who: "local"},
	{name: "several schemes", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https, http", "X-Forwarded-Host: evil.test, demo"}, who: "ip:198.51.100.1", scheme: "http", host: "demo"},
	{name: "no address", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-For: unknown"}, refused: "X-Forwarded-For", refusedWith: "unknown"},
	{name: "nothing", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-For: "}, refused: "X-Forwarded-For"},
	{name: "unspecified address", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-For: 0.0.0.0"}, refused: "X-Forwarded-For", refusedWith: "0.0.0.0"},
	{name: "a WebSocket behind Traefik", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: wss"}, who: "ip:198.51.100.1", scheme: "https"},
	{name: "a WebSocket without TLS", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: ws"}, who: "ip:198.51.100.1", scheme: "http"},
	{name: "no scheme", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-Proto: ftp"}, refused: "X-Forwarded-Proto", refusedWith: "ftp"},
	{name: "no host", peer: "10.1.2.3:1", headers: []string{"X-Forwarded-Host: a/b"}, refused: "X-Forwarded-Host", refusedWith: "a/b"},
}

func TestVisitor(t *testing.T) {
	var ours Proxies
	for _, text := range []string{"10.0.0.0/8", "2001:db8::1", "127.0.0.1"} {
		network, err := ParseProxy(text)
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, network)
	}
	for _, row := range visitorRows {
		t.Run(row.name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: row.peer, Host: "here:7860", Header: http.Header{}}
			for _, header := range row.headers {
				name, value, _ := strings.Cut(header, ": ")
				r.Header.Add(name, value)
			}
			got, err := ours.Visitor(r)
			if row.refused != "" {
				if no, ok := errors.AsType[*ForwardedError](err); !ok || no.Header != row.refused || no.Value != row.refusedWith {
					t.Errorf("got %v, want %s refused", err, row.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			who, err := identity.FromAddr(got.RemoteAddr, identity.AddrTiers{})
			if err != nil || who.Key() != row.who {
				t.Errorf("who: got %s (%v), want %s", who, err, row.who)
			}
			if want := cmp.Or(row.scheme, "http"); Scheme(got) != want {
				t.Errorf("scheme: got %s, want %s", Scheme(got), want)
			}
			if want := cmp.Or(row.host, "here:7860"); got.Host != want {
				t.Errorf("host: got %s, want %s", got.Host, want)
			}
		})
	}
}

func TestParseProxy(t *testing.T) {
	for text, want := range map[string]string{"10.1.2.3/8": "10.0.0.0/8", "192.0.2.1": "192.0.2.1/32", "2001:db8::/32": "2001:db8::/32", "::1": "::1/128"} {
		if got, err := ParseProxy(text); err != nil || got != netip.MustParsePrefix(want) {
			t.Errorf("%s: got %s (%v), want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"proxy.lab": "neither an address nor a network", "10.0.0.0/33": "neither", "fe80::1%eth0": "neither",
		"0.0.0.0/0": "trusts all addresses", "::/0": "trusts all addresses", "::ffff:10.0.0.0/104": "IPv4 network",
	} {
		if _, err := ParseProxy(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
