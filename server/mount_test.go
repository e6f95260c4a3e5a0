package server

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
)

// answering returns routes that answer with a text.
func answering(s *Server, text string) *echo.Echo {
	e := s.NewSite()
	e.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, text) })
	return e
}

// runServer runs a Server until the test ends, and reports its error.
func runServer(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		running := s.start != nil
		s.mu.Unlock()
		if running {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not run")
		}
	}
}

func mustMount(t *testing.T, s *Server, e *echo.Echo) Site {
	t.Helper()
	site, err := s.MountEcho(e, "127.0.0.1:0", "--test")
	if err != nil {
		t.Fatal(err)
	}
	return site
}

// TestAddressesChangeWhileServing mounts, hands over and gives up addresses of a running Server. Giving one up does not end
// Run, and does nothing once other routes answer there.
func TestAddressesChangeWhileServing(t *testing.T) {
	s := New(nil)
	first := mustMount(t, s, answering(s, "first"))
	runServer(t, s)
	want := func(site Site, text string) {
		t.Helper()
		if status, body := get(t, "http://"+site.Addr.String()); status != http.StatusOK || body != text {
			t.Errorf("%s: %d %s, want %s", site.Addr, status, body, text)
		}
	}
	want(first, "first")

	second := mustMount(t, s, answering(s, "second"))
	s.Serve(second)
	want(second, "second")

	taken := first.With(answering(s, "taken"))
	want(first, "first") // until HandOver
	s.HandOver(taken)
	want(first, "taken")
	s.Unmount(first)
	want(first, "taken")

	s.Unmount(second)
	again, err := s.MountEcho(answering(s, "again"), second.Addr.String(), "--test")
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(again)
	want(again, "again")
	if !s.IsListening(again.Addr.Port) {
		t.Error("the address is not known as the host's")
	}
	s.Unmount(again)
	if s.IsListening(again.Addr.Port) {
		t.Error("an address that was given up is known as the host's")
	}
}

// TestNamesChangeWhileServing adds and removes Sites of a shared address.
func TestNamesChangeWhileServing(t *testing.T) {
	s := New(nil)
	shared, err := s.MountShared("127.0.0.1:0", "--test")
	if err != nil {
		t.Fatal(err)
	}
	runServer(t, s)
	status := func(name string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+shared.Front().Addr.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = name
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	e := answering(s, "one")
	before := status("one.example")
	shared.Site([]string{"one.example"}, e)
	during := status("one.example")
	shared.Remove([]string{"one.example"}, answering(s, "other")) // not its routes
	still := status("one.example")
	shared.Remove([]string{"one.example"}, e)
	if after := status("one.example"); before != 404 || during != 200 || still != 200 || after != 404 {
		t.Errorf("statuses %d, %d, %d, %d, want 404, 200, 200, 404", before, during, still, after)
	}
}
