package gradioapi

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/queue"
)

// TestMadeUpSessionsDoNotFillOwners: made-up hashes are removed soon, and the owner of an open Session is kept.
func TestMadeUpSessionsDoNotFillOwners(t *testing.T) {
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
			t.Error("a recent Session has lost its owner")
		}
		time.Sleep(ownerSweep + time.Second)
		if claim(open, ben) || !claim(open, ada) {
			t.Error("the open Session no longer belongs to ada")
		}
		if len(o.known) > 2 {
			t.Errorf("%d Sessions have an owner, want at most 2", len(o.known))
		}
	})
}
