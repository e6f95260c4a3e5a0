// Package nodeagent connects a machine with a front, so that the front can use it as a node.
//
// # Terms
//
// The identity is the key and the certificate with which the agent proves which node it is. A join gets the certificate from the front, with
// a join token, once. Package link defines link, hello and welcome.
//
// # Types and callers
//
// `spacehost agent --join` calls [Run] with a [Config]. A [Service] is what the node serves over its link. Package host implements it (NodeService).
//
// # States
//
//	no identity ──join──▶ disconnected ──dial──▶ connected
//	                          ▲                      │
//	                          └──── the link ends ───┘
//
// A drain begins with the end of Run's ctx, or [Config.Drain] before the end of the machine, in each of these states. The front ends the
// Spaces after their running calls, and Run returns when nothing runs any more, or when the time is over.
//
// A failed dial is repeated after 1 s, then after twice the time, up to 30 s, and so is a join that does not reach the front. A refusal by
// the front ends Run: the node was revoked or forgotten, the join token is not valid, or another agent has the same identity.
//
// # Failures
//
// Each failed attempt is logged with the cause and the next step. The errors of Run are sentences for the user of the command line.
package nodeagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/link"
	"spacehost/internal/nodes"
)

// Service is what a node serves over its link. Its methods are called concurrently.
type Service interface {
	link.Handler
	// Hello returns what the front should know at the begin of a connection, for nodes.Hello.Machine.
	Hello(ctx context.Context) (json.RawMessage, error)
	// Connected is called with each new link and the answer of the front (nodes.Welcome.Machine), before Run waits for its end.
	Connected(l *link.Link, welcome json.RawMessage)
	// Leave refuses further starts of Spaces from now on.
	Leave()
	// Running returns the number of processes of Spaces, and of leases whose workers run. It does not block.
	Running() (processes, leases int)
	// End ends all processes of Spaces, and returns when they have exited.
	End()
}

// Config is what Run needs. All fields without a default are required.
type Config struct {
	Front   string                 // host:port
	Token   func() (string, error) // reads the join token; nil: there is none
	Name    string                 // of the node; "": that of the identity, else DefaultName
	Labels  []string               // nil: none
	State   string                 // state folder; it is created
	Version string                 // of this program
	Service Service
	Logger  *zap.Logger
	Ready   func() // called once, at the first connection; nil: nothing
	// Drain is how long running calls may go on after the end of Run's ctx, and before the end of this machine.
	Drain time.Duration
	// Ends looks up the end of this machine; nil: it is not known. Run calls it before the first connection, each 10 min, and before it
	// begins a drain.
	Ends  func(context.Context) (End, error)
	Hurry <-chan struct{} // closed to cut off the drain; nil: never
	// DialContext makes the connections to the front after the join; nil: TCP.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Folder is the folder in a state folder that has the identity of a node.
const Folder = "node"

// The times between two attempts to reach the front.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// RefusedError is the refusal of a join or a connection by the front, in its words.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// Run joins the front if this machine has no identity yet, and then keeps a link to it until ctx ends or the machine does, which is no
// error. Before it returns, it drains the machine and ends what still runs. Errors: *RefusedError, or a sentence that names what is missing
// here.
func Run(ctx context.Context, c Config) error { return run(ctx, c, network{}) }

func run(ctx context.Context, c Config, front fronts) error {
	dir := filepath.Join(c.State, Folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state folder: %w; choose another with --state", err)
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	a := &agent{Config: c, dir: dir, front: front}
	a.departs = a.lookUpEnd(ctx, departure{})
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	left := make(chan bool, 1)
	go func() {
		left <- a.leave(ctx, work)
		stop()
	}()
	err = a.run(work)
	stop()
	if <-left {
		return nil
	}
	return err
}

// lock refuses a second agent on the same folder.
func lock(dir string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w; choose another with --state", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("another agent runs with %s; end it, or choose another state folder with --state", dir)
	}
	return func() { file.Close() }, nil
}

// agent is one call of Run.
type agent struct {
	Config
	dir      string
	front    fronts
	identity atomic.Pointer[link.Identity] // the latest
	isReady  bool

	mu        sync.Mutex
	departs   departure
	current   connection // nil: none
	refusedBy connection // the front at its other end does not drain this machine
}

func (a *agent) run(ctx context.Context) error {
	id, err := link.LoadIdentity(a.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if id, err = a.join(ctx); err != nil {
			return err
		}
	case err != nil:
		return err
	case a.Name != "" && a.Name != id.Node():
		return fmt.Errorf("this machine has joined as %s, not as %s; leave out --name, or choose another state folder with --state", id.Node(), a.Name)
	}
	err = a.keepLink(ctx, id)
	if refused := (*RefusedError)(nil); a.Token == nil || !errors.As(err, &refused) || a.isReady {
		return err
	}
	a.Logger.Warn("identity refused, the machine joins again", zap.Error(err)) // the operator has given a token for it
	if a.Name == "" {
		a.Name = id.Node()
	}
	if id, err = a.join(ctx); err != nil {
		return err
	}
	return a.keepLink(ctx, id)
}

// join gets an identity from the front, and stores it.
func (a *agent) join(ctx context.Context) (id link.Identity, err error) {
	if a.Token == nil {
		return id, errors.New("this machine has not joined yet; create a token on the front with `spacehost node token`, and give it with --token-file")
	}
	token, err := a.Token()
	if err != nil {
		return id, err
	}
	if _, err := link.ParseToken(token); err != nil {
		return id, err
	}
	name := a.Name
	if name == "" {
		if name, err = DefaultName(); err != nil {
			return id, err
		}
	}
	err = a.retry(ctx, "join failed", func() error {
		if id, err = a.front.join(ctx, a.Front, token, name); err != nil && !isUnreachable(err) {
			err = &RefusedError{err.Error()} // the token may be used up
		}
		return err
	})
	if err != nil {
		return id, err
	}
	if err := id.Save(a.dir); err != nil {
		return id, err
	}
	a.Logger.Info("joined", zap.String("node", id.Node()), zap.String("front", a.Front), zap.Time("expires", id.Expires()))
	return id, nil
}

// DefaultName returns the first part of the host name, in lower case.
func DefaultName() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find a name for this machine: %w; give one with --name", err)
	}
	name, _, _ := strings.Cut(strings.ToLower(host), ".")
	if nodes.CheckName(name) != nil {
		return "", fmt.Errorf("the host name %.70q cannot be the name of a node; give one with --name", host)
	}
	return name, nil
}

