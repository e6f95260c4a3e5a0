package gradioapi

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/queue"
)

// TestOwnersOfMadeUpSessions: whoever makes hashes up fills no memory, and nobody loses a Session by it that is open.
func TestOwnersOfMadeUpSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := queue.SessionHash("open")
		o := owners{isPresent: func(digest string) bool { return digest == open.Digest() }}
		ada, ben := SessionOwner{Person: "user:ada"}, SessionOwner{Person: "user:ben"}
		claim := func(hash queue.SessionHash, by SessionOwner) bool {
			ok, _ := o.claim(hash, by, func() string { return "" })
			return ok
		}
		claim(open, ada)
		for n := range maxOwners {
			claim(queue.SessionHash(fmt.Sprint("made up ", n)), ben)
		}
		if claim("made up 1", ada) {
			t.Error("a Session of a moment ago is nobody's")
		}
		time.Sleep(ownerSweep + time.Second)
		if claim(open, ben) || !claim(open, ada) {
			t.Error("the open Session is no longer ada's")
		}
		if len(o.known) > 2 {
			t.Errorf("%d Sessions are known whose they were, want the open one", len(o.known))
		}
	})
}
