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
// From admission to its end a Lease holds its declared seconds in the ledger; at its end it is settled once:
// charged from /allow to its end or deadline, whichever came first, the rest returned. The clock starts at
// /allow, so neither the wait nor fork and imports are paid.
//
// The database is authoritative for money: a Lease is in it before it waits, its /allow before the worker goes
// on, its end before /release is answered. The line in memory is authoritative for Slots. A Slot returns when
// the worker and what it started are gone and the Device's memory is free.
package lease