// keepLink keeps a link to the front until ctx ends or the front refuses it.
func (a *agent) keepLink(ctx context.Context, id link.Identity) error {
	a.identity.Store(&id)
	for {
		if err := a.retry(ctx, "connection failed", func() error { return a.oneLink(ctx) }); err != nil {
			return err
		}
		if err := sleep(ctx, spread(firstRetry)); err != nil { // a link that ends at once is not dialled in a loop
			return err
		}
	}
}

// oneLink dials the front. It returns nil once the link has ended, and an error if there was none, or never will be another.
func (a *agent) oneLink(ctx context.Context) error {
	departs := a.departure()
	hello, err := a.hello(ctx)
	if err != nil {
		return err
	}
	hello.Leaving = departs.leaving()
	id := *a.identity.Load()
	l, err := a.front.dial(ctx, link.Dialer{Address: a.Front, Identity: id, Handler: a.Service, Renewed: a.renewed, DialContext: a.DialContext, Logger: a.Logger}, hello)
	if err != nil {
		return err
	}
	var welcome nodes.Welcome
	if err := json.Unmarshal(l.welcome, &welcome); err != nil {
		l.Close()
		return fmt.Errorf("the answer of the front is not understood; install its version here: %w", err)
	}
	a.Logger.Info("connected", zap.String("node", id.Node()), zap.String("front", a.Front), zap.String("front_version", welcome.Version))
	a.Service.Connected(l.link, welcome.Machine)
	if !a.isReady && a.Ready != nil {
		a.Ready()
	}
	a.isReady = true
	a.use(ctx, l.connection, departs)
	defer a.leaveLink()
	select {
	case <-ctx.Done():
		l.Close()
		l.Wait()
		return context.Cause(ctx)
	case <-l.Done():
	}
	err = l.Err()
	l.Wait()
	if cause := refusalOf(err); cause != nil {
		return cause
	}
	a.Logger.Warn("link has ended", zap.Error(err))
	return nil
}

// renewed implements link.Dialer.Renewed.
func (a *agent) renewed(id link.Identity) {
	a.identity.Store(&id)
	if err := id.Save(a.dir); err != nil {
		a.Logger.Warn("renewed certificate not stored", zap.Error(err))
	}
}

func (a *agent) hello(ctx context.Context) (nodes.Hello, error) {
	machine, err := a.Service.Hello(ctx)
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // only for diagnosis
	return nodes.Hello{Version: a.Version, Boot: strings.TrimSpace(string(boot)), WallMillis: time.Now().UnixMilli(), Labels: a.Labels, Machine: machine}, err
}

// retry repeats do until it succeeds, ctx ends or the front refuses.
func (a *agent) retry(ctx context.Context, what string, do func() error) error {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		err := do()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if refused := refusalOf(err); refused != nil || err == nil {
			return refused
		}
		wait := spread(pause)
		a.Logger.Warn(what, zap.String("front", a.Front), zap.String("error", describe(err, a.Front)), zap.Duration("retry_in", wait))
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// spread returns a random time from the half of a pause to all of it: the nodes of a front that has restarted do not come back in one
// moment.
func spread(pause time.Duration) time.Duration { return pause/2 + rand.N(pause/2+1) }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
