package egress

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func environment(pairs ...string) func(string) string {
	values := map[string]string{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		values[name] = value
	}
	return func(name string) string { return values[name] }
}

func TestProxiesFromTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		env  string
		to   string
		name string
		want string
	}{
		{"HTTPS_PROXY=http://p:3128", publicWeb, "", "p:3128"},
		{"HTTPS_PROXY=p:3128", publicWeb, "", "p:3128"},
		{"HTTPS_PROXY=http://p:3128", "93.184.216.34:80", "", ""},
		{"HTTP_PROXY=http://p:3128", publicWeb, "", ""},
		{"HTTP_PROXY=http://p:3128", "93.184.216.34:80", "", "p:3128"},
		{"HTTP_PROXY=http://p:3128", "93.184.216.34:8080", "", "p:3128"},
		{"HTTPS_PROXY=http://a:1 https_proxy=http://b:2", publicWeb, "", "b:2"},
		{"ALL_PROXY=http://p:3128", publicWeb, "", "p:3128"},
		{"all_proxy=http://p:3128 HTTP_PROXY=http://q:1", "93.184.216.34:80", "", "q:1"},
		{"HTTPS_PROXY=http://p:3128 NO_PROXY=example.com", publicWeb, "web.example.com", ""},
		{"HTTPS_PROXY=http://p:3128 NO_PROXY=example.com", publicWeb, "example.org", "p:3128"},
		{"HTTPS_PROXY=http://p:3128 NO_PROXY=93.184.216.0/24", publicWeb, "web.example.com", ""},
		{"HTTPS_PROXY=http://p:3128 no_proxy=*", publicWeb, "", ""},
		{"HTTPS_PROXY=http://p:3128", "10.0.4.7:443", "", ""}, // in Reach
	} {
		proxy, err := ProxyFromEnvironment(environment(strings.Fields(c.env)...))
		if err != nil {
			t.Fatal(err)
		}
		n := newNetwork(t, Config{Proxy: proxy, Policy: Policy{Reach: []netip.AddrPort{netip.MustParseAddrPort("10.0.4.7:443")}}})
		got := ""
		if chosen := n.proxyFor(Destination{Addr: netip.MustParseAddrPort(c.to), Name: c.name}); chosen != nil {
			got = chosen.Host
		}
		if got != c.want {
			t.Errorf("%s, %s %s: got %q, want %q", c.env, c.to, c.name, got, c.want)
		}
	}
	if proxy, err := ProxyFromEnvironment(environment("NO_PROXY=*")); proxy != nil || err != nil {
		t.Errorf("without a proxy: got %v, %v", proxy, err)
	}
	for env, want := range map[string]string{
		"HTTPS_PROXY=https://user:secret@p:1": `HTTPS_PROXY: proxies with the scheme "https" are not supported; use http://HOST:PORT`,
		"all_proxy=socks5://user:secret@p:1":  `all_proxy: proxies with the scheme "socks5" are not supported; use http://HOST:PORT`,
		"http_proxy=http://user:secret@p:x":   "http_proxy: not an address of a proxy; use http://HOST:PORT",
		"http_proxy=http://":                  "http_proxy: not an address of a proxy; use http://HOST:PORT",
	} {
		if _, err := ProxyFromEnvironment(environment(env)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", env, err, want)
		}
	}
}

// proxied is a network whose server is an HTTP proxy with credentials.
func proxied(t *testing.T, p Policy) *network {
	t.Helper()
	proxy, err := ProxyFromEnvironment(environment("ALL_PROXY=http://user:secret@proxy.internal:3128"))
	if err != nil {
		t.Fatal(err)
	}
	return newNetwork(t, Config{Proxy: proxy, Policy: p, Resolver: newZone("web.example.com 93.184.216.34", "db.example.com 10.0.0.1")})
}

func (n *network) connectRequest() (*net.TCPConn, *http.Request) {
	n.t.Helper()
	c := n.accept()
	request, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		n.t.Fatal(err)
	}
	return c, request
}

func TestConnectionsThroughAProxy(t *testing.T) {
	n := proxied(t, Policy{})
	for _, want := range []string{publicWeb, "web.example.com:443"} { // before and after the lookup
		space := n.connect(publicWeb)
		proxy, request := n.connectRequest()
		if request.Method != http.MethodConnect || request.RequestURI != want || request.Host != want {
			t.Errorf("got %s %s for %s, want CONNECT %s", request.Method, request.RequestURI, request.Host, want)
		}
		if got := request.Header.Get("Proxy-Authorization"); got != "Basic dXNlcjpzZWNyZXQ=" {
			t.Errorf("got credentials %q", got)
		}
		write(t, proxy, "HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\nsent at once")
		expectRead(t, space, "sent at once")
		write(t, space, "question")
		expectRead(t, proxy, "question")
		write(t, proxy, "answer")
		proxy.CloseWrite()
		expectRead(t, space, "answer")
		expectEOF(t, space)
		n.ask("web.example.com.", dnsmessage.TypeA)
	}
}

// A proxy changes nothing about the policy.
func TestAProxyIsAskedForAllowedDestinationsOnly(t *testing.T) {
	n := proxied(t, Policy{Mode: ModeNames, Names: []string{"web.example.com", "db.example.com"}})
	n.ask("db.example.com.", dnsmessage.TypeA)
	n.expectRefused("10.0.0.1:443")
	n.expectRefused(publicWeb)
	if got := n.dials.Load(); got != 0 {
		t.Errorf("the proxy was dialled %d times", got)
	}
}

func TestProxiesThatFail(t *testing.T) {
	n := proxied(t, Policy{})
	for i, answer := range []string{"HTTP/1.1 403 Forbidden\r\n\r\n", "garbage\r\n\r\n", "", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxConnectAnswer)} {
		space := n.connect(publicWeb)
		proxy, _ := n.connectRequest()
		_, _ = io.WriteString(proxy, answer) // the host may have closed the connection before the last byte
		proxy.CloseWrite()
		expectReset(t, space)
		eventually(t, "a counted failure", func() bool { return n.Stats() == Stats{Failed: int64(i + 1)} })
	}
	space := n.connect(publicWeb)
	n.connectRequest() // gets no answer
	n.Close()
	expectReset(t, space)
}
