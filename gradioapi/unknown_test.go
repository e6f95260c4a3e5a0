package gradioapi

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPassThroughCallsEndAfterTheirReaders: the token of a passed-through call stays valid while its stream is read,
// and ten minutes before and after.
func TestPassThroughCallsEndAfterTheirReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all passThroughCalls
		ended := map[string]int{}
		keep := func(reader, call string) { all.keep(reader, func() { ended[call]++ }) }
		expect := func(when string, want map[string]int) {
			t.Helper()
			synctest.Wait()
			all.mu.Lock()
			defer all.mu.Unlock()
			for _, call := range []string{"unread", "first", "second"} {
				if ended[call] != want[call] {
					t.Errorf("%s: %s ended %d times, want %d", when, call, ended[call], want[call])
				}
			}
		}
		keep("unread session", "unread")
		keep("session", "first")
		done := all.read("session")
		again := all.read("session")
		all.read("unknown")()
		time.Sleep(unreadTimeout + time.Second)
		expect("while it is read", map[string]int{"unread": 1})
		done()
		keep("session", "second")
		again()
		time.Sleep(unreadTimeout - time.Second)
		expect("shortly after", map[string]int{"unread": 1})
		back := all.read("session") // the stream is opened again
		time.Sleep(time.Hour)
		back()
		time.Sleep(unreadTimeout + time.Second)
		expect("in the end", map[string]int{"unread": 1, "first": 1, "second": 1})
		if len(all.open) != 0 {
			t.Errorf("left: %v", all.open)
		}
	})
}
