package gpu

import "fmt"

// Share is the number of Slots per Device, which is the number of concurrent Leases of size large: 1 is the whole
// Device, 2 are halves. Nothing enforces that a worker uses only its share of the memory. For enforced limits use MIG
// instances, which are Devices here.
type Share int

// maxShares is the smallest share that is still useful on a large GPU.
const maxShares = 8

// ParseShare reads "1", "1/2" ... "1/8".
func ParseShare(text string) (Share, error) {
	for s := Share(1); s <= maxShares; s++ {
		if s.String() == text {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%.20q is not a share of a GPU; use 1 for a whole GPU, or 1/2 up to 1/%d", text, maxShares)
}

// String returns the form that ParseShare reads.
func (s Share) String() string {
	if s <= 1 {
		return "1"
	}
	return fmt.Sprintf("1/%d", int(s))
}
