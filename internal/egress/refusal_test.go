package egress

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func lines(logs *observer.ObservedLogs) (all []string) {
	for _, entry := range logs.TakeAll() {
		words := []string{entry.Message}
		for _, f := range entry.Context {
			encoder := zapcore.NewMapObjectEncoder()
			f.AddTo(encoder)
			words = append(words, fmt.Sprintf("%s=%v", f.Key, encoder.Fields[f.Key]))
		}
		all = append(all, strings.Join(words, " "))
	}
	return all
}

func TestOneLinePerDestinationAndMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		e, err := New(Config{Space: "hello", Logger: zap.New(core), Own: func() ([]netip.Addr, error) { return nil, nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		refuse := func(to, name string) {
			e.refuse(e.policy.Allows(Destination{Addr: netip.MustParseAddrPort(to), Name: name}))
		}
		expect := func(want ...string) {
			t.Helper()
			if got := lines(logs); strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		for range 3 {
			refuse("10.0.0.1:443", "")
			refuse("8.8.8.8:22", "dns.example.com")
		}
		expect("egress refused space=hello destination=10.0.0.1:443 reason=a private address",
			"egress refused space=hello destination=8.8.8.8:22 name=dns.example.com reason=the port is not open")
		time.Sleep(logPause - time.Millisecond)
		refuse("10.0.0.1:443", "")
		refuse("10.0.0.1:80", "")
		expect("egress refused space=hello destination=10.0.0.1:80 omitted=5 reason=a private address")
		time.Sleep(time.Millisecond)
		refuse("10.0.0.1:443", "")
		expect("egress refused space=hello destination=10.0.0.1:443 reason=a private address")
		if got, _ := e.LastRefusal(); !got.Time.Equal(time.Now()) || got.Destination.String() != "10.0.0.1:443" || got.Reason != ReasonPrivate {
			t.Errorf("got %+v, want the last refusal", got)
		}
		time.Sleep(logPause)
		for port := range 1000 { // a port scan
			refuse(fmt.Sprintf("10.0.0.1:%d", 1+port), "")
		}
		if got := len(lines(logs)); got != logLines {
			t.Errorf("got %d lines for 1,000 destinations, want %d", got, logLines)
		}
		e.journal.fail(Destination{Addr: netip.MustParseAddrPort("8.8.8.8:443")}, errIdle)
		expect()
		time.Sleep(logPause)
		e.journal.fail(Destination{Addr: netip.MustParseAddrPort("8.8.8.8:443")}, errIdle)
		expect(fmt.Sprintf("egress connection failed space=hello destination=8.8.8.8:443 omitted=%d error=%v", 1000-logLines+1, errIdle))
	})
}

func TestRefusalsNameTheNextStep(t *testing.T) {
	to := netip.MustParseAddrPort("10.0.0.1:443")
	for want, err := range map[string]RefusedError{
		"connect to 10.0.0.1:443: a private address; add address and port to reach":                  {Destination: to, Reason: ReasonPrivate},
		"connect to 10.0.0.1:443 (db.example.com): a private address; add address and port to reach": {Destination: to, Name: "db.example.com", Reason: ReasonPrivate},
		"look up db.example.com: egress is none; set egress to hub or to a list of names":            {Name: "db.example.com", Reason: ReasonNone},
	} {
		if got := err.Error(); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	for _, reason := range []Reason{ReasonNone, ReasonPrivate, ReasonLinkLocal, ReasonLoopback, ReasonReserved, ReasonOwn, ReasonPort, ReasonName, ReasonLimit} {
		if remedies[reason] == "" {
			t.Errorf("%q has no next step", reason)
		}
	}
}
