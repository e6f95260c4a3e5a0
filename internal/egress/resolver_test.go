package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is a resolver with given answers. A name without an entry does not exist.
type zone struct {
	mu     sync.Mutex
	addrs  map[string][]netip.Addr
	errs   map[string]error
	asked  []string
	wait   chan struct{} // nil, or until when lookups take
	active atomic.Int64
}

func newZone(entries ...string) *zone {
	z := &zone{addrs: map[string][]netip.Addr{}, errs: map[string]error{}}
	for _, entry := range entries {
		name, addrs, _ := strings.Cut(entry, " ")
		z.set(name, strings.Fields(addrs)...)
	}
	return z
}

func (z *zone) set(name string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs[name+"."] = nil
	for _, a := range addrs {
		z.addrs[name+"."] = append(z.addrs[name+"."], netip.MustParseAddr(a))
	}
}

func (z *zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	z.active.Add(1)
	defer z.active.Add(-1)
	if z.wait != nil {
		select {
		case <-z.wait:
		case <-ctx.Done():
			return nil, &net.DNSError{Err: "timeout", Name: host, IsTimeout: true}
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, network+" "+host)
	if err := z.errs[host]; err != nil {
		return nil, err
	}
	if addrs, ok := z.addrs[host]; ok {
		return addrs, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func pack(t testing.TB, m dnsmessage.Message) []byte {
	t.Helper()
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func unpack(t testing.TB, packet []byte) dnsmessage.Message {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(packet); err != nil {
		t.Fatalf("reply %x: %v", packet, err)
	}
	return m
}

func question(name string, kind dnsmessage.Type) dnsmessage.Message {
	return dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
}

func withEDNS(m dnsmessage.Message, size int) dnsmessage.Message {
	var header dnsmessage.ResourceHeader
	_ = header.SetEDNS0(size, dnsmessage.RCodeSuccess, false)
	m.Additionals = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.OPTResource{}}}
	return m
}

// ask returns the response code and the addresses of the answer to a query by UDP.
func (n *network) ask(name string, kind dnsmessage.Type) string {
	n.t.Helper()
	m := unpack(n.t, n.answer(pack(n.t, question(name, kind)), false))
	if !m.Response || m.ID != 4711 || !m.RecursionAvailable || !m.RecursionDesired || len(m.Questions) != 1 || m.Questions[0].Name.String() != name {
		n.t.Errorf("%s: got %+v, want a reply to the question", name, m.Header)
	}
	return summary(m)
}

func summary(m dnsmessage.Message) string {
	words := []string{strings.TrimPrefix(m.RCode.String(), "RCode")}
	for _, a := range m.Answers {
		words = append(words, netip.AddrFrom4(a.Body.(*dnsmessage.AResource).A).String())
	}
	return strings.Join(words, " ")
}

func TestResolverAnswers(t *testing.T) {
	z := newZone("web.example.com 93.184.216.34 93.184.216.35", "db.example.com 10.0.4.7", "other.example.com 10.0.4.8", "mixed.example.com 10.0.0.1 8.8.8.8 127.0.0.1",
		"meta.example.com 169.254.169.254", "mapped.example.com ::ffff:10.0.0.1 ::ffff:8.8.8.8", "six.example.com 2606:4700::1111", "own.example.com 8.8.4.4", "empty.example.com")
	z.errs["broken.example.com."] = errors.New("network is unreachable")
	z.errs["slow.example.com."] = &net.DNSError{Err: "timeout", IsTimeout: true, IsTemporary: true}
	hub := Policy{}
	reach := Policy{Reach: []netip.AddrPort{netip.MustParseAddrPort("10.0.4.7:5432")}}
	names := Policy{Mode: ModeNames, Names: []string{"web.example.com", "*.hf.co"}}
	none := Policy{Mode: ModeNone}
	const a, aaaa = dnsmessage.TypeA, dnsmessage.TypeAAAA
	for _, c := range []struct {
		policy Policy
		name   string
		kind   dnsmessage.Type
		want   string
		asked  bool
	}{
		{hub, "web.example.com.", a, "Success 93.184.216.34 93.184.216.35", true},
		{hub, "WEB.Example.com.", a, "Success 93.184.216.34 93.184.216.35", true},
		{hub, "web.example.com.", aaaa, "Success", false},
		{hub, "web.example.com.", dnsmessage.TypeTXT, "Success", false},
		{hub, "web.example.com.", 65, "Success", false},
		{hub, "gone.example.com.", a, "NameError", true},
		{hub, "empty.example.com.", a, "NameError", true},
		{hub, "db.example.com.", a, "NameError", true},
		{hub, "meta.example.com.", a, "NameError", true},
		{hub, "own.example.com.", a, "NameError", true},
		{hub, "six.example.com.", a, "NameError", true},
		{hub, "mixed.example.com.", a, "Success 8.8.8.8", true},
		{hub, "mapped.example.com.", a, "Success 8.8.8.8", true},
		{hub, "broken.example.com.", a, "ServerFailure", true},
		{hub, "slow.example.com.", a, "ServerFailure", true},
		{hub, "localhost.", a, "NameError", false},
		{hub, "printer.", a, "NameError", false},
		{hub, ".", a, "NameError", false},
		{hub, "127.0.0.1.", a, "NameError", false},
		{hub, "a\x1b[31m.example.com.", a, "NameError", false},
		{reach, "db.example.com.", a, "Success 10.0.4.7", true},
		{reach, "other.example.com.", a, "NameError", true},
		{names, "web.example.com.", a, "Success 93.184.216.34 93.184.216.35", true},
		{names, "web.example.com.", aaaa, "Success", false},
		{names, "db.example.com.", a, "Refused", false},
		{names, "db.example.com.", aaaa, "Refused", false},
		{names, "secret.web.example.com.", a, "Refused", false},
		{names, "secret.hf.co.", a, "NameError", true},
		{none, "web.example.com.", a, "Refused", false},
		{none, "web.example.com.", aaaa, "Refused", false},
	} {
		z.asked = nil
		n := newNetwork(t, Config{Policy: c.policy, Resolver: z, Own: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("8.8.4.4")}, nil }})
		if got := n.ask(c.name, c.kind); got != c.want {
			t.Errorf("%+v, %s %s: got %s, want %s", c.policy, c.name, c.kind, got, c.want)
		}
		if got, want := z.asked, "ip4 "+strings.ToLower(c.name); c.asked != slices.Equal(got, []string{want}) || !c.asked && len(got) > 0 {
			t.Errorf("%+v, %s %s: got lookups %v, want one: %t", c.policy, c.name, c.kind, got, c.asked)
		}
	}
}

