// Package machine lets the broker of a front use the Devices and processes of a node.
//
// # Terms
//
// A node is another machine. A link connects its agent with the front (package link).
//
// # Types and callers
//
// The agent has a Node, which answers the front by a lease.Local. The front has a Fleet, which package host creates. For each node that
// connects, it makes a Remote: the lease.Machine that the broker uses.
//
// # Messages
//
// The hello of a node describes its Devices and its leases. The front calls a method of lease.Machine by an operation of the same
// name, one round trip each. Methods that must not block are one-way messages, or send a call and return a function that waits for its answer
// (Resume, BeginArm). The node reports exits, errors of Devices and changed
// Devices with one-way messages of its own. Errors keep their types (errors.go).
//
// # States
//
//	            hello                  beats are late, or the link is down
//	(unknown) ---------> connected <---------------------------------------> suspect --- 15 s without a beat ---> lost
//	                         ^                beats come again                  |                                   |
//	                         '------------------------------- hello ------------'-----------------------------------'
//
// The broker follows: Join, Suspect, Reachable, Lost. After a link that was down, the broker loses the machine before it joins again,
// also within the 15 s: messages to the node may not have arrived, and the report in the hello decides about its leases.
//
// # Failures
//
// A call fails with lease.ErrUnreachable when the link is down. Remote.Wait and Remote.Watch last longer than a link: the node is asked
// again when it is back. The agent ends workers that overstay by its own clock, 2 s after their deadline (package guard), and
// reports them in the next hello. An agent that has started anew has no record of its leases: those that the front had armed are
// reported as ended at an unknown time.
package machine
