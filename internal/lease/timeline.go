package lease

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"spacehost/quota"
)

// Timeline is what the Slots were used for between two times, from the ended Leases in the database. It belongs to the Leases that
// ended in the period, so adjacent periods share no bar. All times are milliseconds after From.
type Timeline struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// StepSeconds is the level of detail: calls of a Slot that lie within one step are one bar. 0: each call is a bar.
	StepSeconds float64      `json:"stepSeconds"`
	Ends        []EndKind    `json:"ends"`            // of Bars.End
	Nodes       []string     `json:"nodes,omitempty"` // of Bars.Node
	Spaces      []string     `json:"spaces"`          // of Bars.Space
	Functions   []string     `json:"functions"`       // of Bars.Function
	Identities  []string     `json:"identities"`      // of Bars.Identity
	Reasons     []string     `json:"reasons"`         // of Bars.Reason
	Bars        TimelineBars `json:"bars"`
	Missed      MissedCalls  `json:"missed"`
}

// TimelineBars are columns of equal length, ordered by Node, Slot and Start. A week of 100,000 calls is then 200 kB of JSON, of which
// compression leaves a quarter. With steps, Lease is "", and Idle and the columns that name one call are -1.
type TimelineBars struct {
	Node     []int    `json:"node,omitempty"` // of Nodes; absent: all are of the host's own machine, which is "" among Nodes
	Slot     []int    `json:"slot"`           // its number on the machine
	Start    []int64  `json:"start"`          // of the first grant
	Length   []int64  `json:"length"`         // from Start to the last end
	Busy     []int64  `json:"busy"`           // the sum of the calls' times on the Slot
	Idle     []int64  `json:"idle"`           // of one call: from the grant to the start of its clock; -1: the clock never ran
	Declared []int64  `json:"declared"`       // the sum of the declared times
	Charged  []int64  `json:"charged"`
	Calls    []int    `json:"calls"`
	Killed   []int    `json:"killed"` // calls that the host or an operator ended
	End      []int    `json:"end"`    // the most severe end
	Whole    []int    `json:"whole"`  // 1: all Slots of the Device
	Lease    []string `json:"lease"`
	Space    []int    `json:"space"`
	Function []int    `json:"function"`
	Identity []int    `json:"identity"`
	Reason   []int    `json:"reason"`
}

// MissedKind is why calls got no GPU.
type MissedKind string

// The kinds of missed calls.
const (
	MissedTimeout MissedKind = "timeout" // they waited until the queue timeout
	MissedRefused MissedKind = "refused" // the quota refused them; their time is that of the minute
)

// MissedCalls are the calls that got no GPU, as columns: first those of one kind, then those of the other, each ordered by time.
type MissedCalls struct {
	At    []int64      `json:"at"` // of the first of them
	Calls []int        `json:"calls"`
	Kind  []MissedKind `json:"kind"`
}

// AddMissed adds calls that got no GPU.
func (t *Timeline) AddMissed(kind MissedKind, at time.Time, calls int) {
	m := &t.Missed
	m.At, m.Calls, m.Kind = append(m.At, at.Sub(t.From).Milliseconds()), append(m.Calls, calls), append(m.Kind, kind)
}

// severity orders the kinds of ends: a bar of several calls is drawn as the most severe.
var severity = map[EndKind]int{EndReleased: 0, EndCancelled: 1, EndUnclaimed: 2, EndFailed: 3, EndDrain: 4, EndOperator: 5, EndDeadline: 6, EndCrash: 7}

// isKill reports whether the call was ended against its will.
func (k EndKind) isKill() bool {
	return k == EndDeadline || k == EndOperator || k == EndDrain || k == EndCrash
}

// Bounds of a Timeline: its periods in one step, and its bars.
const (
	mostSteps = 10_000
	mostBars  = 200_000
	rawPeriod = 6 * time.Hour // the longest period in which each call is a bar
)

// TimelineSizeError refuses a Timeline whose answer would be too long.
type TimelineSizeError struct{ Span, Step time.Duration }

func (e *TimelineSizeError) Error() string {
	return fmt.Sprintf("a timeline of %s in steps of %s is too long; ask for a shorter period or steps of at least %s", e.Span, e.Step, max(time.Second, e.Span/mostSteps+time.Millisecond).Round(time.Millisecond))
}

// AutomaticStep chooses the level of detail of a Timeline: each call, or for a long period 2,000 steps.
const AutomaticStep = time.Duration(-1)

// Timeline returns what the Slots were used for, at a level of detail. It reads the database. Errors: *TimelineSizeError.
func (b *Broker) Timeline(ctx context.Context, from, to time.Time, step time.Duration) (*Timeline, error) {
	period := to.Sub(from)
	if step == AutomaticStep {
		step = 0
		if period > rawPeriod {
			step = period / 2000
		}
	}
	if step < time.Millisecond && period > rawPeriod || step >= time.Millisecond && period/step > mostSteps {
		return nil, &TimelineSizeError{period, step}
	}
	return b.store.timeline(ctx, from, to, max(1, step.Milliseconds()))
}

