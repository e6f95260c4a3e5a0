// Package lease joins seconds to devices: hold, wait, grant, watch the deadline, settle.
//
// A Lease is the right to a Slot until a deadline. Its states:
//
//	Schedule -> waiting --- visitor left, cancelled, Space died, waited too long -> returned whole
//	               |
//	            granted --- not allowed within 30 s (unclaimed), cancelled, Space died -> returned whole
//	               |
//	  /allow -> active ---- /release, worker died ----------------> released
//	               |------- cancelled, Space died -----------------> revoked
//	               '------- deadline + grace: the worker is killed -> expired
//
// Who waits goes by turn: the higher tier first, inside a tier who has more quota left and declares less, and all gain the
// same by waiting (order.go). The bound: nobody goes before one who came half the queue timeout earlier (30 s of 60), if
// both may have the same place. A Lease for a whole Device of several Slots gets one reserved; others pass it only where
// they leave in time (place.go). One who waits for others of their Space, or of their own, to end stops nobody, and is
// passed until then. What each may expect is forecast from what all have declared (forecast.go).
//
// A worker whose Lease was released well stays on its Slot for a while, and is lent with it to the next Lease of
// the same Task of the same start of the Space (warm.go). It makes no second /allow: that Lease goes from granted
// to active by itself. One that comes while its worker idles is admitted and active in one transaction.
//
// From admission to its end a Lease holds its declared seconds in the ledger; at its end it is settled once:
// charged from /allow to its end or deadline, whichever came first, the rest returned. The clock starts at
// /allow, so neither the wait nor fork and imports are paid, nor the idling of a worker, nor what ran on a Device whose
// hardware failed meanwhile (health.go).
//
// The database is authoritative for money: a Lease is in it before it waits, its /allow before the worker goes
// on, its end before /release is answered. The line in memory is authoritative for Slots. A Slot returns when
// the worker and what it started are gone and the Device's memory is free, or as it is to that worker's next Lease.
package lease
