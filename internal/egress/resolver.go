package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	maxLookups        = 64              // packets that are answered at a time
	maxDNSConnections = 32              // TCP connections to the resolver
	maxAddresses      = 32              // addresses of one answer
	lookupTimeout     = 5 * time.Second // the C library waits as long
	streamTimeout     = 10 * time.Second
	// answerTTL is the validity of an answer. The host's resolver does not report the time of the name's own server.
	answerTTL = time.Minute
	// latency is added to answerTTL for the memory: a client counts from the arrival of the answer.
	latency = 5 * time.Second
)

// servePackets answers the packets of a UDP socket.
func (e *Egress) servePackets(p net.PacketConn) error {
	buffer := make([]byte, maxPacket)
	for pause := time.Duration(0); ; {
		n, from, err := p.ReadFrom(buffer)
		if err != nil {
			if pause, err = e.afterError(pause, err); err != nil {
				return fmt.Errorf("read lookups of the Space: %w", err)
			}
			if pause == 0 {
				return nil
			}
			continue
		}
		pause = 0
		if !e.takeLookup() {
			return nil
		}
		packet := append([]byte(nil), buffer[:n]...)
		e.wg.Go(func() {
			defer func() { <-e.lookups }()
			if reply := e.answer(packet, false); reply != nil {
				_, _ = p.WriteTo(reply, from) // the client repeats a query without an answer
			}
		})
	}
}

// takeLookup waits for a slot. It returns false after Close.
func (e *Egress) takeLookup() bool {
	select {
	case e.lookups <- struct{}{}:
		return true
	case <-e.ctx.Done():
		return false
	}
}

// serveStream answers the messages of one TCP connection, one after the other (RFC 1035, section 4.2.2).
func (e *Egress) serveStream(c *net.TCPConn) {
	var length [2]byte
	for {
		if err := c.SetDeadline(time.Now().Add(streamTimeout)); err != nil {
			return
		}
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		packet := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(c, packet); err != nil {
			return
		}
		if !e.takeLookup() {
			return
		}
		reply := e.answer(packet, true)
		<-e.lookups
		if reply == nil {
			return
		}
		framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)
		if _, err := c.Write(framed); err != nil {
			return
		}
	}
}

// answer returns the reply to a packet; nil if there must be none.
func (e *Egress) answer(packet []byte, stream bool) []byte {
	q, ok := parseQuery(packet)
	if !ok {
		return nil
	}
	if q.rcode != dnsmessage.RCodeSuccess {
		return q.reply(q.rcode, nil, stream)
	}
	rcode, addrs := e.resolve(q)
	return q.reply(rcode, addrs, stream)
}

// resolve applies the Policy to a query and asks the host's resolver. The rules, in order:
//
//  1. Names without a dot and malformed names: NXDOMAIN, without a lookup.
//  2. ModeNone and names that are not listed: REFUSED.
//  3. Types other than A: no records. There is no egress by IPv6.
//  4. A: the addresses that the Policy allows; NXDOMAIN if there is none.
func (e *Egress) resolve(q query) (dnsmessage.RCode, []netip.Addr) {
	name, valid := hostName(q.question.Name.String())
	if !valid { // 1
		return dnsmessage.RCodeNameError, nil
	}
	if err := e.policy.AllowsName(name); err != nil { // 2
		e.refuse(err)
		return dnsmessage.RCodeRefused, nil
	}
	if q.question.Type != dnsmessage.TypeA { // 3
		return dnsmessage.RCodeSuccess, nil
	}
	e.counters.lookups.Add(1)
	ctx, cancel := context.WithTimeout(e.ctx, lookupTimeout)
	defer cancel()
	found, err := e.resolver.LookupNetIP(ctx, "ip4", name+".") // the final dot keeps the host's search list out
	if err != nil {
		var unknown *net.DNSError
		if errors.As(err, &unknown) && unknown.IsNotFound {
			return dnsmessage.RCodeNameError, nil
		}
		return dnsmessage.RCodeServerFailure, nil
	}
	allowed := e.allowed(name, found) // 4
	if len(allowed) == 0 {
		return dnsmessage.RCodeNameError, nil
	}
	return dnsmessage.RCodeSuccess, allowed
}

// allowed returns the addresses that the Policy allows, and remembers their name. If there is none, it records a refusal.
func (e *Egress) allowed(name string, found []netip.Addr) (allowed []netip.Addr) {
	var denied error
	for _, a := range found {
		a = a.Unmap()
		reason := e.policy.allowsAnswer(a, e.own.contains(a))
		switch {
		case reason != "":
			denied = &RefusedError{Destination: netip.AddrPortFrom(a, 0), Name: name, Reason: reason}
		case a.Is4() && len(allowed) < maxAddresses:
			allowed = append(allowed, a)
			e.names.remember(a, name, answerTTL+latency)
		}
	}
	if len(allowed) == 0 && denied != nil {
		e.refuse(denied)
	}
	return allowed
}
