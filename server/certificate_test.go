package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/web/certtest"
)

func trustOnly(addr string) func(netip.Addr) bool {
	return func(one netip.Addr) bool { return one == netip.MustParseAddr(addr) }
}

// plainConn returns a context of a request on a connection without TLS.
func plainConn(ctx context.Context, client, server string) context.Context {
	info := &Conn{Client: netip.MustParseAddrPort(client), Server: netip.MustParseAddrPort(server), stream: &returnConn{}}
	return context.WithValue(ctx, connKey{}, info)
}

func loadPair(cert, key string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	return &pair, err
}

// TestCertificateIsReadAgain checks a renewal, one that has written only half of the pair, and other files.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certtest.Write(t, 1, cert, key, "lab.example")
	c, err := NewCertificate(cert, key, loadPair, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	want := func(serial int64) {
		t.Helper()
		pair, err := c.current(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil || leaf.SerialNumber.Int64() != serial {
			t.Errorf("the certificate has number %v (%v), want %d", leaf.SerialNumber, err, serial)
		}
	}
	want(1)
	certtest.Write(t, 2, cert, filepath.Join(dir, "new.key"), "lab.example")
	want(1) // looked at a moment ago
	now = now.Add(lookEvery)
	want(1) // the key is missing
	if err := os.Rename(filepath.Join(dir, "new.key"), key); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookEvery)
	want(2)
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookEvery)
	want(2)
	others := []string{filepath.Join(dir, "other.pem"), filepath.Join(dir, "other.key")}
	certtest.Write(t, 3, others[0], others[1], "lab.example")
	c.Use(others[0], others[1])
	want(3)
	if _, err := NewCertificate(cert, key, loadPair, nil); err == nil {
		t.Error("a missing file is no error")
	}
}

// tlsSite serves TLS at an address, with routes that a stream takes over and that send a file.
func tlsSite(t *testing.T) Site {
	t.Helper()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certtest.Write(t, 1, cert, key, "lab.example")
	s := New(nil)
	var err error
	if s.TLS, err = NewCertificate(cert, key, loadPair, nil); err != nil {
		t.Fatal(err)
	}
	e := s.NewSite()
	site := mustMount(t, s, e)
	e.GET("/scheme", func(c echo.Context) error { return c.String(http.StatusOK, fmt.Sprint(c.Request().TLS != nil)) })
	e.POST("/scheme", func(c echo.Context) error { return c.String(http.StatusOK, fmt.Sprint(c.Request().TLS != nil)) })
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("spacehost", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	e.GET("/file", func(c echo.Context) error { return c.File(file) })
	e.GET("/take", func(c echo.Context) error {
		conn, _, err := http.NewResponseController(c.Response().Writer).Hijack()
		if err != nil {
			return err
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken"); err != nil {
			return err
		}
		go func() {
			var early [1]byte
			if n, err := conn.Read(early[:]); err != nil || !conn.(*returnConn).Return(early[:n]) {
				_ = conn.Close()
			}
		}()
		return nil
	})
	runServer(t, s)
	return site
}

// TestTLSConnections checks requests, files, taken connections and their return over TLS, and plain requests at the same port.
func TestTLSConnections(t *testing.T) {
	site := tlsSite(t)
	raw, err := net.Dial("tcp", site.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}) // the test made the certificate
	defer conn.Close()
	reader := bufio.NewReader(conn)
	get := func(path string) string {
		t.Helper()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(path, err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(path, err)
		}
		return string(body)
	}
	for _, path := range []string{"/take", "/scheme", "/take", "/take", "/file", "/scheme"} {
		want := map[string]string{"/take": "taken", "/scheme": "true", "/file": strings.Repeat("spacehost", 1<<20)}[path]
		if got := get(path); got != want {
			t.Fatalf("%s: got %d bytes %.40q, want %d bytes %.40q", path, len(got), got, len(want), want)
		}
	}
	if state := conn.ConnectionState(); state.NegotiatedProtocol != "http/1.1" {
		t.Errorf("the protocol is %q", state.NegotiatedProtocol)
	}
	answer, err := http.Post("http://"+site.Addr.String()+"/scheme", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "false" {
		t.Errorf("a plain request of this machine: %q, %v", body, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestLongWriteOverTLS writes more than a client takes within the deadline, to one that reads slowly but continues.
func TestLongWriteOverTLS(t *testing.T) {
	const size = 16 << 20
	site := tlsSite(t)
	written := make(chan error, 1)
	site.GET("/long", func(c echo.Context) error {
		conn, _, err := http.NewResponseController(c.Response().Writer).Hijack()
		if err != nil {
			return err
		}
		tcp := conn.(*returnConn)
		_ = tcp.SetWriteBuffer(256 << 10)
		_ = tcp.SetWriteDeadline(time.Now().Add(time.Second))
		_, err = conn.Write(make([]byte, size))
		written <- err
		return conn.Close()
	})
	conn, err := tls.Dial("tcp", site.Addr.String(), &tls.Config{InsecureSkipVerify: true}) // the test made the certificate
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
	pace := time.NewTicker(3 * time.Millisecond) // in all longer than the deadline
	defer pace.Stop()
	n, part := 0, make([]byte, 32<<10)
	for err == nil {
		<-pace.C
		var more int
		more, err = conn.Read(part)
		n += more
	}
	if werr := <-written; werr != nil || n != size {
		t.Errorf("%d of %d bytes arrived; write: %v, read: %v", n, size, werr, err)
	}
}
