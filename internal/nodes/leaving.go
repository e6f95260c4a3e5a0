package nodes

import (
	"fmt"
	"time"
)

// OpLeave is the call with which an agent reports that its machine leaves. Its body is a [Leaving]. A front without this call refuses it.
const OpLeave = "node/leave"

// Leaving is when and why a machine leaves its front. It is a claim by the node.
type Leaving struct {
	// LeftMillis is how long calls may still run there, from the moment at which it is sent: no time of day crosses a link.
	LeftMillis int64 `json:"left_ms"`
	// Draining means that the node takes no more work. The front treats it as drained.
	Draining bool   `json:"draining,omitempty"`
	Why      string `json:"why"`
}

// MaxLeft bounds Leaving.LeftMillis. An end that is further away is not reported.
const MaxLeft = 366 * 24 * time.Hour

// Left is LeftMillis as a duration.
func (l Leaving) Left() time.Duration { return time.Duration(l.LeftMillis) * time.Millisecond }

// Check refuses a time outside 0 to MaxLeft, and a reason that is too long or cannot be printed.
func (l Leaving) Check() error {
	if l.LeftMillis < 0 || l.LeftMillis > MaxLeft.Milliseconds() {
		return fmt.Errorf("the node leaves in %d ms; the time must be from 0 to %s", l.LeftMillis, MaxLeft)
	}
	if !isPrintable(l.Why) {
		return fmt.Errorf("the node leaves for the reason %.40q, which is not understood; install the version of the front on the node", l.Why)
	}
	return nil
}
