package config

import (
	"fmt"
	"strconv"
	"strings"
)

// UIDs is a range of user ids for Spaces at IsolationUsers. The zero value is no range.
type UIDs struct{ First, Last uint32 }

const (
	// minUID is the first uid that distributions do not use for system accounts (login.defs, UID_MIN).
	minUID = 1000
	// maxUID leaves out (uid_t)-1, which system calls read as "no change", and the one below, which is nobody's in old tools.
	maxUID = 1<<32 - 3
	// nobody is the uid that unmapped owners have in a user namespace.
	nobody = 65534
)

// Len returns the number of uids.
func (u UIDs) Len() int {
	if u.First == 0 {
		return 0
	}
	return int(u.Last-u.First) + 1
}

// String returns FIRST-LAST.
func (u UIDs) String() string { return fmt.Sprintf("%d-%d", u.First, u.Last) }

// ParseUIDs parses FIRST-LAST, such as 200000-200999.
func ParseUIDs(text string) (UIDs, error) {
	low, high, _ := strings.Cut(text, "-")
	first, badFirst := strconv.ParseUint(low, 10, 32)
	last, badLast := strconv.ParseUint(high, 10, 32)
	switch {
	case badFirst != nil || badLast != nil:
		return UIDs{}, fmt.Errorf("%.60q is not a range of uids; give FIRST-LAST, such as 200000-200999", text)
	case first < minUID || last > maxUID:
		return UIDs{}, fmt.Errorf("%.60q is not within %d-%d; give a range that no account uses, such as 200000-200999", text, minUID, maxUID)
	case last < first:
		return UIDs{}, fmt.Errorf("%.60q ends before it begins; give the lower uid first", text)
	case first <= nobody && nobody <= last:
		return UIDs{}, fmt.Errorf("%.60q contains %d, the uid of nobody; give a range without it, such as 200000-200999", text, nobody)
	}
	return UIDs{uint32(first), uint32(last)}, nil
}
