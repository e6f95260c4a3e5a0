package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/lease"
	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

// rows are the rows of leases, ledger and drains.
func (f *front) rows() map[string]int {
	f.t.Helper()
	all := map[string]int{}
	for _, table := range []string{"leases", "ledger", "drains"} {
		rows, err := f.db.QueryContext(f.t.Context(), `SELECT * FROM `+table)
		if err != nil {
			f.t.Fatal(err)
		}
		columns, _ := rows.Columns()
		for rows.Next() {
			values := make([]any, len(columns))
			into := make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
				if columns[i] == "beat_at" {
					into[i] = new(any)
				}
			}
			if err := rows.Scan(into...); err != nil {
				f.t.Fatal(err)
			}
			all[table+fmt.Sprint(values)]++
		}
		if err := rows.Err(); err != nil {
			f.t.Fatal(err)
		}
	}
	return all
}

// dialAs connects a node of that name with a hello of its own making.
func (f *front) dialAs(name string, hello any) (*link.Link, error) {
	f.t.Helper()
	d := *f.dialer
	d.Identity, d.Handler = linktest.NewIdentity(f.t, f.server.CA, name), linktest.Handler{}
	l, _, err := d.Dial(f.t.Context(), hello)
	if err == nil {
		f.t.Cleanup(func() { l.Close(); l.Wait() })
	}
	return l, err
}

func ownDevices(uuid gpu.DeviceUUID) Devices {
	return Devices{Slots: []gpu.Slot{{Device: gpu.Device{UUID: uuid, Name: "L4", MemoryTotal: 24 << 30}}}}
}

// What gpu3 claims about a lease, a worker or a Device of gpu2 changes nothing.
func TestClaimsAboutAnotherNode(t *testing.T) {
	onNode(t, func(f *front, n *farNode) {
		g := f.active(n, 7, 5*time.Minute)
		w := n.guard.Report
		synctest.Wait()
		worker := w().Open[0].Worker
		evil := func(report lease.MachineReport) any {
			return Hello{Protocol: Protocol, Run: fmt.Sprint(len(report.Open), len(report.Ended)), Devices: ownDevices("GPU-evil"), Report: report}
		}
		ended := func(e lease.EndedLease) any { return evil(lease.MachineReport{Ended: []lease.EndedLease{e}}) }
		hellos := map[string]any{
			"lease of another node in open":  evil(lease.MachineReport{Open: []lease.OpenLease{{Lease: g.Lease, Worker: worker}}}),
			"lease of another node in ended": ended(lease.EndedLease{Lease: g.Lease, State: lease.Released, Used: time.Second}),
			"the same, without time":         ended(lease.EndedLease{Lease: g.Lease, State: lease.Revoked, Used: -1}),
			"a lease that does not exist":    ended(lease.EndedLease{Lease: "0000", State: lease.Expired, Used: math.MaxInt64}),
			"no ID":                          ended(lease.EndedLease{Used: math.MinInt64}),
		}
		tells := map[string]func(l *link.Link) error{
			"exit of a worker of another node": func(l *link.Link) error { return l.Tell(opExit, exit{Worker: worker}) },
			"its guard has ended it":           func(l *link.Link) error { return l.Tell(opExit, exit{worker, true}) },
			"Xid of a Device of another node":  func(l *link.Link) error { return l.Tell(opXid, xid{"GPU-fake-0", 79}) },
			"Xid of the front's Device":        func(l *link.Link) error { return l.Tell(opXid, xid{"GPU-own", 79}) },
			"Xid that is none":                 func(l *link.Link) error { return l.Tell(opXid, xid{"GPU-evil", math.MaxInt32}) },
			"Devices of another node":          func(l *link.Link) error { return l.Tell(opDevices, ownDevices("GPU-fake-1")) },
			"Devices of the front":             func(l *link.Link) error { return l.Tell(opDevices, ownDevices("GPU-own")) },
			"an operation of the front":        func(l *link.Link) error { return l.Tell(opArm, armRequest{g.Lease, worker, time.Hour}) },
		}
		before := f.rows()
		unharmed := func(what string) {
			f.t.Helper()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if got := f.rows(); !maps.Equal(got, before) {
				f.t.Errorf("%s: rows\n%v\nwant\n%v", what, got, before)
			}
			f.wantOpen(lease.Active)
			if f.server.Link("gpu2") == nil || !n.processes.Alive(7) {
				f.t.Errorf("%s: the other node is harmed", what)
			}
			for _, s := range f.Slots() {
				if s.Machine == "gpu3" && s.Device != "GPU-evil" || s.Phase == "drained" {
					f.t.Errorf("%s: slot %+v", what, s)
				}
			}
		}
		for what, hello := range hellos {
			l, err := f.dialAs("gpu3", hello)
			if err != nil {
				f.t.Fatalf("%s: %v", what, err)
			}
			unharmed(what)
			l.Close()
		}
		l, err := f.dialAs("gpu3", evil(lease.MachineReport{}))
		if err != nil {
			f.t.Fatal(err)
		}
		for what, tell := range tells {
			if err := tell(l); err != nil {
				f.t.Errorf("%s: %v", what, err)
			}
			unharmed(what)
		}
		if len(f.DriverErrors("GPU-evil"))+len(f.DriverErrors("GPU-fake-0")) != 0 {
			f.t.Error("errors of the driver are recorded")
		}
		if err := f.Release(f.t.Context(), "demo", g.Lease, false); err != nil {
			f.t.Fatal(err)
		}
		f.wantSettledOnce()
	})
}

