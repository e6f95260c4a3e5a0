package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spacehost/internal/control"
	"spacehost/internal/link"
	"spacehost/internal/nodes"
)

// quietNode is the end of a link of an attacker.
type quietNode struct{}

func (quietNode) Call(context.Context, *link.Link, string, json.RawMessage) (any, error) {
	return nil, nil
}
func (quietNode) Tell(*link.Link, string, json.RawMessage)              {}
func (quietNode) Stream(_ *link.Link, _ json.RawMessage, conn net.Conn) { conn.Close() }
func (quietNode) Suspect(*link.Link, bool)                              {}

// nodeAttack is a front with the node gpu2, which is not harmed, and the identity of the node evil.
type nodeAttack struct {
	*product
	evil  link.Identity
	gone  link.Identity // of a node that was revoked
	token string        // that evil has used
}

func newNodeAttack(t *testing.T) *nodeAttack {
	t.Helper()
	state := t.TempDir()
	a := &nodeAttack{product: serveFront(t, state, "127.0.0.1:0")}
	startAgent(t, a.Cluster, t.TempDir(), "--token-file", a.joinToken("--name", "gpu2"), "--name", "gpu2")
	a.awaitNode("gpu2", nodes.Connected)
	eventually(t, "the GPUs of the node are listed", patience, func() bool { return a.node("gpu2").GPUs == 2 })
	a.evil, a.token = a.joinAs("evil")
	a.gone, _ = a.joinAs("gone")
	a.must("node", "revoke", "gone")
	return a
}

// joinAs joins without an agent.
func (a *nodeAttack) joinAs(name string) (link.Identity, string) {
	a.t.Helper()
	text, err := os.ReadFile(a.joinToken("--name", name))
	if err != nil {
		a.t.Fatal(err)
	}
	token := strings.TrimSpace(string(text))
	id, err := link.Join(a.t.Context(), a.Cluster, token, name)
	if err != nil {
		a.t.Fatal(err)
	}
	return id, token
}

// authority is that of the front, for certificates that it would not sign.
func (a *nodeAttack) identity(name string, life time.Duration) link.Identity {
	a.t.Helper()
	authority, err := link.OpenAuthority(filepath.Join(a.State, "cluster"))
	if err != nil {
		a.t.Fatal(err)
	}
	id, err := authority.NewIdentity(name, life)
	if err != nil {
		a.t.Fatal(err)
	}
	return id
}

// dial connects with an identity and the part of a hello that describes the machine.
func (a *nodeAttack) dial(id link.Identity, machine string) (*link.Link, error) {
	hello := map[string]any{"version": "1", "machine": json.RawMessage(machine)}
	l, _, err := link.Dial(a.t.Context(), a.Cluster, id, hello, quietNode{})
	if err == nil {
		a.t.Cleanup(l.Close)
	}
	return l, err
}

// helloOf is a hello with one GPU.
func helloOf(uuid string) string {
	quoted, _ := json.Marshal(uuid) // a string cannot fail
	return fmt.Sprintf(`{"protocol":2,"slots":[{"Index":0,"Device":{"uuid":%s,"index":0,"name":"L4","memoryTotal":1}}]}`, quoted)
}

// send makes a TLS connection with the certificate of evil, sends bytes, and returns what comes until the front closes it.
func (a *nodeAttack) send(text []byte) string {
	a.t.Helper()
	conn, err := tls.Dial("tcp", a.Cluster, &tls.Config{
		InsecureSkipVerify: true, Certificates: []tls.Certificate{a.evil.Certificate}, NextProtos: []string{"spacehost-link/1"},
	})
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	go conn.Write(text) // the front may stop to read
	got, err := io.ReadAll(conn)
	if os.IsTimeout(err) {
		return "the connection is open"
	}
	return fmt.Sprintf("closed after %q, %v", got, err)
}

func frameOf(size uint32, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte(`{"kind":"control"}`+"\n"), size), body...)
}

// rows are the rows of the database that only a decision of the front may change. seen_at, version and labels of a node are its own words.
func (a *nodeAttack) rows() string {
	a.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(a.State, "spacehost.db")+"?mode=ro&_busy_timeout=30000")
	if err != nil {
		a.t.Fatal(err)
	}
	defer db.Close()
	var all bytes.Buffer
	for _, query := range []string{
		`SELECT name, hex(fingerprint), joined_at, joined_by, revoked_at, drained_at FROM nodes ORDER BY name`, `SELECT id, uses, used FROM joins ORDER BY id`,
		`SELECT count(*) FROM leases`, `SELECT count(*) FROM ledger`, `SELECT count(*) FROM drains`, `SELECT count(*) FROM runners`, `SELECT count(*) FROM tokens`, `SELECT count(*) FROM people`,
	} {
		rows, err := db.QueryContext(a.t.Context(), query)
		if err != nil {
			a.t.Fatal(query, err)
		}
		columns, _ := rows.Columns()
		for rows.Next() {
			values := make([]sql.NullString, len(columns))
			into := make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				a.t.Fatal(err)
			}
			fmt.Fprintln(&all, values)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			a.t.Fatal(err)
		}
	}
	return all.String()
}

