package egress

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestAddressesThatAreNotPublic(t *testing.T) {
	for address, want := range map[string]Reason{
		"93.184.216.34": "", "8.8.8.8": "", "100.63.255.255": "", "100.128.0.1": "", "172.15.0.1": "", "172.32.0.1": "", "198.17.1.1": "",
		"198.20.0.1": "", "223.255.255.254": "", "192.0.1.1": "", "168.63.129.17": "", "2606:4700::1111": "",
		"10.0.0.1": ReasonPrivate, "10.255.255.255": ReasonPrivate, "172.16.0.1": ReasonPrivate, "172.31.255.255": ReasonPrivate,
		"192.168.0.1": ReasonPrivate, "100.64.0.1": ReasonPrivate, "100.100.100.200": ReasonPrivate, "100.127.255.255": ReasonPrivate,
		"fd00::1": ReasonPrivate, "fc00::1": ReasonPrivate, "fd00:ec2::254": ReasonPrivate, "fec0::1": ReasonPrivate,
		"169.254.169.254": ReasonLinkLocal, "169.254.0.1": ReasonLinkLocal, "168.63.129.16": ReasonLinkLocal, "fe80::1": ReasonLinkLocal,
		"127.0.0.1": ReasonLoopback, "127.255.255.254": ReasonLoopback, "::1": ReasonLoopback,
		"0.0.0.0": ReasonReserved, "0.1.2.3": ReasonReserved, "192.0.0.192": ReasonReserved, "192.0.2.1": "",
		"192.88.99.1": ReasonReserved, "198.18.0.1": ReasonReserved, "198.19.255.255": ReasonReserved, "198.51.100.1": "",
		"203.0.113.1": "", "224.0.0.1": ReasonReserved, "239.255.255.255": ReasonReserved, "240.0.0.1": ReasonReserved,
		"255.255.255.255": ReasonReserved,
		"::":              ReasonReserved, "ff02::1": ReasonReserved, "2001:db8::1": ReasonReserved, "2001::1": ReasonReserved, "3fff::1": ReasonReserved,
		"100::1": ReasonReserved, "64:ff9b:1::1": ReasonReserved, "4000::1": ReasonReserved, "5f00::1": ReasonReserved,
		"2606:4700::1111%eth0": ReasonReserved,
		// forms that carry an IPv4 address
		"::ffff:93.184.216.34": "", "::ffff:10.0.0.1": ReasonPrivate, "::ffff:127.0.0.1": ReasonLoopback, "::ffff:169.254.169.254": ReasonLinkLocal,
		"64:ff9b::5db8:d822": "", "64:ff9b::10.0.0.1": ReasonPrivate, "64:ff9b::169.254.169.254": ReasonLinkLocal,
		"2002:5db8:d822::1": "", "2002:0a00:0001::1": ReasonPrivate, "2002:7f00:0001::": ReasonLoopback, "2002:a9fe:a9fe::": ReasonLinkLocal,
		"::10.0.0.1": ReasonReserved, "::7f00:1": ReasonReserved,
	} {
		if got := classify(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: got %q, want %q", address, got, want)
		}
	}
	if got := classify(netip.Addr{}); got != ReasonReserved {
		t.Errorf("no address: got %q, want %q", got, ReasonReserved)
	}
}

// TestNamesWithPorts opens the ports of the list instead of the Hub's.
func TestNamesWithPorts(t *testing.T) {
	p := Policy{Mode: ModeNames, Names: []string{"db.example.com"}, Ports: []uint16{5432}}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	if got := p.OpenPorts(); !slices.Equal(got, []uint16{5432}) {
		t.Errorf("open ports %v", got)
	}
	for port, want := range map[uint16]bool{5432: true, 443: false} {
		to := Destination{Addr: netip.AddrPortFrom(netip.MustParseAddr("93.184.216.34"), port), Name: "db.example.com"}
		if err := p.Allows(to); (err == nil) != want {
			t.Errorf("port %d: %v", port, err)
		}
	}
}