func TestRefusedLookupsHaveAReason(t *testing.T) {
	z := newZone("db.example.com 10.0.4.7")
	n := newNetwork(t, Config{Resolver: z})
	n.ask("db.example.com.", dnsmessage.TypeA)
	got, _ := n.LastRefusal()
	if want := "look up db.example.com (10.0.4.7): a private address; add address and port to reach"; got.Error() != want {
		t.Errorf("got %s\nwant %s", got.Error(), want)
	}
	n = newNetwork(t, Config{Policy: Policy{Mode: ModeNames, Names: []string{"*.hf.co"}}, Resolver: z})
	n.ask("db.example.com.", dnsmessage.TypeA)
	got, _ = n.LastRefusal()
	if got.Reason != ReasonName || got.Name != "db.example.com" || n.Stats() != (Stats{Refused: 1}) {
		t.Errorf("got %+v, %+v, want one refusal of the name", got, n.Stats())
	}
}

func TestMalformedAndUnusualPackets(t *testing.T) {
	n := newNetwork(t, Config{Resolver: newZone("web.example.com 8.8.8.8")})
	valid := pack(t, question("web.example.com.", dnsmessage.TypeA))
	response := question("web.example.com.", dnsmessage.TypeA)
	response.Response = true
	longCount := slices.Clone(valid)
	longCount[11] = 9 // nine additional records that are missing
	for name, packet := range map[string][]byte{
		"empty": {}, "short": valid[:11], "cut in the question": valid[:len(valid)-1], "a response": pack(t, response), "missing records": longCount,
	} {
		if reply := n.answer(packet, false); reply != nil {
			t.Errorf("%s: got a reply of %d bytes, want none", name, len(reply))
		}
	}
	two := question("web.example.com.", dnsmessage.TypeA)
	two.Questions = append(two.Questions, two.Questions[0])
	status := question("web.example.com.", dnsmessage.TypeA)
	status.OpCode = 2
	chaos := question("web.example.com.", dnsmessage.TypeA)
	chaos.Questions[0].Class = dnsmessage.ClassCHAOS
	for want, m := range map[string]dnsmessage.Message{
		"FormatError": two, "NotImplemented": status, "Refused": chaos,
	} {
		if got := summary(unpack(t, n.answer(pack(t, m), false))); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// A long answer is truncated by UDP to what the client accepts, and complete by TCP.
func TestLongAnswers(t *testing.T) {
	z := newZone()
	var many []string
	for i := range 2 * maxAddresses {
		many = append(many, fmt.Sprintf("8.8.8.%d", i))
	}
	z.set("many.example.com", many...)
	z.set("few.example.com", many[:20]...)
	n := newNetwork(t, Config{Resolver: z})
	for _, c := range []struct {
		name    string
		edns    int // 0: without
		stream  bool
		answers int
	}{
		{"many.example.com.", 0, false, 0},
		{"many.example.com.", 512, false, 0},
		{"many.example.com.", 100, false, 0},
		{"many.example.com.", 1232, false, maxAddresses},
		{"many.example.com.", 4096, false, maxAddresses},
		{"many.example.com.", 0, true, maxAddresses},
		{"few.example.com.", 0, false, 20},
	} {
		m := question(c.name, dnsmessage.TypeA)
		if c.edns > 0 {
			m = withEDNS(m, c.edns)
		}
		reply := n.answer(pack(t, m), c.stream)
		got := unpack(t, reply)
		if len(got.Answers) != c.answers || got.Truncated != (c.answers == 0) || (len(got.Additionals) == 1) != (c.edns > 0) {
			t.Errorf("%+v: got %d answers, truncated %t, %d additional records", c, len(got.Answers), got.Truncated, len(got.Additionals))
		}
		if limit := max(c.edns, plainUDP); !c.stream && len(reply) > limit {
			t.Errorf("%+v: got %d bytes, want at most %d", c, len(reply), limit)
		}
		for _, a := range got.Answers {
			if a.Header.TTL != 60 || a.Header.Class != dnsmessage.ClassINET {
				t.Errorf("%+v: got %+v, want a minute in class IN", c, a.Header)
			}
		}
	}
}

// A name that answers a public address first and a private one later gains nothing (DNS rebinding).
func TestRebinding(t *testing.T) {
	z := newZone("evil.example.com 93.184.216.34")
	dialled := make(chan string, 10)
	var n *network
	n = newNetwork(t, Config{Resolver: z, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled <- address
		return n.dialServer(ctx, network, address)
	}})
	if got := n.ask("evil.example.com.", dnsmessage.TypeA); got != "Success 93.184.216.34" {
		t.Fatal(got)
	}
	z.set("evil.example.com", "10.0.0.1")
	space, server := n.pair()
	write(t, space, "to the address that was checked")
	expectRead(t, server, "to the address that was checked")
	if to := <-dialled; len(z.asked) != 1 || to != publicWeb || len(dialled) > 0 {
		t.Errorf("got lookups %v, and a dial of %s and %d others, want one of each", z.asked, to, len(dialled))
	}
	if got := n.ask("evil.example.com.", dnsmessage.TypeA); got != "NameError" {
		t.Errorf("the second answer: got %s, want NameError", got)
	}
	n.expectRefused("10.0.0.1:443")
	if got := n.dials.Load(); got != 1 {
		t.Errorf("got %d dials, want 1", got)
	}
}

// With a list of names, only addresses from valid answers are allowed.
func TestAnswersExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(Config{
			Policy:   Policy{Mode: ModeNames, Names: []string{"*.example.com"}},
			Resolver: newZone("web.example.com 93.184.216.34", "alias.example.com 93.184.216.34"),
			Own:      func() ([]netip.Addr, error) { return nil, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		to := netip.MustParseAddrPort(publicWeb)
		expect := func(allowed bool, name string) {
			t.Helper()
			d := e.resolveDestination(to)
			if err := e.policy.Allows(d); (err == nil) != allowed || d.Name != name {
				t.Errorf("got %v for %q, want allowed %t for %q", err, d.Name, allowed, name)
			}
		}
		ask := func(name string) {
			t.Helper()
			if got := summary(unpack(t, e.answer(pack(t, question(name, dnsmessage.TypeA)), false))); got != "Success 93.184.216.34" {
				t.Fatal(got)
			}
		}
		expect(false, "")
		ask("web.example.com.")
		expect(true, "web.example.com")
		time.Sleep(answerTTL)
		expect(true, "web.example.com")
		time.Sleep(latency)
		expect(false, "")
		ask("web.example.com.")
		time.Sleep(answerTTL / 2)
		ask("alias.example.com.")
		time.Sleep(answerTTL)
		expect(true, "alias.example.com")
		time.Sleep(latency)
		expect(false, "")
	})
}

func TestRememberedNamesAreBounded(t *testing.T) {
	now := time.Now()
	m := newNameMemory(func() time.Time { return now })
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{8, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range 3 * maxRemembered {
		now = now.Add(time.Microsecond)
		m.remember(address(i), "a.example.com", time.Minute)
		if len(m.names) > maxRemembered {
			t.Fatalf("after %d addresses: %d are remembered", i+1, len(m.names))
		}
		if i > 0 && m.of(address(i-1)) == "" {
			t.Fatalf("address %d is forgotten at once", i-1)
		}
	}
	if m.of(address(0)) != "" {
		t.Error("the first of too many addresses is still remembered")
	}
	now = now.Add(time.Hour)
	m.remember(address(0), "a.example.com", time.Minute)
	for i := range maxRemembered {
		m.remember(address(i), "b.example.com", time.Minute)
	}
	if len(m.names) > maxRemembered || m.of(address(0)) != "b.example.com" {
		t.Errorf("got %d names, and %q for the first address", len(m.names), m.of(address(0)))
	}
}