// awaitEnd waits until the front has ended a link, and returns the reason.
func (a *nodeAttack) awaitEnd(l *link.Link) string {
	a.t.Helper()
	select {
	case <-l.Done():
		return fmt.Sprint(l.Err())
	case <-time.After(patience):
		return "the link is open"
	}
}

// TestAttacksOfNodes sends a real front what a machine that is no node, or a node that is taken over, may send. The tests of package
// link have the rows that need no database, and those of package machine the claims about leases.
func TestAttacksOfNodes(t *testing.T) {
	t.Parallel()
	a := newNodeAttack(t)
	var victim string
	for _, g := range controlJSON[[]control.GPU](t, a.product, control.ListGPUs.Path) {
		if g.Node == "gpu2" {
			victim = string(g.UUID)
		}
	}
	dial := func(id link.Identity, machine string) string {
		l, err := a.dial(id, machine)
		if err == nil {
			l.Close()
		}
		return fmt.Sprint(err)
	}
	own := helloOf("GPU-evil")
	other := serveFront(t, t.TempDir(), "127.0.0.1:0")
	foreign, err := link.Join(t.Context(), other.Cluster, strings.TrimSpace(readFile(t, other.joinToken())), "gpu2")
	if err != nil {
		t.Fatal(err)
	}
	foreign.CA = a.evil.CA // the certificate of a front is public
	before, memory := a.rows(), a.memoryMiB()
	for _, row := range []struct {
		what   string
		attack func() string
		want   string
	}{
		{"no certificate", func() string { return dial(link.Identity{CA: a.evil.CA}, own) }, "certificate required"},
		{"another authority", func() string { return dial(foreign, own) }, "not of its cluster"},
		{"expired", func() string { return dial(a.identity("evil", -time.Minute), own) }, "has expired"},
		{"revoked", func() string { return dial(a.gone, own) }, "node gone was revoked at "},
		{"another node's name", func() string { return dial(a.identity("gpu2", time.Hour), own) }, "the front knows no node gpu2 with this key"},
		{"a name that has not joined", func() string { return dial(a.identity("gpu9", time.Hour), own) }, "the front knows no node gpu9 with this key"},
		{"a token twice", func() string { return second(link.Join(t.Context(), a.Cluster, a.token, "evil")) }, "was used already"},
		{"a token for another name", func() string { return second(link.Join(t.Context(), a.Cluster, a.token, "gpu2")) }, "join token"},
		{"a token with another secret", func() string {
			forged := strings.Split(a.token, "_")
			forged[2] = strings.Repeat("0", 64)
			return second(link.Join(t.Context(), a.Cluster, strings.Join(forged, "_"), "gpu7"))
		}, "join token"},
		{"a hello that is no object", func() string { return dial(a.evil, `7`) }, "message of the other end"},
		{"another protocol", func() string { return dial(a.evil, `{"protocol":99}`) }, "speaks protocol 99"},
		{"a GPU of another node", func() string { return dial(a.evil, helloOf(victim)) }, "belongs to node gpu2 already"},
		{"a GPU with an escape sequence", func() string { return dial(a.evil, helloOf("GPU-\x1b[2J")) }, "GPUs that cannot exist"},
		{"a number that is none", func() string { return dial(a.evil, `{"protocol":2,"report":{"Ended":[{"Lease":"a","Used":"NaN"}]}}`) }, "message of the other end"},
		{"a stream of a start that is unknown", func() string { return a.inside("empty", "0123") }, "EOF"},
		{"a stream of a Space that does not exist", func() string { return a.inside("other", "0123") }, "EOF"},
		{"a frame of 65 MB", func() string { return a.send(frameOf(65<<20, "")) }, "message of more than 1048576 bytes"},
		{"an endless line", func() string { return a.send(bytes.Repeat([]byte("x"), 1<<20)) }, "closed after"},
		{"300 connections of a node", a.silentConnections, "0 are open"},
		{"1,000 connections of a stranger", a.strangers, "1000 are closed"},
		{"a flood of messages", func() string {
			l, err := a.dial(a.evil, own)
			if err != nil {
				return err.Error()
			}
			for i := range 100_000 {
				if l.Tell("dance", i) != nil {
					break
				}
			}
			return a.awaitEnd(l)
		}, "closed"},
		{"a reader that stops", a.slowReader, "closed"},
	} {
		began := time.Now()
		if got := row.attack(); !strings.Contains(got, row.want) {
			t.Errorf("%s: got %.300s, want %q in it", row.what, got, row.want)
		}
		t.Logf("%s: %s", row.what, time.Since(began).Round(time.Millisecond))
		a.awaitNode("gpu2", nodes.Connected) // a loaded machine delays beats
		if n := a.node("gpu2"); n.GPUs != 2 {
			t.Errorf("%s: the other node is %+v", row.what, n)
		}
		if got := a.rows(); got != before {
			t.Errorf("%s: the database has\n%s\nwant\n%s", row.what, got, before)
		}
	}
	allowed := 50
	if withRace() {
		allowed *= 8
	}
	t.Logf("memory of the front: %d MiB before, %d after", memory, a.memoryMiB())
	if now := a.memoryMiB(); now > memory+allowed {
		t.Errorf("the front has %d MiB, %d before, want at most %d more", now, memory, allowed)
	}
	for _, n := range controlJSON[[]control.GPU](t, a.product, control.ListGPUs.Path) {
		if n.Node == "gpu2" && (len(n.Slots) != 1 || n.Drained != nil) {
			t.Errorf("a GPU of the other node is %+v", n)
		}
	}
}