func (s *store) timeline(ctx context.Context, from, to time.Time, step int64) (t *Timeline, err error) {
	builder := newTimelineBuilder(from, to, step)
	if step > 1 {
		if err = s.countCalls(ctx, builder, from, to, step); err == nil {
			err = s.countEnds(ctx, builder, from, to, step)
		}
	} else {
		err = s.listCalls(ctx, builder, from, to)
	}
	if err != nil {
		return nil, fmt.Errorf("read timeline: %w", err)
	}
	t = builder.finish()
	if err := s.addMissed(ctx, t, step); err != nil {
		return nil, fmt.Errorf("read timeline: %w", err)
	}
	return t, nil
}

const timelinePeriod = ` WHERE l.ended_at >= ?1 AND l.ended_at < ?2 AND l.slot IS NOT NULL AND l.granted_at IS NOT NULL `

// listCalls reads each call. The name of its function is in the ledger: the column task is the id that the spaces package sends.
func (s *store) listCalls(ctx context.Context, t *timelineBuilder, from, to time.Time) error {
	rows, err := s.reads.QueryContext(ctx, `SELECT l.machine, l.slot, l.size = 'xlarge', l.state, coalesce(l.reason, ''), l.granted_at, l.ended_at, l.declared_ms, l.charged_ms,
			l.active_at, substr(l.id, 1, 8), l.space, l.identity, coalesce(h.task, '')
		FROM leases l LEFT JOIN ledger h ON h.lease_id = l.id AND h.kind = 'hold'`+timelinePeriod+`ORDER BY l.ended_at LIMIT ?3`, from.UnixMilli(), to.UnixMilli(), mostBars)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		c := timelineCell{calls: 1}
		var state State
		err := rows.Scan(&c.machine, &c.slot, &c.whole, &state, &c.reason, &c.start, &c.end, &c.declared, &c.charged, &c.active, &c.lease, &c.space, &c.identity, &c.function)
		if err != nil {
			return err
		}
		c.busy = c.end - c.start
		c.note(EndOf(state, c.reason), 1)
		t.cells = append(t.cells, &c)
	}
	return rows.Err()
}

// countCalls lets the database count the calls of each cell: of one Slot, from one step to one step. It compares numbers only, which
// the texts of countEnds would double.
func (s *store) countCalls(ctx context.Context, t *timelineBuilder, from, to time.Time, step int64) error {
	rows, err := s.reads.QueryContext(ctx, `SELECT l.machine, l.slot, l.granted_at / ?3, l.ended_at / ?3, l.size = 'xlarge', min(l.granted_at), max(l.ended_at), count(*),
			sum(l.ended_at - l.granted_at), sum(l.declared_ms), sum(l.charged_ms)
		FROM leases l`+timelinePeriod+`GROUP BY 1, 2, 3, 4, 5 LIMIT ?4`, from.UnixMilli(), to.UnixMilli(), step, mostBars)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		c := timelineCell{kind: EndReleased}
		var at cellKey
		if err := rows.Scan(&at.machine, &at.slot, &at.first, &at.last, &at.whole, &c.start, &c.end, &c.calls, &c.busy, &c.declared, &c.charged); err != nil {
			return err
		}
		c.machine, c.slot, c.whole = at.machine, at.slot, at.whole
		t.cells, t.byKey[at] = append(t.cells, &c), &c
	}
	return rows.Err()
}

// countEnds adds the ends that were no release: they are few.
func (s *store) countEnds(ctx context.Context, t *timelineBuilder, from, to time.Time, step int64) error {
	rows, err := s.reads.QueryContext(ctx, `SELECT l.machine, l.slot, l.granted_at / ?3, l.ended_at / ?3, l.size = 'xlarge', l.state, coalesce(l.reason, ''), count(*)
		FROM leases l`+timelinePeriod+`AND NOT (l.state = ?4 AND l.reason = ?5) GROUP BY 1, 2, 3, 4, 5, 6, 7`, from.UnixMilli(), to.UnixMilli(), step, Released, quota.ReasonReleased)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var at cellKey
		var state State
		var reason string
		var calls int
		if err := rows.Scan(&at.machine, &at.slot, &at.first, &at.last, &at.whole, &state, &reason, &calls); err != nil {
			return err
		}
		if c := t.byKey[at]; c != nil { // otherwise it ended after countCalls
			c.note(EndOf(state, reason), calls)
		}
	}
	return rows.Err()
}

func (s *store) addMissed(ctx context.Context, t *Timeline, step int64) error {
	rows, err := s.reads.QueryContext(ctx, `SELECT min(ended_at), count(*) FROM leases WHERE ended_at >= ?2 AND ended_at < ?3 AND state = ?4
		GROUP BY ended_at / ?1 ORDER BY 1`, step, t.From.UnixMilli(), t.To.UnixMilli(), TimedOut)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var at int64
		var calls int
		if err := rows.Scan(&at, &calls); err != nil {
			return err
		}
		t.AddMissed(MissedTimeout, time.UnixMilli(at), calls)
	}
	return rows.Err()
}

