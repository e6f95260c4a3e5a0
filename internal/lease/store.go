package lease

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/identity"
	"spacehost/quota"
)

// store accesses the tables leases, runners and drains. Every method that writes is one transaction.
type store struct {
	db        *sql.DB
	reads     *sql.DB // answers also while a transaction of db waits to write
	writer    *writer
	ledger    *quota.Ledger
	bootID    string
	diskGuard *diskGuard
}

func newStore(db *sql.DB, ledger *quota.Ledger, bootID string, log *zap.Logger) *store {
	return &store{db: db, reads: db, writer: &writer{db: db, log: log}, ledger: ledger, bootID: bootID, diskGuard: &diskGuard{log: log}}
}

// admit takes the hold and inserts the Lease's row. Refusals are quota's errors, unwrapped.
func (s *store) admit(ctx context.Context, l *Lease, queueTimeout time.Duration) error {
	if err := s.diskGuard.check(); err != nil {
		return err
	}
	return s.writer.write(ctx, "admit lease", func(tx quota.Tx) error {
		_, err := s.admitTx(tx, l, queueTimeout, false)
		return err
	})
}

// errWindowClosed means that the Lease would open its payer's window.
var errWindowClosed = errors.New("the window is not open yet")

// Delays of the fsync for writes that no caller waits for. On a machine with few processors, an fsync at once
// would slow down the call or its answer.
const (
	warmStartSyncDelay = 20 * time.Millisecond // a warm start, if it has not ended by then
	settleSyncDelay    = 5 * time.Millisecond
)

// warmStart admits and activates a Lease in one transaction. Refusals are quota's errors, unwrapped.
//
// The fsync happens while the call already runs, or together with the settlement if that comes first: before that
// there is nothing to charge. A power cut before the fsync takes back the hold, and the call with it. If the
// payer's window would open and mayOpen is false, it writes nothing and returns errWindowClosed.
func (s *store) warmStart(ctx context.Context, l *Lease, w Worker, at time.Time, queueTimeout time.Duration, mayOpen bool) error {
	if err := s.diskGuard.check(); err != nil {
		return err
	}
	return s.writer.writeDeferred(ctx, "start warm lease", warmStartSyncDelay, func(tx quota.Tx) error {
		isOpen, err := s.admitTx(tx, l, queueTimeout, true)
		if err != nil {
			return err
		}
		if !isOpen && !mayOpen {
			return errWindowClosed
		}
		return s.activateTx(tx, l, w, at, at, isOpen)
	})
}

// admitTx also reports whether the payer's window is open. If the Lease becomes active in the same transaction
// (start), its run counts at once. It runs in a shared transaction, which the context of one caller must not end.
func (s *store) admitTx(tx quota.Tx, l *Lease, queueTimeout time.Duration, start bool) (isOpen bool, err error) {
	ctx := context.Background()
	held, err := s.hold(ctx, tx, l, queueTimeout, start)
	if err != nil {
		return false, err
	}
	l.Held, l.Remaining, l.overRuns = held.Time, held.Remaining, held.OverRuns
	_, err = tx.ExecContext(ctx, `INSERT INTO leases
		(id, machine, space, instance, event, identity, tier, task, function, size, declared_ms, held_ms, state, boot_id, admitted_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		l.ID, l.Machine, l.Space, l.Instance, l.Event, l.Payer.Key(), l.Tier.Name, l.Task, l.Function, l.Size,
		l.Declared.Milliseconds(), l.Held.Milliseconds(), string(Waiting), s.bootID, l.Admitted.UnixMilli())
	if err != nil {
		return false, fmt.Errorf("write lease: %w", err)
	}
	return held.IsOpen, nil
}

// hold reads the open holds only if they are the obstacle.
func (s *store) hold(ctx context.Context, tx quota.Tx, l *Lease, queueTimeout time.Duration, start bool) (quota.Held, error) {
	request := l.request()
	request.Start = start
	held, err := s.ledger.Hold(ctx, tx, request)
	exceeded, _ := errors.AsType[*quota.ExceededError](err)
	_, credits := errors.AsType[*quota.CreditsPendingError](err)
	if !credits && (exceeded == nil || !exceeded.OnlyHolds) {
		return held, err
	}
	if request.Pending, err = s.pending(ctx, tx, l.Payer.Key(), queueTimeout); err != nil {
		return quota.Held{}, err
	}
	return s.ledger.Hold(ctx, tx, request)
}

// pending lists this identity's open holds, each with the latest time of its end.
func (s *store) pending(ctx context.Context, tx quota.Tx, identity string, queueTimeout time.Duration) ([]quota.Pending, error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, held_ms, coalesce(deadline_at, admitted_at + declared_ms + ?)
		FROM leases WHERE identity = ? AND ended_at IS NULL`, queueTimeout.Milliseconds(), identity)
	if err != nil {
		return nil, fmt.Errorf("list open leases: %w", err)
	}
	defer rows.Close()
	var all []quota.Pending
	for rows.Next() {
		var p quota.Pending
		var held, until int64
		if err := rows.Scan(&p.Lease, &held, &until); err != nil {
			return nil, fmt.Errorf("list open leases: %w", err)
		}
		p.Held, p.Until = milliseconds(held), time.UnixMilli(until)
		all = append(all, p)
	}
	return all, rows.Err()
}