func second(_ link.Identity, err error) string { return fmt.Sprint(err) }

// inside opens a stream as a Space does inside its sandbox, and returns what it reads.
func (a *nodeAttack) inside(space, instance string) string {
	l, err := a.dial(a.evil, helloOf("GPU-evil"))
	if err != nil {
		return err.Error()
	}
	defer l.Close()
	conn, err := l.Open(a.t.Context(), map[string]string{"op": "space/inside", "space": space, "instance": instance, "socket": "device"})
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "POST /schedule HTTP/1.1\r\nHost: x\r\n\r\n")
	got, err := io.ReadAll(conn)
	if len(got) > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
		return fmt.Sprintf("%q %v", got, err)
	}
	return "EOF"
}

// strangers opens 1,000 connections that send nothing, and waits until the front closes them.
func (a *nodeAttack) strangers() string {
	var all []net.Conn
	for range 1000 {
		conn, err := net.DialTimeout("tcp", a.Cluster, patience)
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		all = append(all, conn)
	}
	closed := 0
	for _, conn := range all {
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err != nil && !os.IsTimeout(err) {
			closed++
		}
	}
	return fmt.Sprintf("%d are closed", closed)
}

// silentConnections makes 300 connections with the certificate of evil that send nothing, and waits until the front closes them.
func (a *nodeAttack) silentConnections() string {
	open := 0
	var all []net.Conn
	for range 300 {
		conn, err := tls.Dial("tcp", a.Cluster, &tls.Config{
			InsecureSkipVerify: true, Certificates: []tls.Certificate{a.evil.Certificate}, NextProtos: []string{"spacehost-link/1"},
		})
		if err != nil {
			continue // too many wait for a handshake
		}
		defer conn.Close()
		all = append(all, conn)
	}
	if len(all) == 0 {
		return "no connection was made"
	}
	for _, conn := range all {
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadAll(conn); os.IsTimeout(err) {
			open++
		}
	}
	return fmt.Sprintf("%d are open", open)
}

// slowReader calls the front and reads no answer.
func (a *nodeAttack) slowReader() string {
	conn, err := tls.Dial("tcp", a.Cluster, &tls.Config{
		InsecureSkipVerify: true, Certificates: []tls.Certificate{a.evil.Certificate}, NextProtos: []string{"spacehost-link/1"},
	})
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	hello := `{"op":"link.hello","body":{"version":"1","machine":` + helloOf("GPU-evil") + `}}`
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(frameOf(uint32(len(hello)), hello)); err != nil {
		return err.Error()
	}
	for id := 1; ; id++ {
		call := fmt.Sprintf(`{"op":%q,"id":%d}`, strings.Repeat("x", 40), id)
		if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(call))), call...)); err != nil {
			if os.IsTimeout(err) {
				return "the front reads on: " + err.Error()
			}
			return "closed: " + err.Error()
		}
	}
}

// memoryMiB returns the resident memory of the front.
func (a *nodeAttack) memoryMiB() int {
	return (&attacker{t: a.t.(*testing.T), p: a.product}).residentMiB()
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
