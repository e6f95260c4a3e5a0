package egress

import (
	"errors"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	maxPacket = 4096 // bytes of a query by UDP; a longer one is cut and so malformed
	plainUDP  = 512  // bytes of an answer by UDP without EDNS (RFC 1035)
	ednsUDP   = 1232 // bytes of an answer by UDP with EDNS, which pass every network unfragmented
)

// query is a parsed packet.
type query struct {
	header   dnsmessage.Header
	question dnsmessage.Question // the zero value if rcode is FORMERR or NOTIMP
	rcode    dnsmessage.RCode    // an error that decides the answer
	edns     bool
	udpSize  int // bytes that the client accepts by UDP
}

// parseQuery returns false for a packet that gets no answer: malformed, or itself an answer.
func parseQuery(packet []byte) (q query, ok bool) {
	var parser dnsmessage.Parser
	header, err := parser.Start(packet)
	if err != nil || header.Response {
		return q, false
	}
	q = query{header: header, udpSize: plainUDP}
	if header.OpCode != 0 {
		q.rcode = dnsmessage.RCodeNotImplemented
		return q, true
	}
	questions, err := parser.AllQuestions()
	if err != nil {
		return q, false
	}
	if len(questions) != 1 {
		q.rcode = dnsmessage.RCodeFormatError
		return q, true
	}
	q.question = questions[0]
	if q.question.Class != dnsmessage.ClassINET {
		q.rcode = dnsmessage.RCodeRefused
	}
	return q, parser.SkipAllAnswers() == nil && parser.SkipAllAuthorities() == nil && q.readEDNS(&parser)
}

// readEDNS looks for the OPT record (RFC 6891). It returns false if a record is malformed.
func (q *query) readEDNS(parser *dnsmessage.Parser) bool {
	for {
		header, err := parser.AdditionalHeader()
		if err != nil {
			return errors.Is(err, dnsmessage.ErrSectionDone)
		}
		if header.Type == dnsmessage.TypeOPT {
			q.edns = true
			q.udpSize = min(max(int(header.Class), plainUDP), ednsUDP)
		}
		if err := parser.SkipAdditional(); err != nil {
			return false
		}
	}
}

// reply returns the packed answer, or nil if it cannot be packed. An answer by UDP that is too long is sent without
// records and with the TC bit, so that the client asks again by TCP.
func (q query) reply(rcode dnsmessage.RCode, addrs []netip.Addr, stream bool) []byte {
	header := dnsmessage.Header{
		ID: q.header.ID, Response: true, OpCode: q.header.OpCode, RecursionDesired: q.header.RecursionDesired,
		RecursionAvailable: true, RCode: rcode,
	}
	packed := q.pack(header, addrs)
	if !stream && len(packed) > q.udpSize {
		header.Truncated = true
		packed = q.pack(header, nil)
	}
	return packed
}

func (q query) pack(header dnsmessage.Header, addrs []netip.Addr) []byte {
	message := dnsmessage.Message{Header: header}
	if q.question.Name.Length > 0 {
		message.Questions = []dnsmessage.Question{q.question}
	}
	for _, a := range addrs {
		record := dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: uint32(answerTTL.Seconds())}
		message.Answers = append(message.Answers, dnsmessage.Resource{Header: record, Body: &dnsmessage.AResource{A: a.As4()}})
	}
	if q.edns {
		var record dnsmessage.ResourceHeader
		if err := record.SetEDNS0(ednsUDP, header.RCode, false); err != nil {
			return nil
		}
		message.Additionals = []dnsmessage.Resource{{Header: record, Body: &dnsmessage.OPTResource{}}}
	}
	packed, err := message.Pack()
	if err != nil {
		return nil
	}
	return packed
}
