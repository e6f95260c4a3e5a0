// Package link connects a front with the agents of its nodes.
//
// # Terms
//
// The front is the host that visitors reach. A node is another machine, and the agent is the program there. A link is what connects
// the two: one control connection for messages, and one connection for each stream of bytes. A spare is a connection that the
// agent keeps ready, so that the front can open a stream although only the agent dials.
//
// # Types and callers
//
// The front runs a Server, with the Authority that signs the certificates of its nodes. A node calls Join once, with a token, and then
// Dialer.Dial. Both ends have a Link, and answer the other end through a Handler.
//
// # Connections
//
// All connections are TLS 1.3 to one port of the front, and both ends have certificates of the cluster's Authority. A connection begins
// with one JSON line of the agent that states its kind, and one JSON line of the front that accepts or refuses it.
//
//   - control: messages both ways, each with its length, in order. A call has a number and an answer.
//   - stream: the agent opens a stream.
//   - spare: the front opens a stream by writing a second line, at any time.
//
// The join protocol has an ALPN name of its own, and is the only one without a certificate of the agent.
//
// # States
//
//	Dial --> alive <--3 s without a message, or a message--> suspect
//	           |                                                |
//	           +---- Close, Revoke, a newer link of the node ---+---- 15 s without a message
//	           v                                                v
//	          down                                            down (ErrLost)
//
// Both ends send a beat each second. A link that is down closes all its connections, and never comes back: the agent dials again.
// What one end must know of the other is therefore in the hello and the welcome, and nothing is replayed.
//
// # Limits
//
// A peer cannot make the other end use much memory or time: opening lines have 64 kB at most, messages 1 MB, a node 256 connections and
// 5,000 messages a second, and handshakes of addresses without a link are limited to 10 a second.
//
// # Failures
//
// Calls, Tell and Open fail with ErrDown when the link is down, and Link.Err returns the cause. A peer that does not read for 15 s is
// lost. A peer that reads too slowly is disconnected when 16 MB of messages wait for it.
package link
