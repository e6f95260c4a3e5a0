package egress

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// FuzzDNS: no packet may crash the resolver, and each reply is valid, belongs to its query and has public addresses only.
func FuzzDNS(f *testing.F) {
	f.Add(pack(f, question("web.example.com.", dnsmessage.TypeA)), false)
	f.Add(pack(f, question("db.example.com.", dnsmessage.TypeA)), true)
	f.Add(pack(f, question("many.example.com.", dnsmessage.TypeA)), false)
	f.Add(pack(f, withEDNS(question("web.example.com.", dnsmessage.TypeAAAA), 1232)), false)
	f.Add([]byte{}, false)
	many := make([]string, 64)
	for i := range many {
		many[i] = fmt.Sprintf("8.8.8.%d", i)
	}
	z := newZone("web.example.com 8.8.8.8", "db.example.com 10.0.0.1 127.0.0.1", "many.example.com "+strings.Join(many, " "))
	e, err := New(Config{Resolver: z, Own: func() ([]netip.Addr, error) { return nil, nil }})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { e.Close() })
	f.Fuzz(func(t *testing.T, packet []byte, stream bool) {
		z.mu.Lock()
		z.asked = nil
		z.mu.Unlock()
		reply := e.answer(packet, stream)
		if reply == nil {
			return
		}
		m := unpack(t, reply)
		if !m.Response || m.ID != binary.BigEndian.Uint16(packet) || !stream && len(reply) > ednsUDP || len(reply) > 65535 {
			t.Errorf("got %d bytes with %+v", len(reply), m.Header)
		}
		for _, answer := range m.Answers {
			if a := netip.AddrFrom4(answer.Body.(*dnsmessage.AResource).A); classify(a) != "" {
				t.Errorf("the reply has %s", a)
			}
		}
	})
}
