package link_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

// within is the deadline of what a test waits for.
const within = time.Minute

// raw makes a TLS connection to a front, with the identity of a dialer, and writes to it.
func raw(t *testing.T, d *link.Dialer, text string) *tls.Conn {
	t.Helper()
	dial := d.DialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(t.Context(), "tcp", d.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	encrypted := tls.Client(conn, &tls.Config{
		InsecureSkipVerify: true, Certificates: []tls.Certificate{d.Identity.Certificate}, NextProtos: []string{"spacehost-link/1"},
	})
	encrypted.SetDeadline(time.Now().Add(within))
	if _, err := encrypted.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return encrypted
}

// opened is a link made by hand.
type opened struct {
	*tls.Conn
	link string // its secret name
}

// control makes a link by hand, up to the welcome, and sends its beats.
func control(t *testing.T, d *link.Dialer) opened {
	t.Helper()
	conn := raw(t, d, `{"kind":"control"}`+"\n")
	if got := accepted(conn); got != "{}\n" {
		t.Fatalf("opening line: got %q", got)
	}
	conn.Write(frame(`{"op":"link.hello"}`))
	var m struct{ Body struct{ Link string } }
	if err := json.Unmarshal([]byte(readFrame(conn)), &m); err != nil || m.Body.Link == "" {
		t.Fatalf("welcome: got %v, %v", m, err)
	}
	go func() {
		for ticker := time.NewTicker(link.BeatInterval); ; {
			select {
			case <-ticker.C:
				conn.Write(frame(`{"op":"link.beat","body":{"n":1}}`))
			case <-t.Context().Done():
				ticker.Stop()
				return
			}
		}
	}()
	return opened{conn, m.Body.Link}
}

// accepted reads the line that accepts a connection, and no byte after it.
func accepted(conn io.Reader) string {
	line := make([]byte, len("{}\n"))
	n, _ := io.ReadFull(conn, line)
	return string(line[:n])
}

func answer(conn io.Reader) string {
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(line, "\n")
}

func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// readFrame returns the next message that is no beat.
func readFrame(conn io.Reader) string {
	for {
		header := make([]byte, 4)
		if _, err := io.ReadFull(conn, header); err != nil {
			return err.Error()
		}
		body := make([]byte, binary.BigEndian.Uint32(header))
		if _, err := io.ReadFull(conn, body); err != nil {
			return err.Error()
		}
		if !strings.Contains(string(body), "link.beat") {
			return string(body)
		}
	}
}

func TestCertificatesAreChecked(t *testing.T) {
	f, other := newFront(t, echo), newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	known := d.Identity
	expired, err := f.CA.NewIdentity("gpu1", -time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	foreign := linktest.NewIdentity(t, other.CA, "gpu1")
	foreign.CA = known.CA // which it knows: the certificate of the front is public
	for what, row := range map[string]struct {
		id   link.Identity
		want string
	}{
		"no certificate":    {link.Identity{CA: known.CA}, "certificate required"},
		"other authority":   {foreign, "not of its cluster"},
		"expired":           {expired, "has expired"},
		"other key":         {linktest.NewIdentity(t, f.CA, "gpu1"), "not known with this key"},
		"name not in table": {linktest.NewIdentity(t, f.CA, "gpu9"), "not known with this key"},
		"other front":       {link.Identity{Certificate: known.Certificate, CA: otherPool(t)}, "no certificate of this node's cluster"},
	} {
		d.Identity = row.id
		if _, _, err := d.Dial(t.Context(), nil); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", what, err, row.want)
		}
	}
	if len(f.hellos) > 0 {
		t.Errorf("hellos of refused nodes: %v", f.hellos)
	}
	d.Identity = known
	f.dial(d)
}

func otherPool(t *testing.T) *x509.CertPool {
	return linktest.NewIdentity(t, linktest.NewAuthority(t), "gpu1").CA
}

// A node opens no stream of another node's link, and none of its own with another key.
func TestStreamsBelongToTheirNode(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	id := control(t, d)
	stolen := linktest.NewIdentity(t, f.CA, "gpu1") // of a key that was revoked
	attacker := *d
	f.join(&attacker, "gpu2")
	f.dial(&attacker)
	withOtherKey := *d
	withOtherKey.Identity = stolen
	for _, kind := range []string{"stream", "spare"} {
		for what, dialer := range map[string]*link.Dialer{"other node": &attacker, "other key": &withOtherKey} {
			conn := raw(t, dialer, fmt.Sprintf(`{"kind":%q,"link":%q,"hello":1}`+"\n", kind, id.link))
			if got := answer(conn); !strings.Contains(got, link.CodeNoLink) {
				t.Errorf("%s of %s: got %q", kind, what, got)
			}
		}
	}
	conn := raw(t, d, fmt.Sprintf(`{"kind":"stream","link":%q,"hello":"mine"}`+"\n", id.link))
	if got := answer(conn); got != "{}" {
		t.Errorf("its own stream: got %q", got)
	}
	l := f.Link("gpu1")
	if err := l.Err(); err != nil {
		t.Errorf("the link of the other node is down: %v", err)
	}
}

// A renewal does not give a node the certificate of another key.
func TestRenewalKeepsTheKey(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	l := f.dial(d)
	for what, request := range map[string]any{"another key": link.NewRequest(t), "damaged": []byte("x"), "no bytes": 7} {
		var e *link.RemoteError
		if err := l.Call(t.Context(), "link.renew", request, nil); !errors.As(err, &e) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestRevokedNodeIsCutAtOnce(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	l := f.dial(d)
	stream, err := l.Open(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	atFront := f.Link("gpu1")
	f.forget("gpu1")
	f.Revoke("gpu1")
	if err := atFront.Err(); !errors.Is(err, link.ErrRevoked) || f.Link("gpu1") != nil {
		t.Errorf("at the front: %v", err)
	}
	await(t, "the end of the link", l.Done())
	var e *link.RemoteError
	if !errors.As(l.Err(), &e) || e.Code != link.CodeRevoked {
		t.Errorf("at the node: %v", l.Err())
	}
	stream.SetReadDeadline(time.Now().Add(within))
	if _, err := io.ReadAll(stream); isTimeout(err) {
		t.Errorf("the stream is open: %v", err)
	}
	if _, _, err := d.Dial(t.Context(), nil); !errors.As(err, &e) || e.Code != link.CodeRefused {
		t.Errorf("dial again: %v", err)
	}
	f.Revoke("gpu9") // has no link
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func await(t *testing.T, what string, over <-chan struct{}) {
	t.Helper()
	select {
	case <-over:
	case <-time.After(within):
		t.Fatal("timeout: " + what)
	}
}

// A revocation while the node connects, after it was authorized, takes effect.
func TestRevokedWhileItConnects(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	conn := raw(t, d, `{"kind":"control"}`+"\n")
	if got := accepted(conn); got != "{}\n" { // authorized
		t.Fatalf("got %q", got)
	}
	f.forget("gpu1")
	f.Revoke("gpu1")
	conn.Write(frame(`{"op":"link.hello"}`))
	if m := readFrame(conn); !strings.Contains(m, "not known with this key") {
		t.Errorf("got %q", m)
	}
	if len(f.hellos) > 0 {
		t.Error("Hello is called")
	}
}

// Each row is sent on a connection with a valid certificate. None reaches a handler, and the next link works.
func TestMalformedConnectionsAreRefused(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	greeting := `{"kind":"control"}` + "\n"
	for what, row := range map[string]struct{ text, want string }{
		"no JSON":              {"GET / HTTP/1.1\r\n\r\n", link.CodeProtocol},
		"endless line":         {strings.Repeat("x", 65<<10+1), link.CodeProtocol}, // more would reset the connection
		"unknown kind":         {`{"kind":"other"}` + "\n", link.CodeProtocol},
		"stream without link":  {`{"kind":"stream","link":"x"}` + "\n", link.CodeNoLink},
		"spare without link":   {`{"kind":"spare"}` + "\n", link.CodeNoLink},
		"hello of 65 MB":       {greeting + "\x04\x10\x00\x00", link.CodeProtocol},
		"hello without JSON":   {greeting + string(frame("x")), link.CodeProtocol},
		"call before hello":    {greeting + string(frame(`{"op":"echo","id":1}`)), link.CodeProtocol},
		"end before the hello": {greeting + "\x00", "EOF"},
	} {
		conn := raw(t, d, row.text)
		if what == "end before the hello" {
			conn.CloseWrite()
		}
		got, err := io.ReadAll(conn)
		if isTimeout(err) || (row.want != "EOF" && !strings.Contains(string(got), fmt.Sprintf(`"code":%q`, row.want))) {
			t.Errorf("%s: got %q, %v, want code %q", what, got, err, row.want)
		}
	}
	if len(f.hellos) > 0 {
		t.Errorf("hellos: %v", f.hellos)
	}
	f.dial(d)
}

// Each row is sent on a control connection, which ends with the reason.
func TestMalformedMessagesEndTheLink(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	for what, text := range map[string]string{
		"message of 65 MB":     "\x04\x10\x00\x00" + strings.Repeat("x", 2<<20),
		"message of 1 MB + 1":  "\x00\x10\x00\x01",
		"message without JSON": string(frame("{")),
	} {
		conn := control(t, d)
		l := f.Link("gpu1")
		conn.Write([]byte(text))
		if m := readFrame(conn); !strings.Contains(m, link.CodeProtocol) && !strings.Contains(m, "reset") {
			t.Errorf("%s: got %q", what, m)
		}
		await(t, what, l.Done())
	}
	conn := control(t, d) // what is only unknown does no harm
	for _, text := range []string{`{"op":"link.other"}`, `{"answer":77}`, `{"op":"link.cancel","body":9}`, `{"op":"link.keep","body":-5}`, `{"op":"link.beat","body":"x"}`, `{}`} {
		conn.Write(frame(text))
	}
	conn.Write(frame(`{"op":"echo","id":5,"body":"x"}`))
	if m := readFrame(conn); m != `{"answer":5,"body":"x"}` {
		t.Errorf("call after unknown messages: got %q", m)
	}
}

func TestCallsUnderWayAreLimited(t *testing.T) {
	free := make(chan struct{})
	f := newFront(t, linktest.Handler{OnCall: func(context.Context, *link.Link, string, json.RawMessage) (any, error) {
		<-free
		return nil, nil
	}})
	d := f.listen()
	f.join(d, "gpu1")
	conn := control(t, d)
	for id := range 1025 {
		conn.Write(frame(fmt.Sprintf(`{"op":"wait","id":%d}`, id+1)))
	}
	if m := readFrame(conn); !strings.Contains(m, `"answer":1025`) || !strings.Contains(m, link.CodeLimit) {
		t.Errorf("call 1,025: got %q", m)
	}
	conn.Write(frame(`{"op":"wait","id":3}`)) // which waits already
	if m := readFrame(conn); !strings.Contains(m, `"answer":3`) || !strings.Contains(m, link.CodeLimit) {
		t.Errorf("a number twice: got %q", m)
	}
	close(free)
}

func TestConnectionsOfANodeAreLimited(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	l := f.dial(d)
	other := *d
	f.join(&other, "gpu2")
	n := 0
	var err error
	for ; err == nil && n < 300; n++ {
		_, err = l.Open(t.Context(), 1)
	}
	var e *link.RemoteError // the other connections are control, and up to 4 spares
	if n < 256-4 || n > 256 || !errors.As(err, &e) || e.Code != link.CodeLimit {
		t.Errorf("stream %d: got %v, want a limit of 256 connections", n, err)
	}
	f.dial(&other) // the limit is that of one node
	f.dial(d)      // the front closes the connections of the earlier link
	await(t, "the end of the earlier link", l.Done())
	awaitTrue(t, "a spare of the new link", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		now := f.Link("gpu1")
		if now == nil {
			return false
		}
		stream, err := now.Open(ctx, 1)
		return err == nil && stream.Close() == nil
	})
}

func awaitTrue(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("timeout: " + what)
		}
	}
}

// TestLinksOfANodeAreLimited: a node that makes a link after the other has to wait for its turn.
func TestLinksOfANodeAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, echo)
		f.Authorize = func(string, [32]byte) error { return nil }
		network := f.serve(t)
		d := &link.Dialer{Address: linktest.Address, DialContext: network.Dial("10.0.0.2"), Handler: echo}
		d.Identity = linktest.NewIdentity(t, f.CA, "gpu1")
		begun := time.Now()
		for n := range 26 {
			l, _, err := d.Dial(t.Context(), nil)
			if err != nil {
				t.Fatalf("link %d after %s: %v", n, time.Since(begun), err)
			}
			l.Close()
			l.Wait()
		}
		if took := time.Since(begun); took < 9*time.Second || took > 12*time.Second {
			t.Errorf("26 links took %s, want 10 s: 16 at once, then one in each second", took)
		}
	})
}
