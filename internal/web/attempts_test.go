package web

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAttempts(2, time.Minute, nil)
		expect := func(addr string, want bool) {
			t.Helper()
			if got := a.Allow(addr); got != want {
				t.Errorf("%s after %s: %v", addr, time.Since(time.Unix(0, 0)), got)
			}
		}
		a.Wrong("203.0.113.7:1")
		expect("203.0.113.7:2", true)
		a.Wrong("203.0.113.7:3")
		expect("203.0.113.7:4", false)
		expect("203.0.113.8:4", true)
		a.Wrong("[2001:db8:1:2::1]:1")
		a.Wrong("[2001:db8:1:2::2]:1")
		expect("[2001:db8:1:2:3::]:1", false)
		expect("[2001:db8:1:3::]:1", true)
		a.Wrong("127.0.0.1:1")
		a.Wrong("[::1]:1")
		expect("127.9.9.9:1", false)
		time.Sleep(time.Minute)
		expect("203.0.113.7:4", true)
		for i := range 3 * maxClients {
			a.Wrong(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
		}
		if len(a.wrong) > maxClients {
			t.Errorf("%d addresses are remembered, more than the maximum", len(a.wrong))
		}
	})
}
