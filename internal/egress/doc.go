// Package egress connects a Space that has a network namespace of its own with the destinations that its policy allows.
//
// # Terms
//
//   - Egress is the traffic from a Space to other machines. A Policy decides about it.
//   - Reach is the list of private destinations that a Policy allows although they are not public.
//   - A destination is the address and port to which a process of the Space connects.
//   - An own address is an address of this machine's network interfaces.
//   - A refusal is a connection or a lookup that the Policy denies, with the reason.
//
// Inside the namespace every IPv4 address is local. A listener on 0.0.0.0 accepts connections to all addresses, and the
// local address of an accepted connection is its destination. There is no route for IPv6.
//
// # Types and callers
//
//   - Egress serves one start of one Space. Package internal/host creates it with New, passes it the listeners and the
//     UDP socket that were opened inside the namespace (ServeTCP, ServeDNS, ServeDNSTCP), and ends it with Close.
//   - Policy decides in one function, Policy.Allows. Policy.OpenPorts names the ports that need a listener.
//   - Lookup is the host's resolver. The Space's own resolver file names 127.0.0.1, where ServeDNS answers.
//   - Proxy is the HTTP proxy of the operator.
//   - RefusedError, Refusal and Stats report what happened. Their readers are the log, `space list` and the metrics.
//
// # States of a connection
//
//	           slot free, policy allows        connected              both directions ended
//	accepted --------------------------> dialling -------> relayed -------------------------> closed (FIN)
//	   |                                    |                 |
//	   | 256 open, or policy denies         | fails, Close    | read or write error, idle for 10 minutes, Close
//	   +------------------------------------+-----------------+-----------------------------> reset (RST)
//
// The end of one direction is passed on with a half-close, and the other direction continues. An error resets both
// ends, so a truncated download never looks complete.
//
// # Names
//
// The relay dials exactly the address to which the Space connected. It makes no second lookup, so a name that changes
// its addresses after the check (DNS rebinding) gains nothing. The resolver remembers the name of each address that it
// returned for as long as the answer is valid. A Policy with a list of names allows only such addresses.
//
// Other sites at the addresses of a listed name, for example on the same content delivery network, are allowed as well.
//
// A proxy receives the remembered name instead of the address, because its rules and its logs are about names. It
// resolves the name itself. The proxy must therefore refuse private addresses.
//
// # Answers of the resolver
//
//	A, public or reachable addresses exist      NOERROR with these addresses, valid for one minute
//	A, all addresses are private or unknown     NXDOMAIN
//	AAAA and other types                        NOERROR without records
//	name not in the list, or mode none          REFUSED
//	temporary error of the host's resolver      SERVFAIL
//	more or fewer questions than one            FORMERR
//	malformed packet                            no answer
//
// NXDOMAIN for private addresses has two reasons. A Space cannot find out which internal names exist. The C library
// treats it as final, while it retries after REFUSED and reports a temporary failure.
//
// # Failure handling
//
//   - No descriptor is free: the accept loop pauses up to one second and continues.
//   - A dial fails or takes more than 10 seconds: the connection is reset and logged once per destination and minute.
//   - The own addresses cannot be read: New fails. Later the last known addresses stay in force.
//   - More than 64 packets wait for the host's resolver: further ones stay in the socket's buffer.
//   - More refusals than the log takes: a later line has their number.
package egress