func TestPolicyDecides(t *testing.T) {
	hub, none := Policy{}, Policy{Mode: ModeNone}
	names := Policy{Mode: ModeNames, Names: []string{"huggingface.co", "*.HF.co"}}
	all := Policy{Mode: ModeAll, Ports: []uint16{22, 443}}
	reach := Policy{Mode: ModeNone, Reach: []netip.AddrPort{netip.MustParseAddrPort("10.0.4.7:5432"), netip.MustParseAddrPort("169.254.169.254:80")}}
	for _, c := range []struct {
		policy Policy
		to     string
		name   string
		own    bool
		want   Reason
	}{
		{hub, publicWeb, "", false, ""},
		{hub, "93.184.216.34:80", "", false, ""},
		{hub, "93.184.216.34:8080", "", false, ""},
		{hub, "[::ffff:93.184.216.34]:443", "", false, ""},
		{hub, "93.184.216.34:22", "", false, ReasonPort},
		{hub, "10.0.4.7:443", "", false, ReasonPrivate},
		{hub, "[::ffff:10.0.4.7]:443", "", false, ReasonPrivate},
		{hub, "10.0.4.7:5432", "", false, ReasonPrivate},
		{hub, "169.254.169.254:80", "", false, ReasonLinkLocal},
		{hub, publicWeb, "", true, ReasonOwn},
		{hub, publicWeb, "own.example.com", true, ReasonOwn},
		{none, publicWeb, "huggingface.co", false, ReasonNone},
		{none, "10.0.4.7:443", "", false, ReasonNone},
		{names, publicWeb, "huggingface.co", false, ""},
		{names, publicWeb, "cdn.hf.co", false, ""},
		{names, publicWeb, "a.b.hf.co", false, ""},
		{names, publicWeb, "hf.co", false, ReasonName},
		{names, publicWeb, "evilhf.co", false, ReasonName},
		{names, publicWeb, ".hf.co", false, ReasonName},
		{names, publicWeb, "huggingface.co.evil.com", false, ReasonName},
		{names, publicWeb, "", false, ReasonName},
		{names, "93.184.216.34:22", "huggingface.co", false, ReasonPort},
		{names, "10.0.4.7:443", "huggingface.co", false, ReasonPrivate},
		{names, publicWeb, "huggingface.co", true, ReasonOwn},
		{all, "93.184.216.34:22", "", false, ""},
		{all, "93.184.216.34:80", "", false, ReasonPort},
		{all, "192.168.0.1:22", "", false, ReasonPrivate},
		{reach, "10.0.4.7:5432", "", false, ""},
		{reach, "[::ffff:10.0.4.7]:5432", "", false, ""},
		{reach, "10.0.4.7:5432", "", true, ""},
		{reach, "169.254.169.254:80", "", false, ""},
		{reach, "10.0.4.7:5433", "", false, ReasonNone},
		{reach, "10.0.4.8:5432", "", false, ReasonNone},
		{reach, publicWeb, "", false, ReasonNone},
	} {
		if err := c.policy.Validate(); err != nil {
			t.Fatal(err)
		}
		to := Destination{netip.MustParseAddrPort(c.to), c.name, c.own}
		err := c.policy.Allows(to)
		var refused *RefusedError
		if got := errors.As(err, &refused); got != (c.want != "") {
			t.Errorf("%+v to %+v: got %v, want %q", c.policy, to, err, c.want)
		} else if got && (refused.Reason != c.want || refused.Destination != to.Addr || refused.Name != c.name) {
			t.Errorf("%+v to %+v: got %+v, want %q", c.policy, to, refused, c.want)
		}
	}
}

func TestNamesAreDecidedBeforeTheLookup(t *testing.T) {
	names := Policy{Mode: ModeNames, Names: []string{"huggingface.co", "*.hf.co"}}
	for _, c := range []struct {
		policy Policy
		name   string
		want   Reason
	}{
		{Policy{}, "anything.example.com", ""},
		{Policy{Mode: ModeAll, Ports: []uint16{22}}, "anything.example.com", ""},
		{Policy{Mode: ModeNone}, "huggingface.co", ReasonNone},
		{names, "huggingface.co", ""},
		{names, "cas.hf.co", ""},
		{names, "example.com", ReasonName},
	} {
		err := c.policy.AllowsName(c.name)
		var refused *RefusedError
		if errors.As(err, &refused) != (c.want != "") || refused != nil && refused.Reason != c.want {
			t.Errorf("%+v, %s: got %v, want %q", c.policy, c.name, err, c.want)
		}
	}
}