// cellKey is a Slot and the steps in which a call began and ended.
type cellKey struct {
	machine     string
	slot        int
	first, last int64
	whole       bool
}

// timelineCell is one bar.
type timelineCell struct {
	machine                 string
	slot, calls, killed     int
	whole                   bool
	start, end              int64 // in unix milliseconds
	busy, declared, charged int64
	kind                    EndKind
	// Of one call:
	active                                   sql.NullInt64
	lease, space, function, identity, reason string
}

// note adds calls that ended like this.
func (c *timelineCell) note(kind EndKind, calls int) {
	if c.kind == "" || severity[kind] > severity[c.kind] {
		c.kind = kind
	}
	if kind.isKill() {
		c.killed += calls
	}
}

type timelineBuilder struct {
	timeline *Timeline
	cells    []*timelineCell
	byKey    map[cellKey]*timelineCell
}

func newTimelineBuilder(from, to time.Time, step int64) *timelineBuilder {
	t := &Timeline{From: from.UTC(), To: to.UTC(), Ends: EndKinds, Missed: MissedCalls{At: []int64{}, Calls: []int{}, Kind: []MissedKind{}}}
	if step > 1 {
		t.StepSeconds = float64(step) / 1000
	}
	return &timelineBuilder{timeline: t, byKey: map[cellKey]*timelineCell{}}
}

// finish writes the columns.
func (t *timelineBuilder) finish() *Timeline {
	var nodes, spaces, functions, identities, reasons names
	hasNodes := slices.ContainsFunc(t.cells, func(c *timelineCell) bool { return c.machine != "" })
	b, from := newTimelineBars(len(t.cells)), t.timeline.From.UnixMilli()
	slices.SortStableFunc(t.cells, func(a, b *timelineCell) int {
		return cmp.Or(cmp.Compare(a.machine, b.machine), a.slot-b.slot, cmp.Compare(a.start, b.start))
	})
	for _, c := range t.cells {
		if hasNodes {
			b.Node = append(b.Node, nodes.at(c.machine))
		}
		b.Slot, b.Start, b.Length = append(b.Slot, c.slot), append(b.Start, c.start-from), append(b.Length, c.end-c.start)
		b.Busy, b.Declared, b.Charged = append(b.Busy, c.busy), append(b.Declared, c.declared), append(b.Charged, c.charged)
		b.Calls, b.Killed, b.End = append(b.Calls, c.calls), append(b.Killed, c.killed), append(b.End, slices.Index(EndKinds, c.kind))
		whole, idle := 0, int64(-1)
		if c.whole {
			whole = 1
		}
		if c.active.Valid {
			idle = c.active.Int64 - c.start
		}
		b.Whole, b.Idle = append(b.Whole, whole), append(b.Idle, idle)
		if c.lease == "" {
			b.Lease, b.Space, b.Function, b.Identity, b.Reason = append(b.Lease, ""), append(b.Space, -1), append(b.Function, -1), append(b.Identity, -1), append(b.Reason, -1)
			continue
		}
		b.Lease, b.Space, b.Function = append(b.Lease, c.lease), append(b.Space, spaces.at(c.space)), append(b.Function, functions.at(c.function))
		b.Identity, b.Reason = append(b.Identity, identities.at(c.identity)), append(b.Reason, reasons.at(c.reason))
	}
	t.timeline.Bars = b
	t.timeline.Nodes = nodes.all
	t.timeline.Spaces, t.timeline.Functions, t.timeline.Identities, t.timeline.Reasons = spaces.list(), functions.list(), identities.list(), reasons.list()
	return t.timeline
}

func newTimelineBars(n int) TimelineBars {
	ints, times, words := func() []int { return make([]int, 0, n) }, func() []int64 { return make([]int64, 0, n) }, make([]string, 0, n)
	return TimelineBars{Slot: ints(), Start: times(), Length: times(), Busy: times(), Idle: times(), Declared: times(), Charged: times(), Calls: ints(),
		Killed: ints(), End: ints(), Whole: ints(), Lease: words, Space: ints(), Function: ints(), Identity: ints(), Reason: ints()}
}

// names numbers texts in the order of their first use.
type names struct {
	all     []string
	numbers map[string]int
}

func (n *names) at(text string) int {
	if i, known := n.numbers[text]; known {
		return i
	}
	if n.numbers == nil {
		n.numbers = map[string]int{}
	}
	n.numbers[text] = len(n.all)
	n.all = append(n.all, text)
	return len(n.all) - 1
}

// list is never nil, so that it is a list in JSON.
func (n *names) list() []string { return append([]string{}, n.all...) }
