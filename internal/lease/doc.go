// Package lease lends GPU slots for a declared time: it takes the hold, orders the waiting calls, grants a Slot, enforces the
// deadline and settles the charge.
//
// # Terms
//
//   - A Lease is the right to a Slot until a deadline. It belongs to one Space and one payer.
//   - A machine is a computer with Devices: the host's own, or one that has joined (Machine, Broker.Join). (The device nodes of
//     nodes.go are files in /dev of one machine.)
//   - A Slot is a share of a Device (package gpu). A large Lease takes one Slot, an xlarge Lease all Slots of a Device.
//   - The hold is the declared seconds, times the size factor. The ledger (package quota) keeps it until the Lease is settled.
//   - A worker is the process that uses the Slot. An idle worker stays on its Slot after a successful call; the next Lease
//     of the same Task and the same start of the Space reuses it (a warm Lease). While it is idle, it is frozen, if Processes
//     can do so (freeze.go).
//   - A beat is the stored progress of a Lease's clock, written every 2 s. It limits the charge after a crash of the host.
//   - An agent is a process on the host's own machine that outlasts the host, with the processes of the Spaces (Kept). Adoption is the
//     takeover of an active Lease that an earlier host has left there.
//   - A warm start commits admission and activation in one transaction, because the worker is idle when the request arrives.
//
// # Types
//
// Broker is the entry point. Package deviceapi calls Schedule, Ticket.Wait, Allow and Release for a Space; queue reports
// visitors with Left and Cancelled; internal/host reports starts of Spaces with Started and Gone; control and views read List, Slots, Past and Watch.
// The scheduler decides for one machine. It is single-threaded code without I/O; Broker runs all schedulers on one goroutine and
// implements their effects with a Machine. Local is the host's own machine: a gpu.Pool, Processes, and the Guard of its agent.
// The store writes the tables leases, runners and drains. The writer below it batches transactions (group commit).
//
// # Order of waiting leases
//
// Waiting leases are ordered by tier, then by remaining quota and declared duration. Priority rises with waiting time
// (priority.go). No lease overtakes another that was admitted half the queue timeout earlier (30 s of 60 s), if both may use the
// same Slots. An xlarge Lease on shared Devices gets a reservation; others use its Device only if they end in time
// (backfill, allocation.go). A lease that is blocked by a concurrency limit is skipped until the limit allows it. Forecasts
// are computed from the declared durations (forecast.go).
//
// A worker is a fork of its Space's process, so a Lease gets a Slot of the machine on which that process runs (Request.Machine), and
// each machine has an order of its own. The concurrency limits count over all machines (schedulers.go).
//
// # Lease states
//
//	       Schedule ---> refused (no row, no hold)
//	          |
//	          v
//	       waiting ---> timed out | withdrawn
//	       |     ^
//	       v     | the warm Slot was not clear
//	       granted ---> unclaimed | released | revoked
//	       |     ^
//	       v     | the warm worker exited in its first second
//	+----> active ----> released | expired | revoked | unclaimed
//	|         |
//	+---------+ /allow of another worker in place of the warm one
//
// Every edge, its trigger (with the recorded reason) and the charge. The rest of the hold is returned.
//
//	from     to         trigger                                                           charged
//	-        refused    quota, illegal duration, full disk, database cannot be written    nothing
//	-        waiting    Schedule: hold and row are committed                              hold taken
//	-        active     warm start; published as waiting, granted, active                 hold taken
//	-        granted    warm start; its worker exited during the commit                   hold taken
//	-        revoked    warm start; "cancelled" or "space died" during the commit         0
//	-        withdrawn  the host stopped during Schedule ("host stopped")                 0
//	-        withdrawn  warm start taken back, the Slot was not clear or the worker       0
//	                    stays frozen ("warm worker cannot go on"); a new Lease is
//	                    admitted in its place
//	waiting  granted    the Slot was checked and is clear, or an idle worker fits         -
//	waiting  timed out  queue timeout ("no GPU within 1m0s")                              0
//	waiting  withdrawn  "visitor left", "cancelled", "space died", "connection lost",     0
//	                    "host stopped"
//	granted  active     /allow is committed; the clock starts                             -
//	granted  active     warm Lease: its activation is committed; the clock starts         -
//	granted  granted    warm Lease: its worker exited during that commit; its client      -
//	                    forks another, which makes an /allow
//	granted  waiting    warm Lease: its Slot is not clear, or its worker stays frozen;    -
//	                    it keeps its rank
//	granted  released   /release before /allow ("released", "failed")                     0
//	granted  revoked    "cancelled", "space died", "host stopped"; of a generator that     0
//	                    is being closed, "cancelled" 10 s after the cancellation
//	granted  unclaimed  no /allow within 30 s ("never allowed"), "connection lost",       0
//	                    activation of a warm Lease not written ("not written down")
//	active   active     /allow of another worker: the client found the warm one unfit     clock goes on
//	active   granted    the warm worker exited within 1 s of the grant                    clock is reset
//	active   released   /release ("released", "failed"), the worker exited                used
//	                    ("worker died")
//	active   expired    deadline + 2 s: the worker is killed ("deadline")                 declared
//	active   revoked    "cancelled", "space died", "host stopped"; of a generator that     used
//	                    is being closed, "cancelled" 10 s after the cancellation
//	active   unclaimed  warm Lease: "connection lost" before the worker got the call      0
//
// Edges of a machine that is lost, joins again or leaves (reach.go):
//
//	waiting      withdrawn    "machine lost", "machine has left"                               0
//	granted      revoked      "machine lost"                                                   0
//	active       unreachable  the machine is lost; the hold stays                              -
//	unreachable  active       the machine joins, and its worker runs                           clock goes on
//	unreachable  released     the machine joins, and has ended it; the state and the reason    what the machine
//	              expired      are those that it reports                                        counted, or to the
//	              revoked                                                                       last beat
//	unreachable  revoked      not in the report of the machine ("machine has no record")       to the last beat
//	unreachable  revoked      adopted after a crash, without its Device ("device has left")    to the last beat
//	unreachable  revoked      deadline + 7 s, or the machine leaves ("machine lost")           to the last beat
//	unreachable  revoked      "cancelled", "space died" and the other ends by the host         to the last beat
//
// "Used" is the time from /allow to the end or the deadline, whichever is earlier, times the size factor, rounded up to the
// millisecond and never above the hold. The wait, fork, imports and the idle time of a worker are never charged. A Lease whose
// Device reported a hardware error is charged 0 (health.go).
//
// A Lease counts as a run of its payer (quota.Runs) from its activation on, whatever becomes of the call. The activation writes
// it, and the settlement adds a grant that was never activated. A Lease that ended while it waited, or with an
// undelivered grant ("connection lost", "not written down", a warm start that is taken back), counts as none.
//
// After a crash of the host, Recover settles every open row of the own machine once. An active Lease becomes revoked ("host crashed"), charged from
// /allow to its last beat or its deadline, whichever is earlier. Any other becomes withdrawn ("host crashed"), charged 0 and no
// run: the database does not distinguish waiting from granted. An active Lease of another machine becomes unreachable.
//
// An active Lease of an instance that an agent has kept is adopted by Recover, by the edges of a machine that joins. It goes on, on the
// Slot, with the deadline and the charge that it had; or it ends as the agent has ended it; or it was not in the agent's report, and
// ends as "machine has no record". It is charged once, to its true end or to its last beat. All other workers of kept instances are ended, so no
// worker is on a Device that the scheduler does not know. The next call of their Task gets a grant with a new worker. At the end
// of a host that keeps its Spaces (Keep), the active Leases stay open and all others end as at any end of the host.
//
// The Guard has the worker and the deadline of each active Lease before its client has an answer, and forgets the Lease when it is no
// longer active. While no host runs, the agent ends the worker at its deadline + 2 s.
//
// # Slot phases
//
//	from        to          trigger
//	free        checking    a waiting Lease may use it; gpu.Pool checks the Device
//	free        busy        a process without a Lease was seen on the Device
//	free        drained     the Device is drained
//	checking    held        the Device is clear: granted to the first eligible Lease
//	checking    free        the Device is clear, but no waiting Lease may use the Slot
//	checking    drained     the Device was drained during the check
//	checking    busy        the Device is not clear, or cannot be read
//	held        warm        /release of a successful call, where idle workers are kept
//	held        warm        a warm start was refused; its worker stays idle
//	held        reclaiming  any other end of its Lease; a warm worker that cannot be reused
//	warm        held        a Lease of the same Task and start of the Space
//	warm        reclaiming  eviction: idle for too long, Slot needed, Space ended, Device drained, worker exited, host stops
//	reclaiming  free        the worker is gone, its Lease is settled, the Device is clear
//	reclaiming  drained     the same, on a drained Device
//	reclaiming  busy        the worker survived SIGKILL, or memory is still in use after 10 s
//	any         busy        the machine is lost: free, drained and warm Slots at once, the others when their Lease has ended
//	busy        checking    recheck after 1 s, of a lost machine once it joins
//	busy        reclaiming  the same, if the last worker could not be ended: it is signalled again
//	drained     free        the Device is returned, or the window of its drain has ended
//
// The Slots of a Device that has left its machine are drained, and removed once nothing is on them.
//
// # Failure handling
//
// The database is authoritative for money. A Lease is committed before it waits, its /allow before the worker continues, its end
// before /release is answered. The scheduler's memory is authoritative for Slots. If the database refuses an admission, the
// caller gets a *StorageError and nothing is held. If it refuses a settlement, the settlement is retried every second, the hold
// stays, and the Slot is not lent. A Slot is lent again only after the worker and its descendants are gone and the Device's
// memory is free, or together with its idle worker. Its own machine checks that: the Slots of a lost machine are not lent.
package lease
