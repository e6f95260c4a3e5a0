package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/link"
	machines "spacehost/internal/machine"
	"spacehost/internal/nodes"
	"spacehost/migrations"
	"spacehost/quota"
)

// frontVariable names the state folder of a front. With it, this program is that front: broker, ledger, database and links of a host,
// without addresses of visitors. It prints its address, and then answers each line of stdin by one line.
const frontVariable = "SPACEHOST_BENCH_FRONT"

// maybeFront returns unless this process is a front.
func maybeFront() {
	state := os.Getenv(frontVariable)
	if state == "" {
		return
	}
	raiseOpenFiles()
	if err := runFront(state); err != nil {
		fmt.Fprintln(os.Stderr, "bench: front:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// loadFront is the front that lends GPUs of its nodes.
type loadFront struct {
	broker *lease.Broker
	fleet  *machines.Fleet
	store  *nodes.Store
	server *link.Server

	mu    sync.Mutex
	since time.Time // of the measures
	took  map[string][]time.Duration
	wrong map[string]int // errors by their text
	open  atomic.Int64   // leases whose clock runs
	pids  atomic.Int64
}

// loadReport is the answer to the line "mark": what has happened since the former one.
type loadReport struct {
	Seconds float64            `json:"seconds"`
	Grants  int                `json:"grants"`
	Open    int64              `json:"open"`
	P50     map[string]float64 `json:"p50_ms"` // by step: grant, allow, release
	P99     map[string]float64 `json:"p99_ms"`
	Wrong   map[string]int     `json:"wrong,omitempty"`
}

// loadOrder is the JSON of the line that begins the load.
type loadOrder struct {
	Nodes int           `json:"nodes"`
	Rate  int           `json:"rate"` // requests a second
	Hold  time.Duration `json:"hold"` // of each lease
}

func runFront(state string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	path := filepath.Join(state, "spacehost.db")
	db, err := migrations.Open(ctx, path)
	if err != nil {
		return err
	}
	defer db.Close()
	reads, err := migrations.OpenReads(path)
	if err != nil {
		return err
	}
	defer reads.Close()
	f := &loadFront{store: nodes.NewStore(db, reads, time.Now), took: map[string][]time.Duration{}, wrong: map[string]int{}, since: time.Now()}
	own, err := gpu.NewPool(ctx, gpu.None{}, 1)
	if err != nil {
		return err
	}
	if f.broker, err = lease.New(lease.Config{
		DB: db, Reads: reads, Sync: migrations.Syncer(path), Ledger: quota.New(db, quota.Config{}), Machine: &lease.Local{Pool: own, Processes: &simulation{}},
	}); err != nil {
		return err
	}
	if err := f.broker.Recover(ctx, lease.Kept{}); err != nil {
		return err
	}
	authority, err := link.OpenAuthority(filepath.Join(state, "cluster"))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	f.fleet = machines.NewFleet(f.broker, zap.NewNop())
	f.server = &link.Server{CA: authority, Authorize: f.authorize, Hello: f.hello, Handler: f.fleet}
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { _ = f.broker.Run(ctx) })
	running.Go(func() { _ = f.server.Serve(ctx, listener) })
	fmt.Println(listener.Addr())
	var loading sync.WaitGroup
	loadCtx, endLoad := context.WithCancel(ctx)
	defer endLoad()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var answer any = "ok"
		switch line := lines.Text(); line {
		case "mark":
			answer = f.mark()
		case "end":
			endLoad()
			loading.Wait()
			answer = f.mark()
		default:
			var o loadOrder
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				return err
			}
			loading.Go(func() { f.load(loadCtx, o) })
		}
		text, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		fmt.Println(string(text))
	}
	return nil
}

// authorize implements link.Server.Authorize as a host does.
func (f *loadFront) authorize(node string, key [32]byte) error {
	err := f.store.Authorize(context.Background(), node, key)
	if errors.As(err, new(*nodes.RefusedError)) {
		return &link.RemoteError{Code: link.CodeRefused, Text: err.Error()}
	}
	return err
}

// hello implements link.Server.Hello as a host does.
func (f *loadFront) hello(l *link.Link, body json.RawMessage) (any, error) {
	var hello nodes.Hello
	if err := json.Unmarshal(body, &hello); err != nil {
		return nil, err
	}
	if err := errors.Join(hello.Check(), f.store.Seen(context.Background(), l.Peer(), hello.Version, hello.Labels)); err != nil {
		return nil, err
	}
	devices, err := f.fleet.Hello(l, hello.Machine)
	return nodes.Welcome{Version: "bench", Machine: devices}, err
}

// load requests leases at a rate until ctx ends, and then waits for the end of all.
func (f *loadFront) load(ctx context.Context, o loadOrder) {
	var all sync.WaitGroup
	defer all.Wait()
	ticker := time.NewTicker(time.Second / time.Duration(o.Rate))
	defer ticker.Stop()
	for n := 0; ; n++ {
		all.Go(func() { f.lease(ctx, n%o.Nodes, o.Hold) })
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// lease is one call on a GPU of a node.
func (f *loadFront) lease(ctx context.Context, node int, hold time.Duration) {
	err := f.oneLease(ctx, node, hold)
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.wrong[err.Error()]++
	}
}

func (f *loadFront) oneLease(ctx context.Context, node int, hold time.Duration) error {
	user := identity.Identity{Kind: identity.User, Name: fmt.Sprint("user-", rand.IntN(500)), Tier: "free"}
	background := context.WithoutCancel(ctx)
	began := time.Now()
	ticket, err := f.broker.Schedule(background, lease.Request{
		Machine: nodeName(node), Space: "bench", Instance: "bench", Payer: user, Task: "1", Function: "draw", Declared: time.Minute,
		Tier: quota.Tier{Name: "free", Unlimited: true, Authenticated: "regular"},
	})
	if err != nil {
		return fmt.Errorf("schedule: %w", err)
	}
	g, err := ticket.Wait(background)
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	f.note("grant", began)
	began = time.Now()
	if err := f.broker.Allow(background, "bench", g.Lease, int(f.pids.Add(1))); err != nil {
		return fmt.Errorf("allow: %w", err)
	}
	f.note("allow", began)
	f.open.Add(1)
	defer f.open.Add(-1)
	select {
	case <-time.After(hold):
	case <-ctx.Done():
	}
	began = time.Now()
	if err := f.broker.Release(background, "bench", g.Lease, false); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	f.note("release", began)
	return nil
}

func (f *loadFront) note(step string, began time.Time) {
	took := time.Since(began)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.took[step] = append(f.took[step], took)
}

func (f *loadFront) mark() loadReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := loadReport{Seconds: time.Since(f.since).Seconds(), Grants: len(f.took["grant"]), Open: f.open.Load(), P50: map[string]float64{}, P99: map[string]float64{}, Wrong: f.wrong}
	for step, took := range f.took {
		slices.Sort(took)
		r.P50[step], r.P99[step] = percentile(took, 50), percentile(took, 99)
	}
	f.since, f.took, f.wrong = time.Now(), map[string][]time.Duration{}, map[string]int{}
	return r
}
