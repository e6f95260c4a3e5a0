package nodeagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/link"
	"spacehost/internal/nodes"
)

// fakeFront implements fronts. Each dial and join takes the next of its results; after the last one it succeeds.
type fakeFront struct {
	authority *link.Authority
	dials     []error // nil: a link
	joins     []error
	life      time.Duration // of each link; 0: until Close
	ends      error         // of a link
	at        []time.Time   // of dials
	names     []string      // of joins
	hello     nodes.Hello   // the last one
	welcome   string
	reports   []nodes.Leaving // over all links
	answer    error           // to each report
	reported  func(nodes.Leaving)
}

// newFront returns a front, and the state folder of a machine that has joined it.
func newFront(t *testing.T) (f *fakeFront, state string) {
	t.Helper()
	authority, err := link.OpenAuthority(filepath.Join(t.TempDir(), "cluster"))
	if err != nil {
		t.Fatal(err)
	}
	return &fakeFront{authority: authority, welcome: `{"version":"2"}`}, t.TempDir()
}

func next(all *[]error) error {
	if len(*all) == 0 {
		return nil
	}
	err := (*all)[0]
	*all = (*all)[1:]
	return err
}

func (f *fakeFront) join(_ context.Context, _, _, name string) (link.Identity, error) {
	f.names = append(f.names, name)
	if err := next(&f.joins); err != nil {
		return link.Identity{}, err
	}
	return f.identity(name)
}

// identity lets a real front at a pipe sign a certificate, because package link makes identities only there.
func (f *fakeFront) identity(name string) (link.Identity, error) {
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return link.Identity{}, err
	}
	ctx, stop := context.WithCancel(context.Background())
	server := &link.Server{CA: f.authority, Redeem: func(context.Context, link.JoinRequest) (link.JoinGrant, error) { return link.JoinGrant{}, nil }}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(ctx, at) }()
	defer func() { stop(); <-served }()
	return link.Join(ctx, at.Addr().String(), f.authority.NewToken().String(), name)
}

func (f *fakeFront) dial(_ context.Context, _ link.Dialer, hello any) (dialed, error) {
	f.at = append(f.at, time.Now())
	f.hello = hello.(nodes.Hello)
	if err := next(&f.dials); err != nil {
		return dialed{}, err
	}
	l := &fakeLink{front: f, done: make(chan struct{}), err: f.ends}
	if f.life > 0 {
		time.AfterFunc(f.life, l.Close)
	}
	return dialed{l, nil, json.RawMessage(f.welcome)}, nil
}

type fakeLink struct {
	front *fakeFront
	done  chan struct{}
	err   error
}

func (l *fakeLink) Call(_ context.Context, op string, in, _ any) error {
	if op != nodes.OpLeave {
		return errors.New("unexpected call " + op)
	}
	report := *in.(*nodes.Leaving)
	l.front.reports = append(l.front.reports, report)
	if l.front.reported != nil {
		l.front.reported(report)
	}
	return l.front.answer
}

func (l *fakeLink) Done() <-chan struct{} { return l.done }
func (l *fakeLink) Err() error            { return l.err }
func (l *fakeLink) Wait()                 { <-l.done }
func (l *fakeLink) Close() {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
}

