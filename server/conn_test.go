package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/labstack/echo/v4"

	"spacehost/server"
)

// TestOwnerIsLookedUpOncePerConnection: the lookup runs on the first request that needs it, and once per connection. It
// holds for IPv4 and, on a listener of all interfaces, for IPv4 addresses mapped into IPv6.
func TestOwnerIsLookedUpOncePerConnection(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::]:0"} {
		t.Run(addr, func(t *testing.T) { lookUpOnce(t, addr) })
	}
	if server.ConnOf(t.Context()) != nil {
		t.Error("a request through no Server has a connection")
	}
}

func lookUpOnce(t *testing.T, addr string) {
	skipUnlessListenable(t, addr)
	var lookups atomic.Int64
	find := func(client, host netip.AddrPort) string {
		lookups.Add(1)
		if !client.Addr().Is4() || host.Addr() != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("ends %v and %v, want IPv4", client, host)
		}
		return "demo"
	}
	s := server.New(nil)
	site, err := s.Mount(addr, "--addr")
	if err != nil {
		t.Fatal(err)
	}
	site.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, "no lookup") })
	site.GET("/owner", func(c echo.Context) error {
		conn := server.ConnOf(c.Request().Context())
		if !conn.IsLocal() {
			t.Error("IsLocal: got false for a connection from this machine")
		}
		return c.String(http.StatusOK, conn.Owner(find))
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() { stop(); <-ended }()
	client := &http.Client{Transport: &http.Transport{}}
	get := func(path, want string, times int64) {
		t.Helper()
		response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d%s", site.Addr.Port, path))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || string(body) != want || lookups.Load() != times {
			t.Errorf("%s: got %q (%v) after %d lookups, want %q after %d", path, body, err, lookups.Load(), want, times)
		}
	}
	get("/", "no lookup", 0)
	get("/owner", "demo", 1)
	get("/owner", "demo", 1)
	client.CloseIdleConnections()
	get("/owner", "demo", 2)
	client.CloseIdleConnections()
}

func skipUnlessListenable(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("SKIPPED: cannot listen on %s: %v; this was not tested", addr, err)
	}
	l.Close()
}
