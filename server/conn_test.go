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

// TestAConnectionIsAskedAboutOnce: however many requests come on it, and not before one that wants to know; from IPv4
// and, on a listener of all interfaces, from what is mapped into IPv6.
func TestAConnectionIsAskedAboutOnce(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::]:0"} {
		t.Run(addr, func(t *testing.T) {
			if l, err := net.Listen("tcp", addr); err != nil {
				t.Skipf("SKIPPED: cannot listen on %s: %v; this was not tested", addr, err)
			} else {
				l.Close()
			}
			var asked atomic.Int64
			find := func(client, host netip.AddrPort) string {
				asked.Add(1)
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
			site.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, "nobody asked") })
			site.GET("/owner", func(c echo.Context) error {
				conn := server.ConnOf(c.Request().Context())
				if !conn.IsLocal() {
					t.Error("not of this machine")
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
				answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d%s", site.Addr.Port, path))
				if err != nil {
					t.Fatal(err)
				}
				defer answer.Body.Close()
				body, err := io.ReadAll(answer.Body)
				if err != nil || string(body) != want || asked.Load() != times {
					t.Errorf("%s: %q (%v) after %d questions, want %q after %d", path, body, err, asked.Load(), want, times)
				}
			}
			get("/", "nobody asked", 0)
			get("/owner", "demo", 1)
			get("/owner", "demo", 1)
			client.CloseIdleConnections()
			get("/owner", "demo", 2)
			client.CloseIdleConnections()
		})
	}
	if server.ConnOf(t.Context()) != nil {
		t.Error("a request through no Server has a connection")
	}
}
