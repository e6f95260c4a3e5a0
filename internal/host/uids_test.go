package host

import (
	"strings"
	"testing"
	"time"

	"spacehost/internal/config"
	"spacehost/internal/space"
)

// TestUIDsThatCannotBeUsed checks that a start ends with the line of the file if no uid is left, or if an account has one.
func TestUIDsThatCannotBeUsed(t *testing.T) {
	h := serveTestHost(t)
	h.all()[0].settings().Isolation = config.IsolationUsers
	h.settings().UsersPlace = config.Place{File: "lab.yaml", Line: 3, Key: "users"}
	if _, err := space.ReserveUIDs(t.Context(), h.db, []string{"gone"}, 2_000_000_000, 2_000_000_000, time.Now()); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]string{
		2_000_000_000: "lab.yaml:3: users: all uids of 2000000000-2000000000 are reserved, and the Space hello-zerogpu has none (Spaces that are not configured keep theirs: gone); extend the range",
		65534:         "lab.yaml:3: users: the uid 65534 of the Space hello-zerogpu belongs to the account nobody of this machine; choose a range that no account uses",
	} {
		h.settings().Users = config.UIDs{First: uid, Last: uid}
		if err := h.reserveUIDs(); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	h.settings().Users = config.UIDs{First: 2_000_000_001, Last: 2_000_000_001}
	if err := h.reserveUIDs(); err != nil || h.all()[0].uid() != 2_000_000_001 {
		t.Errorf("got %d, %v", h.all()[0].uid(), err)
	}
	if line := h.all()[0].isolationLine(); strings.Contains(line, "uid") {
		t.Errorf("the line of a Space at another level: %s", line)
	}
}
