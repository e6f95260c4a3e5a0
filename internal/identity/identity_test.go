package identity

import (
	"fmt"
	"strings"
	"testing"
)

func TestFromAddr(t *testing.T) {
	for _, row := range []struct{ addr, key, tier string }{
		{"127.0.0.1:5000", "local", "free"},
		{"127.255.3.4:5000", "local", "free"},
		{"[::1]:5000", "local", "free"},
		{"::1", "local", "free"},
		{"[::ffff:127.0.0.1]:5000", "local", "free"},
		{"203.0.113.7:443", "ip:203.0.113.7", "unauthenticated"},
		{"203.0.113.7", "ip:203.0.113.7", "unauthenticated"},
		{"[::ffff:203.0.113.7]:443", "ip:203.0.113.7", "unauthenticated"},
		{"::ffff:cb00:7107", "ip:203.0.113.7", "unauthenticated"},
		{"[2001:db8:1:2:aaaa:bbbb:cccc:dddd]:443", "ip:2001:db8:1:2::/64", "unauthenticated"},
		{"2001:DB8:1:2::1", "ip:2001:db8:1:2::/64", "unauthenticated"},
		{"[fe80::1%eth0]:443", "ip:fe80::/64", "unauthenticated"},
		{"::2", "ip:::/64", "unauthenticated"},
	} {
		id, err := FromAddr(row.addr, AddrTiers{})
		if err != nil || id.Key() != row.key || id.Tier != row.tier {
			t.Errorf("FromAddr(%s): got %s of tier %q (%v), want %s of tier %s", row.addr, id, id.Tier, err, row.key, row.tier)
		}
	}
}

func TestFromAddrRefusesInvalidAddresses(t *testing.T) {
	for _, addr := range []string{"", "@", "localhost:80", "1.2.3", "1.2.3.4:", "1.2.3.4:99999", "[::1", "1.2.3.4, 5.6.7.8", "0177.0.0.1", strings.Repeat("9", 1<<16)} {
		id, err := FromAddr(addr, AddrTiers{})
		if err == nil {
			t.Errorf("FromAddr(%.40q): got %v, want an error", addr, id)
		} else if len(err.Error()) > 200 {
			t.Errorf("FromAddr(%.40q): the error has %d bytes", addr, len(err.Error()))
		}
	}
}

func TestFromAddrUsesConfiguredTiers(t *testing.T) {
	tiers := AddrTiers{Local: "pro", Address: "free"}
	for addr, want := range map[string]string{"127.0.0.1:1": "pro", "203.0.113.7:1": "free"} {
		if id, err := FromAddr(addr, tiers); err != nil || id.Tier != want {
			t.Errorf("FromAddr(%s): got tier %q (%v), want %s", addr, id.Tier, err, want)
		}
	}
}

func TestKeyRoundTrip(t *testing.T) {
	for key, want := range map[string]Identity{
		"local":                {Kind: Local},
		"ip:203.0.113.7":       {Kind: Address, Name: "203.0.113.7"},
		"ip:2001:db8:1:2::/64": {Kind: Address, Name: "2001:db8:1:2::/64"},
		"user:ada":             {Kind: User, Name: "ada"},
		"user:ada:lovelace é":  {Kind: User, Name: "ada:lovelace é"},
		"space:ada/demo":       {Kind: Space, Name: "ada/demo"},
	} {
		id, err := ParseKey(key)
		if err != nil || id != want || id.Key() != key || fmt.Sprint(id) != key {
			t.Errorf("ParseKey(%s): got %+v (%v), want %+v", key, id, err, want)
		}
	}
}

func TestParseKeyRefusesOtherText(t *testing.T) {
	for _, key := range []string{
		"", ":", "local:", "local:ada", "LOCAL", "user", "user:", "space:", "team:a", ":ada",
		"user:a\nidentity=root", "user:a\x00", "user:\xff", "user:" + strings.Repeat("a", maxName+1),
		"ip:", "ip:x", "ip:203.0.113.7:80", "ip:203.0.113.007", "ip:203.0.113.7/64", "ip:127.0.0.2", "ip:::1/64",
		"ip:::ffff:203.0.113.7", "ip:::ffff:203.0.113.7/64", "ip:2001:db8::1", "ip:2001:db8::1/64", "ip:2001:DB8::/64",
		"ip:2001:db8::/48", "ip:fe80::%eth0/64",
	} {
		if id, err := ParseKey(key); err == nil {
			t.Errorf("ParseKey(%.40q): got %+v, want an error", key, id)
		}
	}
}

func TestZeroIdentityHasNoKey(t *testing.T) {
	if got := (Identity{}).Key(); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
}

func FuzzFromAddr(f *testing.F) {
	for _, seed := range []string{"127.0.0.1:80", "[::1]:80", "::ffff:1.2.3.4", "[fe80::1%25eth0]:1", "2001:db8::1", "", "@", "1.2.3.4\n:80"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		id, err := FromAddr(addr, AddrTiers{})
		if err != nil {
			return
		}
		back, err := ParseKey(id.Key())
		if err != nil || back.Kind != id.Kind || back.Name != id.Name || (id.Kind != Local && id.Kind != Address) {
			t.Errorf("FromAddr(%q): got %+v, whose Key parses as %+v (%v)", addr, id, back, err)
		}
	})
}