func TestPoliciesThatContradictThemselves(t *testing.T) {
	reach := func(to string) Policy { return Policy{Reach: []netip.AddrPort{netip.MustParseAddrPort(to)}} }
	for want, p := range map[string]Policy{
		`unknown egress mode "hubs"`:                  {Mode: "hubs"},
		"egress names with 0 names":                   {Mode: ModeNames},
		"egress hub with 1 names":                     {Names: []string{"hf.co"}},
		"egress all with 0 ports":                     {Mode: ModeAll},
		"egress none with 1 ports":                    {Mode: ModeNone, Ports: []uint16{22}},
		"egress port 0":                               {Mode: ModeAll, Ports: []uint16{0}},
		`egress name "*": not a name with a dot`:      {Mode: ModeNames, Names: []string{"*"}},
		`egress name "a.*.com": not a name`:           {Mode: ModeNames, Names: []string{"a.*.com"}},
		`egress name "10.0.0.1": not a name`:          {Mode: ModeNames, Names: []string{"10.0.0.1"}},
		"reach 127.0.0.1:80: a Space cannot reach":    reach("127.0.0.1:80"),
		"reach 0.0.0.0:80: a Space cannot reach":      reach("0.0.0.0:80"),
		"reach 224.0.0.1:80: a Space cannot reach":    reach("224.0.0.1:80"),
		"reach 255.255.255.255:80: a Space cannot":    reach("255.255.255.255:80"),
		"reach 10.0.0.1:0: port 0":                    reach("10.0.0.1:0"),
		"reach [fd00::1]:80: only IPv4 addresses are": reach("[fd00::1]:80"),
	} {
		if err := p.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: got %v, want %s", p, err, want)
		}
		if e, err := New(Config{Space: "hello", Policy: p}); err == nil {
			e.Close()
			t.Errorf("%+v: New accepts it", p)
		}
	}
}

func TestOpenPorts(t *testing.T) {
	reach := []netip.AddrPort{netip.MustParseAddrPort("10.0.4.7:5432"), netip.MustParseAddrPort("10.0.4.8:443")}
	for _, c := range []struct {
		policy Policy
		want   []uint16
	}{
		{Policy{}, []uint16{80, 443, 8080}},
		{Policy{Reach: reach}, []uint16{80, 443, 5432, 8080}},
		{Policy{Mode: ModeNone}, nil},
		{Policy{Mode: ModeNone, Reach: reach}, []uint16{443, 5432}},
		{Policy{Mode: ModeAll, Ports: []uint16{443, 22}}, []uint16{22, 443}},
	} {
		if got := c.policy.OpenPorts(); !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v, want %v", c.policy, got, c.want)
		}
	}
	if !slices.Equal(HubPorts, []uint16{80, 443, 8080}) {
		t.Errorf("HubPorts have changed to %v", HubPorts)
	}
}

func TestHostNames(t *testing.T) {
	for text, want := range map[string]string{
		"HuggingFace.co.": "huggingface.co", "a_b.example.com": "a_b.example.com", "xn--bcher-kva.example": "xn--bcher-kva.example", "1.example": "1.example",
		"localhost": "", "": "", ".": "", "a..b": "", ".a.b": "", "a.b..": "", "a b.c": "", "a\x1b[31m.b": "", "1.2.3.4": "", "127.1": "", "a.\xff": "",
		strings.Repeat("a", 64) + ".com": "", strings.Repeat("abcdefg.", 32) + "com": "",
	} {
		if got, ok := hostName(text); ok != (want != "") || ok && got != want {
			t.Errorf("%q: got %q, %t, want %q", text, got, ok, want)
		}
	}
}

// TestServices: a service of the host is reachable in every mode, also on loopback, at its port alone.
func TestServices(t *testing.T) {
	index := netip.MustParseAddrPort("127.0.0.1:3141")
	for _, p := range []Policy{{}, {Mode: ModeNone}, {Mode: ModeNames, Names: []string{"pypi.org"}}} {
		p.Services = []netip.AddrPort{index}
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", p.mode(), err)
		}
		if err := p.Allows(Destination{Addr: index, Own: true}); err != nil {
			t.Errorf("%s: %v", p.mode(), err)
		}
		other := netip.AddrPortFrom(index.Addr(), 80)
		if err := p.Allows(Destination{Addr: other, Own: true}); err == nil {
			t.Errorf("%s: %s is allowed", p.mode(), other)
		}
		if !slices.Contains(p.OpenPorts(), 3141) {
			t.Errorf("%s: ports %v", p.mode(), p.OpenPorts())
		}
	}
}