// activate writes the worker and the start of the clock, opens the payer's window and counts the run. It returns
// ErrUnknown if the Lease has ended.
func (s *store) activate(ctx context.Context, l *Lease, w Worker, since, now time.Time) error {
	return s.writer.write(ctx, "activate lease", func(tx quota.Tx) error { return s.activateTx(tx, l, w, since, now, false) })
}

// activateTx opens the payer's window and counts the run, unless the window is known to be open, as in a warm start, which
// has counted the run.
func (s *store) activateTx(tx quota.Tx, l *Lease, w Worker, since, now time.Time, isOpen bool) error {
	ctx := context.Background()
	result, err := tx.ExecContext(ctx, `UPDATE leases SET state = ?, slot = ?, device = ?, worker_pid = ?, worker_start = ?,
		granted_at = ?, active_at = ?, beat_at = ?, deadline_at = ? WHERE id = ? AND ended_at IS NULL`,
		string(Active), l.Slot.Index, string(l.Slot.Device.UUID), w.PID, int64(w.Start),
		l.Granted.UnixMilli(), since.UnixMilli(), now.UnixMilli(), since.Add(l.Declared).UnixMilli(), l.ID)
	if err != nil {
		return fmt.Errorf("activate lease: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(ErrUnknown, err)
	}
	if isOpen {
		return nil
	}
	return s.ledger.Open(ctx, tx, l.ID, since)
}

// beat writes the elapsed time of Leases: after a crash no Lease is charged past its last beat. The values
// come from the scheduler's clock, which setting or suspending the machine does not move.
func (s *store) beat(ctx context.Context, used map[string]time.Duration) error {
	if len(used) == 0 {
		return nil
	}
	ms := make(map[string]int64, len(used))
	for id, used := range used {
		ms[id] = used.Milliseconds()
	}
	beats, err := json.Marshal(ms)
	if err != nil {
		return fmt.Errorf("encode beat: %w", err)
	}
	return s.exec(ctx, "write beat", `UPDATE leases SET beat_at = active_at + beats.value FROM json_each(?) AS beats
		WHERE leases.id = beats.key AND ended_at IS NULL AND active_at IS NOT NULL`, string(beats))
}

// exec runs one statement in a write transaction.
func (s *store) exec(ctx context.Context, what, statement string, args ...any) error {
	return s.writer.write(ctx, what, func(tx quota.Tx) error {
		if _, err := tx.ExecContext(context.Background(), statement, args...); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
}

// settle writes the end of a Lease: its row and its ledger entry. A second call changes nothing. The visitor waits
// for the commit, but not for the fsync. A power cut in between leaves the Lease open and charged to its last
// beat (settleLeftover), as if it had happened a moment earlier.
func (s *store) settle(ctx context.Context, l *Lease) error {
	return s.writer.writeDeferred(ctx, "settle lease", settleSyncDelay, func(tx quota.Tx) error {
		return s.finishTx(tx, l.ID, string(l.State), l.Reason, quota.Settlement{Charged: l.Charged, Ran: l.ran()}, l.Ended)
	})
}

// finishTx takes the charge and the run from cost.
func (s *store) finishTx(tx quota.Tx, id, state, reason string, cost quota.Settlement, at time.Time) error {
	ctx := context.Background()
	cost.Lease, cost.Reason, cost.Now = id, reason, at
	err := s.ledger.Settle(ctx, tx, cost)
	var settled *quota.SettledError
	if err != nil && !errors.As(err, &settled) {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE leases SET state = ?, reason = ?, charged_ms = ?, ended_at = ?
		WHERE id = ? AND ended_at IS NULL`, state, reason, cost.Charged.Milliseconds(), at.UnixMilli(), id)
	if err != nil {
		return fmt.Errorf("settle lease: %w", err)
	}
	return nil
}

// leftover is an open Lease of a crashed host.
type leftover struct {
	id, machine, instance, boot string
	worker                      Worker
	active, beat, due           sql.NullInt64
	held                        time.Duration
	size                        string
}

// charge is the time that can be proved: from /allow to the last beat, never past the deadline, never above
// the hold.
func (o leftover) charge() time.Duration {
	if !o.active.Valid {
		return 0
	}
	used := milliseconds(min(o.beat.Int64, o.due.Int64) - o.active.Int64)
	return min(o.held, max(0, used)*time.Duration(quota.Factor(o.size)))
}

// ran is the time from which the run counts. A grant whose /allow was not committed counts as none, because the
// database does not distinguish it from a wait.
func (o leftover) ran() time.Time {
	if !o.active.Valid {
		return time.Time{}
	}
	return time.UnixMilli(o.active.Int64)
}

// state ends a wait as if the Space had exited. The database does not record whether it was granted already.
func (o leftover) state() State {
	if o.active.Valid {
		return Revoked
	}
	return Withdrawn
}

func (s *store) leftovers(ctx context.Context) ([]leftover, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, machine, instance, boot_id, coalesce(worker_pid, 0), coalesce(worker_start, 0), active_at,
		beat_at, deadline_at, held_ms, size FROM leases WHERE ended_at IS NULL`)
	if err != nil {
		return nil, fmt.Errorf("list open leases: %w", err)
	}
	defer rows.Close()
	var all []leftover
	for rows.Next() {
		var o leftover
		var held, start int64
		err := rows.Scan(&o.id, &o.machine, &o.instance, &o.boot, &o.worker.PID, &start, &o.active, &o.beat, &o.due, &held, &o.size)
		if err != nil {
			return nil, fmt.Errorf("list open leases: %w", err)
		}
		o.held, o.worker.Start = milliseconds(held), uint64(start)
		all = append(all, o)
	}
	return all, rows.Err()
}

func (s *store) settleLeftover(ctx context.Context, o leftover, now time.Time) error {
	return s.writer.write(ctx, "settle lease after a crash", func(tx quota.Tx) error {
		return s.finishTx(tx, o.id, string(o.state()), "host crashed", quota.Settlement{Charged: o.charge(), Ran: o.ran()}, now)
	})
}

// Runner is a start of a Space, recorded so that its processes can be ended after a crash of the host.
type Runner struct {
	Machine                 string // where it runs; "": the host's own machine
	Instance, Space, Marker string
	PID                     int
	Start                   uint64
	boot                    string
}

// addRunner replaces the row of an instance that a host has taken over.
func (s *store) addRunner(ctx context.Context, r Runner, now time.Time) error {
	return s.exec(ctx, "write runner", `INSERT OR REPLACE INTO runners (instance, machine, space, pid, start, boot_id, marker, started_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, r.Instance, r.Machine, r.Space, r.PID, int64(r.Start), s.bootID, r.Marker, now.UnixMilli())
}

func (s *store) removeRunner(ctx context.Context, instance string) error {
	return s.exec(ctx, "remove runner", `DELETE FROM runners WHERE instance = ?`, instance)
}

// runners lists those of the host's own machine.
func (s *store) runners(ctx context.Context) ([]Runner, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT instance, space, pid, start, boot_id, marker FROM runners WHERE machine = ''`)
	if err != nil {
		return nil, fmt.Errorf("list runners: %w", err)
	}
	defer rows.Close()
	var all []Runner
	for rows.Next() {
		var r Runner
		var start int64
		if err := rows.Scan(&r.Instance, &r.Space, &r.PID, &start, &r.boot, &r.Marker); err != nil {
			return nil, fmt.Errorf("list runners: %w", err)
		}
		r.Start = uint64(start)
		all = append(all, r)
	}
	return all, rows.Err()
}

// Past is an ended Lease, as `spacehost lease` lists it.
type Past struct {
	Lease           string    `json:"lease"`
	State           State     `json:"state"`
	Reason          string    `json:"reason"`
	Machine         string    `json:"node,omitempty"` // absent: the host's own machine
	Space           string    `json:"space"`
	Identity        string    `json:"identity"`
	DeclaredSeconds float64   `json:"declaredSeconds"`
	ChargedSeconds  float64   `json:"chargedSeconds"`
	Admitted        time.Time `json:"admitted"`
	Ended           time.Time `json:"ended"`
}

func (s *store) past(ctx context.Context, limit int) ([]Past, error) {
	rows, err := s.reads.QueryContext(ctx, `SELECT substr(id, 1, 8), machine, state, reason, space, identity, declared_ms, charged_ms,
		admitted_at, ended_at FROM leases WHERE ended_at IS NOT NULL ORDER BY ended_at DESC, rowid DESC LIMIT ?`, limit)
	if err != nil {
		return nil, fmt.Errorf("list ended leases: %w", err)
	}
	defer rows.Close()
	all := []Past{}
	for rows.Next() {
		var p Past
		var declared, charged, admitted, ended int64
		err := rows.Scan(&p.Lease, &p.Machine, &p.State, &p.Reason, &p.Space, &p.Identity, &declared, &charged, &admitted, &ended)
		if err != nil {
			return nil, fmt.Errorf("list ended leases: %w", err)
		}
		p.DeclaredSeconds, p.ChargedSeconds = milliseconds(declared).Seconds(), milliseconds(charged).Seconds()
		p.Admitted, p.Ended = time.UnixMilli(admitted).UTC(), time.UnixMilli(ended).UTC()
		all = append(all, p)
	}
	return all, rows.Err()
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// Account is the balance of one identity in package quota. It is here so that callers need only the Broker.
func (b *Broker) Account(ctx context.Context, payer identity.Identity, tier quota.Tier) (quota.Balance, error) {
	return b.store.ledger.Balance(ctx, payer.Key(), tier, b.now())
}

func (s *store) drain(ctx context.Context, uuid gpu.DeviceUUID, d Drain, now time.Time) error {
	return s.exec(ctx, "drain device", `INSERT INTO drains (device, reason, drained_at, from_at, until_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (device) DO UPDATE SET reason = excluded.reason, drained_at = excluded.drained_at, from_at = excluded.from_at, until_at = excluded.until_at`,
		string(uuid), d.Reason, now.UnixMilli(), nullTime(d.From), nullTime(d.Until))
}

// nullTime stores the zero time as NULL.
func nullTime(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMilli(), Valid: !t.IsZero()}
}

func (s *store) undrain(ctx context.Context, uuid gpu.DeviceUUID) error {
	return s.exec(ctx, "return device", `DELETE FROM drains WHERE device = ?`, string(uuid))
}

// undrainUntil removes a drain whose window is over, and keeps a newer one.
func (s *store) undrainUntil(ctx context.Context, uuid gpu.DeviceUUID, until time.Time) error {
	return s.exec(ctx, "return device", `DELETE FROM drains WHERE device = ? AND until_at = ?`, string(uuid), until.UnixMilli())
}

// drains returns the stored drains by Device.
func (s *store) drains(ctx context.Context) (map[gpu.DeviceUUID]Drain, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT device, reason, from_at, until_at FROM drains`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[gpu.DeviceUUID]Drain{}
	for rows.Next() {
		var uuid string
		var from, until sql.NullInt64
		d := Drain{Operator: true}
		if err := rows.Scan(&uuid, &d.Reason, &from, &until); err != nil {
			return nil, err
		}
		if from.Valid {
			d.From = time.UnixMilli(from.Int64).UTC()
		}
		if until.Valid {
			d.Until = time.UnixMilli(until.Int64).UTC()
		}
		all[gpu.DeviceUUID(uuid)] = d
	}
	return all, rows.Err()
}

func (l *Lease) request() quota.HoldRequest {
	return quota.HoldRequest{
		Lease: l.ID, Identity: l.Payer.Key(), Tier: l.Tier, Space: l.Space, Via: l.Payer.Via, Task: l.Function,
		Declared: l.Declared, Factor: l.factor(), Now: l.Admitted,
	}
}

// ask makes the checks of admit, and writes nothing.
func (s *store) ask(ctx context.Context, l *Lease, queueTimeout time.Duration) error {
	if trouble := s.trouble(); trouble != nil {
		return trouble
	}
	tx, err := s.reads.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("ask about a lease: %w", err)
	}
	defer tx.Rollback()
	request := l.request()
	if request.Pending, err = s.pending(ctx, tx, l.Payer.Key(), queueTimeout); err != nil {
		return err
	}
	return s.ledger.Ask(ctx, tx, request)
}
