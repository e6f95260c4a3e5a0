package lease

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/identity"
	"spacehost/internal/lease/leasetest"
	"spacehost/migrations"
	"spacehost/quota"
)

// isLargeRun reports whether tests run in their large form: `make fire`.
func isLargeRun() bool { return os.Getenv("SPACEHOST_FIRE") != "" }

// crashHostEnv makes the test binary a host for TestFire; its value is the state folder.
const crashHostEnv = "SPACEHOST_TEST_BURNING"

// TestFire runs 16 clients that lease GPUs of a host that is killed again and again. Each settlement that a client
// received is in the ledger, once and to the millisecond. All others are settled once at the next start.
func TestFire(t *testing.T) {
	charges := 5_000
	if isLargeRun() {
		charges = 100_000
	}
	f := &crashTest{t: t, dir: t.TempDir(), target: int64(charges)}
	began := time.Now()
	over := make(chan struct{})
	var clients sync.WaitGroup
	for n := range 16 {
		clients.Go(func() { f.client(n) })
	}
	go func() { clients.Wait(); close(over) }()
	kills := f.killHosts(over)
	t.Logf("%d charges in %.1f s, %d kills, %d charges that no client received", f.settledCount.Load(), time.Since(began).Seconds(), kills, f.check())
	if least := charges / 1000; kills < least {
		t.Errorf("the host was killed %d times, want at least %d", kills, least)
	}
}

// crashTest records what the clients received.
type crashTest struct {
	t            *testing.T
	dir          string
	target       int64
	settledCount atomic.Int64 // settlements received

	mu       sync.Mutex
	admitted []string
	charged  map[string]string // milliseconds, by lease
}

// killHosts starts the host and kills it, until over. It waits for up to a thousand settlements, so the number of
// kills does not depend on the machine, and then kills the host somewhere between two settlements.
func (f *crashTest) killHosts(over <-chan struct{}) (kills int) {
	for {
		enough := f.settledCount.Load() + 1 + rand.N(int64(1000))
		host := exec.Command(os.Args[0])
		host.Env = append(os.Environ(), crashHostEnv+"="+f.dir)
		host.Stderr = os.Stderr
		if _, err := host.StdinPipe(); err != nil { // its end ends the host when the test has exited
			f.t.Fatal(err)
		}
		if err := host.Start(); err != nil {
			f.t.Fatal(err)
		}
		isOver := false
		for f.settledCount.Load() < enough && !isOver {
			select {
			case <-over:
				isOver = true
			case <-time.After(rand.N(2 * time.Millisecond)):
			}
		}
		_ = host.Process.Kill()
		_ = host.Wait()
		if isOver {
			return kills
		}
		kills++
	}
}

// client requests one Lease after the other, and records the answers.
func (f *crashTest) client(n int) {
	for f.settledCount.Load() < f.target {
		conn, err := net.Dial("unix", filepath.Join(f.dir, "sock"))
		if err != nil {
			time.Sleep(5 * time.Millisecond) // the host is down
			continue
		}
		lines := bufio.NewScanner(conn)
		for f.settledCount.Load() < f.target {
			if _, err := fmt.Fprintf(conn, "%d\n", n); err != nil || !f.readLease(lines) {
				break
			}
		}
		conn.Close()
	}
}

// readLease reads the messages of one Lease to its end. It returns false if the host has exited.
func (f *crashTest) readLease(lines *bufio.Scanner) bool {
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		f.mu.Lock()
		switch word {
		case "admitted":
			f.admitted = append(f.admitted, rest)
		case "settled":
			id, charged, _ := strings.Cut(rest, " ")
			if f.charged == nil {
				f.charged = map[string]string{}
			}
			f.charged[id] = charged
			f.settledCount.Add(1)
		default:
			f.t.Errorf("unexpected message of the host: %q", lines.Text())
		}
		f.mu.Unlock()
		if word != "admitted" {
			return true
		}
	}
	return false
}

// check compares the ledger with the clients' records, after a last recovery. It returns the number of charges
// that no client received.
func (f *crashTest) check() (undelivered int) {
	path := filepath.Join(f.dir, "spacehost.db")
	db, err := migrations.Open(f.t.Context(), path)
	if err != nil {
		f.t.Fatal(err)
	}
	defer db.Close()
	host := newCrashHost(f.t.Context(), path, db, leasetest.NewProcesses())
	if err := host.Recover(f.t.Context(), Kept{}); err != nil {
		f.t.Fatal(err)
	}
	kinds := map[string]map[string]string{"hold": {}, "settle": {}}
	rows, err := db.Query(`SELECT lease_id, kind, charged_ms, held_ms FROM ledger`)
	if err != nil {
		f.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, kind, charged string
		var held int
		if err := rows.Scan(&id, &kind, &charged, &held); err != nil {
			f.t.Fatal(err)
		}
		if _, twice := kinds[kind][id]; twice || held != 10_000 {
			f.t.Errorf("lease %s: a second %s, or an amount other than the hold: %d", id, kind, held)
		}
		kinds[kind][id] = charged
	}
	if len(kinds["hold"]) != len(kinds["settle"]) {
		f.t.Errorf("%d holds and %d settlements", len(kinds["hold"]), len(kinds["settle"]))
	}
	for _, id := range f.admitted {
		if _, there := kinds["hold"][id]; !there {
			f.t.Errorf("lease %s was admitted, but is not in the ledger", id)
		}
	}
	for id, charged := range f.charged {
		if got := kinds["settle"][id]; got != charged {
			f.t.Errorf("lease %s: its client received %s ms, the ledger has %q", id, charged, got)
		}
	}
	if err := rows.Close(); err != nil {
		f.t.Error(err)
	}
	if err := migrations.Check(f.t.Context(), path); err != nil {
		f.t.Error(err)
	}
	return len(kinds["settle"]) - len(f.charged)
}