// join gives a state folder the identity of a node.
func (f *fakeFront) joined(t *testing.T, state, name string) {
	t.Helper()
	id, err := f.identity(name)
	if err == nil {
		err = os.MkdirAll(filepath.Join(state, Folder), 0o700)
	}
	if err == nil {
		err = id.Save(filepath.Join(state, Folder))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// plain is a Service of a machine without Devices.
type plain struct{ link.Handler }

func (plain) Hello(context.Context) (json.RawMessage, error) { return nil, nil }
func (plain) Connected(*link.Link, json.RawMessage)          {}
func (plain) Leave()                                         {}
func (plain) Running() (processes, leases int)               { return 0, 0 }
func (plain) End()                                           {}

func config(state string) Config {
	return Config{Front: "front:7443", State: state, Version: "1", Labels: []string{"h200"}, Service: plain{}, Logger: zap.NewNop()}
}

// TestBackoff: the agent dials again after 1 s, then after twice the time, up to 30 s. After a link it begins anew.
func TestBackoff(t *testing.T) {
	f, state := newFront(t)
	f.joined(t, state, "gpu2")
	synctest.Test(t, func(t *testing.T) {
		refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		f.dials = []error{refused, refused, refused, refused, refused, refused, refused, nil, refused}
		f.life, f.ends = time.Minute, errors.New("the other end has closed the connection")
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		ready := 0
		c := config(state)
		c.Ready = func() { ready++ }
		if err := run(ctx, c, f); err != nil {
			t.Fatal(err)
		}
		want := []time.Duration{1, 2, 4, 8, 16, 30, 30, 61, 1}
		for i, most := range want {
			least, most := most*time.Second/2, most*time.Second
			if i == 7 { // after the life of the link
				least = time.Minute + time.Second/2
			}
			if got := f.at[i+1].Sub(f.at[i]); got < least || got > most {
				t.Errorf("dial %d follows after %s, want from %s to %s", i+1, got, least, most)
			}
		}
		if ready != 1 {
			t.Errorf("ready was called %d times, want 1", ready)
		}
		if f.hello.Version != "1" || len(f.hello.Labels) != 1 || f.hello.Boot == "" || f.hello.WallMillis == 0 {
			t.Errorf("the hello is %+v", f.hello)
		}
	})
}

// TestRefusals: what a repetition does not change ends the agent, and everything else is repeated.
func TestRefusals(t *testing.T) {
	f, state := newFront(t)
	f.joined(t, state, "gpu2")
	for _, row := range []struct {
		what string
		err  error
		want string // "": it is repeated
	}{
		{"revoked", &link.RemoteError{Code: link.CodeRevoked, Text: "node gpu2 was revoked"}, "node gpu2 was revoked"},
		{"unknown", &link.RemoteError{Code: link.CodeRefused, Text: "the front knows no node gpu2"}, "the front knows no node gpu2"},
		{"replaced", &link.RemoteError{Code: link.CodeReplaced, Text: "x"}, "another agent has connected with the identity of this one"},
		{"the front ends", &link.RemoteError{Code: link.CodeStopping, Text: "the front ends"}, ""},
		{"a beat was late", &link.RemoteError{Code: link.CodeLost, Text: "no message for 15 s"}, ""},
		{"the front has failed", &link.RemoteError{Code: link.CodeInternal, Text: "x"}, ""},
		{"no route", &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, ""},
	} {
		t.Run(row.what, func(t *testing.T) {
			for _, when := range []string{"dial", "link"} {
				f := &fakeFront{authority: f.authority, welcome: f.welcome, life: time.Second, ends: row.err}
				if when == "dial" {
					f.dials, f.life = []error{row.err}, 0
				}
				synctest.Test(t, func(t *testing.T) {
					ctx, stop := context.WithTimeout(t.Context(), time.Minute)
					defer stop()
					err := run(ctx, config(state), f)
					if row.want == "" && (err != nil || len(f.at) < 2) {
						t.Errorf("%s: got %v after %d dials, want a repetition", when, err, len(f.at))
					}
					if refused, ok := errors.AsType[*RefusedError](err); row.want != "" && (!ok || !strings.Contains(refused.Error(), row.want) || len(f.at) != 1) {
						t.Errorf("%s: got %v after %d dials", when, err, len(f.at))
					}
				})
			}
		})
	}
}

// TestJoin: an agent without an identity joins once. It repeats only a join that has not reached the front.
func TestJoin(t *testing.T) {
	f, state := newFront(t)
	token := f.authority.NewToken().String()
	c := config(state)
	c.Name = "gpu2"
	if err := run(t.Context(), c, f); err == nil || !strings.Contains(err.Error(), "has not joined yet; create a token") {
		t.Errorf("without a token: %v", err)
	}
	c.Token = func() (string, error) { return "sph_1", nil }
	if err := run(t.Context(), c, f); err == nil || !strings.Contains(err.Error(), "this is no join token") {
		t.Errorf("with a token of a person: %v", err)
	}
	c.Token = func() (string, error) { return token, nil }
	f.joins = []error{&link.RemoteError{Code: string(nodes.TokenUsed), Text: "this join token was used already"}}
	if err := run(t.Context(), c, f); err == nil || err.Error() != "this join token was used already" {
		t.Errorf("with a used token: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	f.names = nil
	f.joins = []error{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, fmt.Errorf("join the front: %w", link.ErrNoHandshake)}
	c.Ready = stop
	if err := run(ctx, c, f); err != nil || len(f.names) != 3 || f.names[2] != "gpu2" {
		t.Errorf("got %v after joins as %v, want three as gpu2", err, f.names)
	}
	info, err := os.Stat(filepath.Join(state, Folder, "identity.pem"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the identity has mode %v (%v), want 0600", info.Mode(), err)
	}

	ctx, stop = context.WithCancel(t.Context())
	defer stop()
	c.Name, c.Ready, c.Token = "", stop, nil
	if err := run(ctx, c, f); err != nil || len(f.names) != 3 {
		t.Errorf("the second start: %v, joins as %v", err, f.names)
	}
	c.Name = "gpu3"
	if err := run(t.Context(), c, f); err == nil || !strings.Contains(err.Error(), "has joined as gpu2, not as gpu3") {
		t.Errorf("with another name: %v", err)
	}
}

// TestJoinAgain: the agent of a forgotten node joins again if it has a token.
func TestJoinAgain(t *testing.T) {
	f, state := newFront(t)
	f.joined(t, state, "gpu2")
	forgotten := &link.RemoteError{Code: link.CodeRefused, Text: "the front knows no node gpu2"}
	f.dials = []error{forgotten}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	c := config(state)
	c.Token, c.Ready = func() (string, error) { return f.authority.NewToken().String(), nil }, stop
	if err := run(ctx, c, f); err != nil || len(f.names) != 1 || f.names[0] != "gpu2" {
		t.Errorf("got %v, joins as %v", err, f.names)
	}
}

// TestOneAgent: a folder has one agent.
func TestOneAgent(t *testing.T) {
	f, state := newFront(t)
	f.joined(t, state, "gpu2")
	ctx, stop := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	c := config(state)
	c.Ready = func() { close(ready) }
	go func() { ended <- run(ctx, c, f) }()
	<-ready
	if err := run(t.Context(), config(state), f); err == nil || !strings.Contains(err.Error(), "another agent runs with ") {
		t.Errorf("got %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestDescribe: each cause that an operator can remove has a next step.
func TestDescribe(t *testing.T) {
	for _, row := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "no front answers at front:7443: connection refused; check --join, and `cluster.listen`"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "front", IsNotFound: true}}, "the host name of the front is not known"},
		{context.DeadlineExceeded, "check --join, and the firewalls on the way"},
		{errors.New("other"), "other"},
	} {
		if got := describe(row.err, "front:7443"); !strings.Contains(got, row.want) {
			t.Errorf("%v: got %q, want %q", row.err, got, row.want)
		}
	}
}