// What a node claims about its own lease is charged between 0 and the time that has passed, and at most the declared time.
func TestClaimsAboutTheOwnLease(t *testing.T) {
	for _, row := range []struct {
		what string
		used string // JSON
		want time.Duration
	}{
		{"as it was", "10000000000", 10 * time.Second},
		{"nothing", "0", 0},
		{"more than has passed", "50000000000", 30 * time.Second}, // 10 s, 20 s of silence
		{"more than declared", "3600000000000", 30 * time.Second},
		{"the largest number", fmt.Sprint(int64(math.MaxInt64)), 30 * time.Second},
		{"below 0", "-1", 10 * time.Second}, // to the last beat
		{"the smallest number", fmt.Sprint(int64(math.MinInt64)), 10 * time.Second},
	} {
		t.Run(row.what, func(t *testing.T) {
			onNode(t, func(f *front, n *farNode) {
				g := f.active(n, 7, time.Minute)
				time.Sleep(10 * time.Second)
				f.proxy.Partition()
				time.Sleep(20 * time.Second)
				f.proxy.Heal()
				report := fmt.Sprintf(`{"Ended":[{"Lease":%q,"State":"released","Reason":"\u001b[31m\n%s","Used":%s}]}`, g.Lease, strings.Repeat("x", 10_000), row.used)
				hello, err := json.Marshal(map[string]any{"protocol": Protocol, "run": n.run, "slots": ownDevices("GPU-fake-0").Slots, "report": json.RawMessage(report)})
				if err != nil {
					f.t.Fatal(err)
				}
				if _, err := f.dialAs("gpu2", json.RawMessage(hello)); err != nil {
					f.t.Fatal(err)
				}
				synctest.Wait()
				all, err := f.Past(f.t.Context(), 1)
				if err != nil || len(all) != 1 {
					f.t.Fatal(all, err)
				}
				f.wantLast(lease.Released, all[0].Reason, row.want)
				if reason := all[0].Reason; len(reason) > 1000 || strings.ContainsAny(reason, "\x1b\n") {
					f.t.Errorf("the stored reason has %d bytes: %.40q", len(reason), reason)
				}
			})
		})
	}
}

// A hello with a report that no machine makes is refused, and nothing changes.
func TestReportsThatCannotBe(t *testing.T) {
	onNode(t, func(f *front, n *farNode) {
		many := make([]lease.EndedLease, maxSlots+1)
		for want, report := range map[string]string{
			"message of the other end":  `{"Ended":[{"Lease":"a","Used":1e300}]}`,
			"cannot unmarshal string":   `{"Ended":[{"Lease":"a","Used":"NaN"}]}`,
			"invalid character":         `{"Ended":[{"Lease":"a","Used":NaN}]}`,
			"number 1.5 into Go struct": `{"Ended":[{"Lease":"a","Used":1.5}]}`,
			"reports 1025 leases":       string(mustJSON(f.t, lease.MachineReport{Ended: many})),
			"at most 1024 are":          string(mustJSON(f.t, lease.MachineReport{Open: make([]lease.OpenLease, maxSlots+1)})),
		} {
			hello := fmt.Sprintf(`{"protocol":%d,"slots":[],"report":%s}`, Protocol, report)
			if _, err := f.Fleet.Hello(&link.Link{}, json.RawMessage(hello)); err == nil || !strings.Contains(err.Error(), want) {
				f.t.Errorf("error %v, want %q in it", err, want)
			}
		}
		if len(f.Nodes()) != 1 {
			f.t.Errorf("nodes %+v", f.Nodes())
		}
	})
}

func mustJSON(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A flood of messages that each cost the broker or the log something ends the link, and not the one of another node.
func TestFloodOfClaims(t *testing.T) {
	onNode(t, func(f *front, n *farNode) {
		devices := []Devices{ownDevices("GPU-a"), ownDevices("GPU-b")}
		for what, tell := range map[string]func(l *link.Link, i int) error{
			"Devices":    func(l *link.Link, i int) error { return l.Tell(opDevices, devices[i%2]) },
			"Xids":       func(l *link.Link, i int) error { return l.Tell(opXid, xid{"GPU-a", gpu.Xid(i)}) },
			"operations": func(l *link.Link, i int) error { return l.Tell("dance", i) },
		} {
			l, err := f.dialAs("gpu3", Hello{Protocol: Protocol, Devices: devices[0]})
			if err != nil {
				f.t.Fatal(err)
			}
			for i := range 1000 {
				_ = tell(l, i) // fails once the link is down
			}
			synctest.Wait()
			if !isDone(l) {
				f.t.Errorf("%s: the link is open", what)
			}
			if f.server.Link("gpu2") == nil {
				f.t.Errorf("%s: the link of the other node is down", what)
			}
			time.Sleep(time.Minute)
		}
		if _, _, err := f.connect(newFarNode(f.t, "gpu3", gputest.Devices(1)...).Node, "gpu3"); err == nil {
			f.t.Error("GPU-fake-0 is lent twice")
		}
		f.active(n, 7, time.Minute)
	})
}