func newCrashHost(ctx context.Context, path string, db *sql.DB, processes Processes) *Broker {
	pool, err := gpu.NewPool(ctx, gputest.NewFakeInventory(gputest.Devices(16)...), 1)
	if err != nil {
		panic(err)
	}
	b, err := New(Config{DB: db, Sync: migrations.Syncer(path), Ledger: quota.New(db, quota.Config{}), Machine: &Local{Pool: pool, Processes: processes}, WarmFor: time.Minute})
	if err != nil {
		panic(err)
	}
	return b
}

// runCrashHost is the host: everything that `spacehost run` has between the device API and the disk. It never
// returns.
func runCrashHost(dir string) {
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(1)
	}()
	ctx := context.Background()
	path := filepath.Join(dir, "spacehost.db")
	db, err := migrations.Open(ctx, path)
	if err != nil {
		panic(err)
	}
	processes := leasetest.NewProcesses()
	b := newCrashHost(ctx, path, db, processes)
	if err := b.Recover(ctx, Kept{}); err != nil {
		panic(err)
	}
	go func() { panic(b.Run(ctx)) }()
	_ = os.Remove(filepath.Join(dir, "sock"))
	listener, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		panic(err)
	}
	pids := &atomic.Int32{}
	for {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if err := leaseOnce(b, processes, pids, lines.Text(), conn); err != nil {
					fmt.Fprintf(conn, "failed: %v\n", err)
				}
			}
		}()
	}
}

// leaseOnce is one call of a Space, with a new worker or an idle one.
func leaseOnce(b *Broker, processes *leasetest.Processes, pids *atomic.Int32, client string, conn net.Conn) error {
	ctx := context.Background()
	ticket, err := b.Schedule(ctx, Request{
		Space: "demo", Instance: "run-1", Task: client, Declared: 10 * time.Second,
		Payer: identity.Identity{Kind: identity.User, Name: "client-" + client}, Tier: quota.Tier{Name: "unlimited", Unlimited: true},
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(conn, "admitted %s\n", ticket.lease.ID)
	g, err := ticket.Wait(ctx)
	if err != nil {
		return err
	}
	if !g.Idle {
		pid := int(pids.Add(1))
		processes.Start("demo", pid)
		if err := b.Allow(ctx, "demo", g.Lease, pid); err != nil {
			return err
		}
	}
	if err := b.Release(ctx, "demo", g.Lease, rand.IntN(10) == 0); err != nil && !errors.Is(err, ErrUnknown) {
		return err
	}
	fmt.Fprintf(conn, "settled %s %d\n", g.Lease, ticket.lease.Charged.Milliseconds())
	return nil
}

// TestThroughput logs the gain of group commit. It is a measurement, so it runs only in the large form.
func TestThroughput(t *testing.T) {
	if !isLargeRun() {
		t.Skip("SKIPPED: a measurement; set SPACEHOST_FIRE=1 (make fire) to run it")
	}
	rate := func(solo bool) float64 {
		h := newBrokerHarness(t)
		h.store.writer.noBatching = solo
		tier := quota.Tier{Name: "unlimited", Unlimited: true}
		var done atomic.Int64
		var all sync.WaitGroup
		end := time.Now().Add(3 * time.Second)
		for n := range 64 {
			all.Go(func() {
				for time.Now().Before(end) {
					l := newLease(request(func(r *Request) { r.Payer.Name, r.Tier = fmt.Sprint("p", n), tier }), time.Now())
					l.Slot, l.State, l.Reason, l.Ended = &gpu.Slot{}, Released, "released", time.Now()
					if err := errors.Join(h.store.warmStart(t.Context(), l, Worker{PID: 1}, time.Now(), time.Minute, true), h.store.settle(t.Context(), l)); err != nil {
						t.Error(err)
						return
					}
					done.Add(1)
				}
			})
		}
		all.Wait()
		return float64(done.Load()) / 3
	}
	alone, together := rate(true), rate(false)
	t.Logf("64 at once: %.0f leases/s with a commit for each write, %.0f batched: %.1fx", alone, together, together/alone)
}
