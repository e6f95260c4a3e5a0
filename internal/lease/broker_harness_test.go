package lease

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/identity"
	"spacehost/internal/lease/leasetest"
	"spacehost/migrations"
	"spacehost/quota"
)

// brokerHarness is a Broker with a real database, on a machine controlled by the test. Its tests run in a bubble
// of testing/synctest: time advances when all goroutines block. SQLite does not block there, so the clock stops
// while it works.
type brokerHarness struct {
	*Broker
	t         *testing.T
	db        *sql.DB
	path      string
	ledger    *quota.Ledger
	inventory *gputest.FakeInventory
	processes *leasetest.Processes
	journal   leasetest.Journal
	cancel    context.CancelFunc
	runResult chan error // the result of Run
}

var (
	ada      = identity.Identity{Kind: identity.User, Name: "ada", Tier: "free"}
	ben      = identity.Identity{Kind: identity.User, Name: "ben", Tier: "free"}
	freeTier = quota.Tier{Name: "free", Quota: 210 * time.Second, Authenticated: "regular"}
)

// newBrokerHarness has one Slot, and is not running yet.
func newBrokerHarness(t *testing.T, alter ...func(*Config)) *brokerHarness {
	t.Helper()
	h := &brokerHarness{t: t, path: filepath.Join(t.TempDir(), "spacehost.db"), processes: leasetest.NewProcesses()}
	h.openDatabase()
	h.inventory = gputest.NewFakeInventory(gputest.Devices(1)...)
	h.Broker = h.newBroker(alter...)
	return h
}

func (h *brokerHarness) openDatabase() {
	h.t.Helper()
	db, err := migrations.Open(h.t.Context(), h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { db.Close() })
	h.db, h.ledger = db, quota.New(db, quota.Config{})
}

// newBroker makes another Broker on the same machine, as after a crash.
func (h *brokerHarness) newBroker(alter ...func(*Config)) *Broker {
	h.t.Helper()
	config := Config{DB: h.db, Ledger: h.ledger, Machine: &Local{Pool: h.pool(h.inventory), Processes: h.processes}, Logger: h.journal.Logger()}
	for _, a := range alter {
		a(&config)
	}
	b, err := New(config)
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *brokerHarness) pool(inventory gpu.Inventory) *gpu.Pool {
	h.t.Helper()
	pool, err := gpu.NewPool(h.t.Context(), inventory, 1)
	if err != nil {
		h.t.Fatal(err)
	}
	return pool
}

// run starts the Broker. The end of the test stops it if the test does not.
func (h *brokerHarness) run() *brokerHarness {
	ctx, cancel := context.WithCancel(context.Background())
	b, result := h.Broker, make(chan error, 1)
	h.cancel, h.runResult = cancel, result
	var running sync.WaitGroup
	running.Go(func() { result <- b.Run(ctx) })
	h.t.Cleanup(func() { cancel(); running.Wait() })
	return h
}

// stop ends the Broker as the host does, and waits for it.
func (h *brokerHarness) stop() {
	h.t.Helper()
	h.cancel()
	if err := <-h.runResult; !errors.Is(err, context.Canceled) {
		h.t.Errorf("Run returned %v", err)
	}
}

// request is a call of ada for 60 s.
func request(alter ...func(*Request)) Request {
	r := Request{Space: "demo", Instance: "run-1", Event: "event-1", Payer: ada, Tier: freeTier, Task: "draw", Function: "draw", Declared: time.Minute}
	for _, a := range alter {
		a(&r)
	}
	return r
}

func declared(d time.Duration) func(*Request) { return func(r *Request) { r.Declared = d } }

func (h *brokerHarness) schedule(alter ...func(*Request)) *Ticket {
	h.t.Helper()
	ticket, err := h.Schedule(h.t.Context(), request(alter...))
	if err != nil {
		h.t.Fatalf("schedule: %v", err)
	}
	return ticket
}

func (h *brokerHarness) grant(ticket *Ticket) Grant {
	h.t.Helper()
	g, err := ticket.Wait(h.t.Context())
	if err != nil {
		h.t.Fatalf("wait: %v", err)
	}
	return g
}

// active starts a worker with that pid, and the clock.
func (h *brokerHarness) active(pid int, alter ...func(*Request)) Grant {
	h.t.Helper()
	g := h.grant(h.schedule(alter...))
	h.processes.Start("demo", pid)
	if err := h.Allow(h.t.Context(), "demo", g.Lease, pid); err != nil {
		h.t.Fatalf("allow: %v", err)
	}
	return g
}

func (h *brokerHarness) release(g Grant) {
	h.t.Helper()
	if err := h.Release(h.t.Context(), "demo", g.Lease, false); err != nil {
		h.t.Fatalf("release: %v", err)
	}
}

// wantBalance checks the charged and held time in the ledger.
func (h *brokerHarness) wantBalance(payer identity.Identity, charged, held time.Duration) {
	h.t.Helper()
	b, err := h.Account(h.t.Context(), payer, freeTier)
	if err != nil {
		h.t.Fatal(err)
	}
	if b.Charged != charged || b.Held != held {
		h.t.Errorf("account of %s: got %v charged and %v held, want %v and %v", payer, b.Charged, b.Held, charged, held)
	}
}

// wantLast checks the Lease that ended last. Of several that ended at the same moment it is the one admitted last.
func (h *brokerHarness) wantLast(state State, reason string, charged time.Duration) {
	h.t.Helper()
	all, err := h.Past(h.t.Context(), 1)
	if err != nil || len(all) != 1 {
		h.t.Fatalf("past: got %+v, %v", all, err)
	}
	if got := all[0]; got.State != state || got.Reason != reason || got.ChargedSeconds != charged.Seconds() {
		h.t.Errorf("last lease: got %s, %q, %g s; want %s, %q, %v", got.State, got.Reason, got.ChargedSeconds, state, reason, charged)
	}
}

func (h *brokerHarness) count(query string, args ...any) (n int) {
	h.t.Helper()
	if err := h.db.QueryRowContext(h.t.Context(), query, args...).Scan(&n); err != nil {
		h.t.Fatalf("%s: %v", query, err)
	}
	return n
}

func (h *brokerHarness) exec(query string, args ...any) {
	h.t.Helper()
	if _, err := h.db.ExecContext(h.t.Context(), query, args...); err != nil {
		h.t.Fatalf("%s: %v", query, err)
	}
}

// refuseToSettle makes the database fail as a full disk does, until accept is called.
func (h *brokerHarness) refuseToSettle() (accept func()) {
	h.t.Helper()
	h.exec(`CREATE TRIGGER full BEFORE INSERT ON ledger WHEN NEW.kind = 'settle' BEGIN SELECT RAISE(ABORT, 'disk full'); END`)
	return func() { h.exec(`DROP TRIGGER full`) }
}
