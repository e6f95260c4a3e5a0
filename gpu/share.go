package gpu

import "fmt"

// Share is how many Slots a Device has, so how many Leases of size large it takes at a time: 1 is the whole Device, 2 are half ones.
// Nothing but good manners keeps a worker to its share of the memory; who needs a wall takes MIG instances, which are Devices here.
type Share int

// mostShares is what the smallest part of a big card still makes sense for.
const mostShares = 8

// ParseShare reads "1", "1/2" ... "1/8".
func ParseShare(text string) (Share, error) {
	for s := Share(1); s <= mostShares; s++ {
		if s.String() == text {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%.20q is no share of a GPU: say 1 for a whole one, or 1/2 up to 1/%d", text, mostShares)
}

// String is what ParseShare reads.
func (s Share) String() string {
	if s <= 1 {
		return "1"
	}
	return fmt.Sprintf("1/%d", int(s))
}
