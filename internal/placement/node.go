package placement

import (
	"fmt"
	"time"

	"spacehost/internal/lazyregexp"
)

// Host is the word and the name of the host's own machine. No other node may have it.
const Host = "host"

// Waiting is what visitors read while no node may run a Space.
const Waiting = "This app waits for a machine."

// State is whether a node can be reached.
type State string

// The states, with the names that package nodes gives them.
const (
	Joined    State = "joined"    // its agent has not connected yet
	Connected State = "connected" // beats arrive on time
	Suspect   State = "suspect"   // beats are late
	Lost      State = "lost"      // no beat for too long
	Revoked   State = "revoked"
	Awaited   State = "awaited" // it was connected shortly before, perhaps to the previous host
)

// Node is what Choose needs to know of a machine.
type Node struct {
	Name      string
	Labels    []string
	State     State
	Since     time.Time // of the last beat, if State is Suspect, Lost or Awaited; of the revocation; else unused
	Drained   bool
	Reason    string // of the drain; may be empty
	Devices   int
	FreeSlots int   // Slots without a lease, on Devices that lend; never negative
	Spaces    int   // that are placed there, the Space to choose for not counted
	Memory    int64 // free bytes of main memory
	// Leaves is the time until the machine is given back, if that is known; 0: it is not.
	Leaves time.Duration
}

// LeavesSoon is the time before the end of a machine from which on other nodes are preferred: a start builds an environment and loads
// models, and would be repeated elsewhere.
const LeavesSoon = 30 * time.Minute

func (n Node) leavesSoon() bool { return n.Leaves > 0 && n.Leaves < LeavesSoon }

// MaxWord is the longest word in bytes.
const MaxWord = 63

var wordRule = lazyregexp.New(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`)

// CheckWord refuses what can be neither the name nor a label of a node.
func CheckWord(word string) error {
	if len(word) > MaxWord || !wordRule.MatchString(word) {
		return fmt.Errorf("%.70q cannot be the name or a label of a node; use at most %d lower-case letters, digits, dots, hyphens and underscores, such as gpu2 or h200", word, MaxWord)
	}
	return nil
}
